"""An architecture by name, layout, file or trial."""

import dataclasses
from pathlib import Path

import pytest

import coatnet_search
from coatnet_search.architecture.arch import Arch, Stage, Stem
from coatnet_search.architecture.family import known_names, named_arch
from coatnet_search.core.document import dump
from coatnet_search.core.errors import InputError
from coatnet_search.record.fold import Record
from coatnet_search.study.lookup import load_arch
from coatnet_search.training.budget import Budget


def small(width: int) -> Arch:
    stages = (Stage(block="C", depth=1, width=width, stride=2), Stage(block="T", depth=1, width=32))
    return Arch(image_size=16, num_classes=10, stem=Stem(depth=1, width=8, stride=1), stages=stages)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of twelve trials, all of different networks."""
    with Record(tmp_path / "run") as record:
        for number in range(12):
            arch = small(8 * (number + 1))
            record.append({
                "event": "started", "number": number, "key": f"key{number}", "candidate": {"width": number},
                "arch": arch.to_dict(), "arch_id": arch.id, "layout": arch.layout,
                "budget": dataclasses.asdict(Budget(epochs=1)), "metrics": {}, "attributes": {}, "origin": "random",
            })  # fmt: skip
    return tmp_path / "run"


def test_the_package_offers_it() -> None:
    assert coatnet_search.load_arch is load_arch


@pytest.mark.parametrize("name", known_names())
def test_every_known_name_is_an_architecture_of_the_paper_s_ends(name: str) -> None:
    arch = load_arch(name)

    assert (arch.image_size, arch.in_channels, arch.num_classes) == (224, 3, 1000)
    assert arch.problems() == []


def test_ends_that_are_given_replace_the_name_s() -> None:
    arch = load_arch("coatnet-0", image_size=384, in_channels=1, num_classes=10)

    assert arch == named_arch("coatnet-0", image_size=384, in_channels=1, num_classes=10)


@pytest.mark.parametrize("nested", [True, False])
def test_a_file_gives_its_architecture_back(nested: bool, tmp_path: Path) -> None:
    arch, path = small(24), tmp_path / "net.yaml"
    path.write_text(dump({"arch": arch.to_dict(), "reason": "best"} if nested else arch.to_dict()))

    assert load_arch(path) == arch
    assert load_arch(str(path), num_classes=7) == dataclasses.replace(arch, num_classes=7)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("arch: {image_size: 8, stages: [{block: C, depth: 1, width: 8, stride: 3}]}", "net.yaml:1: arch: stride"),
        ("arch: {image_size: 8, stagse: []}", "no key of an architecture named 'stagse'; did you mean 'stages'?"),
        ("image_size: 8\nstem: {widht: 3}", "no key of a stem named 'widht'; did you mean 'width'?"),
        ("question: hello", "got no image_size"),
        ("arch: coatnet-0", "net.yaml:1: arch: expected an architecture"),
        ("- 1", "expected a mapping"),
    ],
)
def test_a_file_that_is_no_architecture_is_named(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "net.yaml"
    path.write_text(text)

    with pytest.raises(InputError) as raised:
        load_arch(path)

    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_trial_is_found_by_number_id_and_the_beginning_of_its_id(run: Path) -> None:
    arch = small(8 * 11)

    found = [load_arch(f"{run}:{wanted}") for wanted in ("10", arch.id, arch.id[:7])]

    assert found == [arch, arch, arch]
    assert load_arch(f"{run}:10", image_size=32).image_size == 32


def test_the_beginning_of_several_ids_is_refused(tmp_path: Path) -> None:
    archs: dict[str, Arch] = {}
    widths = iter(range(8, 80_000, 8))
    while True:  # two ids that begin alike
        arch = small(next(widths))
        if arch.id[:3] in archs and not arch.id[:3].isdigit():
            break
        archs[arch.id[:3]] = arch
    pair = [archs[arch.id[:3]], arch]
    with Record(tmp_path / "run") as record:
        for number, one in enumerate(pair):
            record.append({"event": "started", "number": number, "key": str(number), "candidate": {"n": number},
                           "arch": one.to_dict(), "arch_id": one.id})  # fmt: skip

    with pytest.raises(InputError, match=f"{arch.id[:3]} begins 2 arch ids"):
        load_arch(f"{tmp_path / 'run'}:{arch.id[:3]}")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("coatnet-9", "no architecture named 'coatnet-9'; did you mean"),
        ("C-C-T", "no architecture named 'C-C-T'"),
        ("timm:resnet18", "`profile` alone takes it"),
        ("nowhere:3", "expected RUN:ID, as runs/quickstart:12"),
        ("{run}:77", "it has trials 0 to 11"),
        ("{run}:zzzz", "it has trials 0 to 11"),
    ],
)
def test_a_name_that_is_none_is_refused_with_the_known_ones(name: str, message: str, run: Path) -> None:
    with pytest.raises(InputError) as raised:
        load_arch(name.format(run=run))

    assert message in str(raised.value)
