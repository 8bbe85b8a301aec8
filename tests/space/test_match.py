"""Layouts at equal cost: every legal network within a budget is found, and the instances differ in shape."""

import math
from pathlib import Path

import pytest
from archs import C, T, space
from command_line import call

from coatnet_search.architecture.cost import cost
from coatnet_search.core.errors import InputError
from coatnet_search.space.family_grid import family_spaces, resized
from coatnet_search.space.match import Solutions, Wanted, match, solutions
from coatnet_search.space.space import Space, load_space
from coatnet_search.study.lookup import load_arch

CT = {"block": [C, T]}
STAGES = [
    {"block": C, "depth": [1, 2], "width": [8, 12, 16], "kernel": [3, 5]},
    {**CT, "depth": [1, 2, 3], "width": [16, 24], "stride": 2},
    {**CT, "depth": [1, 2], "width": [24, 32], "stride": 1},
]


def plain(**more):
    return space(*STAGES, image_size=16, head_size=8, convolution_first=True, **more)


def by_listing(one: Space, layout: str, low: float, high: float) -> dict[str, tuple[int, int]]:
    """The (params, macs) of all networks of a layout with so many macs, found one by one."""
    archs = [one.decode(candidate) for candidate in one.enumerate()]
    costs = {arch.id: cost(arch) for arch in archs if arch.layout == layout}
    return {name: (found.params, found.macs) for name, found in costs.items() if low <= found.macs <= high}


def costs_of(found: Solutions) -> dict[str, tuple[int, int]]:
    return {one.arch.id: (one.params, one.macs) for one in found}


@pytest.mark.parametrize(
    ("one", "middle"),
    [
        (plain(), 2.4e6),
        (plain(limits={"macs": 2.5e6}), 2.4e6),
        (plain(limits={"activations": 110_000}), 2.4e6),
        (space(*STAGES, image_size=(16, 32), head_size=(4, 8), stem={"width": (8, 12), "stride": (1, 2), "depth": 1}),
         2.4e6),
        (space({"block": C, "depth": [1, 2], "width": 8}, {**CT, "depth": [1, 2], "width": [8, 16]},
              {**CT, "depth": [0, 1, 2], "width": 16}, {**CT, "depth": [1, 2], "width": 16}), 1.0e6),
    ],
    ids=["plain", "macs limited", "activations limited", "sizes, heads and stems", "one network has several spellings"],
)  # fmt: skip
def test_exactly_the_networks_that_listing_finds_are_found(one: Space, middle: float) -> None:
    layouts = ("C-C-C", "C-C-T", "C-T-T")
    expected = [by_listing(one, layout, middle * 0.6, middle * 1.4) for layout in layouts]

    found = [solutions(one, layout, Wanted(macs=middle, tolerance=0.4)) for layout in layouts]

    assert sum(map(len, expected)) > 10
    assert all(each.exact for each in found)
    assert [each.total for each in found] == [len(each) for each in found] == [len(each) for each in expected]
    assert [costs_of(each) for each in found] == expected


def test_both_tolerances_hold_and_the_closest_comes_first() -> None:
    wanted = Wanted(macs=2.4e6, params=30_000, tolerance=0.3, params_tolerance=0.2)
    expected = {name: costs for name, costs in by_listing(plain(), "C-C-T", 2.4e6 * 0.7, 2.4e6 * 1.3).items()
                if 24_000 <= costs[0] <= 36_000}  # fmt: skip

    found = solutions(plain(), "C-C-T", wanted)
    distances = [max(abs(one.deviation) / 0.3, abs(one.params_deviation) / 0.2) for one in found]

    assert costs_of(found) == expected
    assert len(found) > 3
    assert distances == sorted(distances)
    assert distances[-1] <= 1


def test_instances_begin_with_the_closest_and_differ_in_shape() -> None:
    found = solutions(plain(), "C-C-T", Wanted(macs=2.4e6, tolerance=0.3))

    taken = match(plain(), "C-C-T", macs=2.4e6, tolerance=0.3, instances=3)

    assert taken[0] == found[0]
    assert [one.solutions for one in taken] == [len(found)] * 3
    assert len({one.shape for one in taken}) == 3
    assert spread(taken) > spread(found[:3])
    assert taken == match(plain(), "C-C-T", macs=2.4e6, tolerance=0.3, instances=3)


def spread(taken) -> float:
    """The least distance in log2 of depths and widths between two networks."""
    profiles = [[math.log2(n) for stage in one.arch.stages for n in (stage.depth, stage.width)] for one in taken]
    return min(math.dist(a, b) for i, a in enumerate(profiles) for b in profiles[:i])


def test_a_match_is_a_candidate_of_its_space() -> None:
    one = plain()

    for found in match(one, "C-T-T", macs=2.4e6, tolerance=0.3, instances=2):
        assert one.canonical(found.candidate) == found.candidate
        assert one.decode(found.candidate) == found.arch
        assert found.deviation == found.macs / 2.4e6 - 1
        assert one.problems(found.candidate) == []


def test_what_is_measured_may_refuse_a_network() -> None:
    asked = []

    def wide(one) -> bool:
        asked.append(one.shape)
        return one.arch.stages[0].width == 16

    taken = match(plain(), "C-C-T", macs=2.4e6, tolerance=0.3, instances=2, accept=wide)

    assert [one.arch.stages[0].width for one in taken] == [16, 16]
    assert len(asked) == len(set(asked)) or len(asked) <= taken[0].solutions
    with pytest.raises(InputError, match=r"0 of .* networks are accepted, 1 asked for"):
        match(plain(), "C-C-T", macs=2.4e6, accept=lambda one: False)


def test_a_budget_that_no_network_meets_names_the_nearest() -> None:
    most = max(macs for _, macs in by_listing(plain(), "C-C-T", 0, math.inf).values())

    with pytest.raises(InputError) as raised:
        match(plain(), "C-C-T", macs=2 * most)

    assert str(raised.value).startswith("C-C-T at ")
    assert "no network; the nearest has" in str(raised.value)
    assert "-50.0 %" in str(raised.value)


def test_more_instances_than_there_are_names_the_next_one() -> None:
    count = len(solutions(plain(), "C-T-T", Wanted(macs=2.4e6)))

    with pytest.raises(InputError, match=rf"{count} networks, {count + 1} asked for; the nearest other has"):
        match(plain(), "C-T-T", macs=2.4e6, instances=count + 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layout": "C-T-C"}, "no layout named 'C-T-C'; did you mean"),
        ({"layout": "T-T-T"}, "no layout named 'T-T-T'"),
        ({"macs": -1.0}, "macs of a budget: expected a number above 0, got -1.0"),
        ({"macs": math.nan}, "macs of a budget: expected a number above 0, got nan"),
        ({"params": 0.0}, "params of a budget: expected a number above 0"),
        ({"tolerance": 0.0}, "tolerance of a budget: expected a number above 0"),
        ({"instances": 0}, "instances: expected at least 1, got 0"),
    ],
)
def test_bad_budgets_are_named(options, message: str) -> None:
    with pytest.raises(InputError) as raised:
        match(plain(), **{"layout": "C-C-T", "macs": 2.4e6, **options})

    assert message in str(raised.value)


def test_coatnet_0_is_the_closest_to_its_own_cost_in_the_bundled_space() -> None:
    own = cost(load_arch("coatnet-0"))

    (found,) = match(load_space("imagenet-layouts"), "C-C-T-T", macs=own.macs, params=own.params)

    assert found.arch.id == load_arch("coatnet-0").id
    assert (found.deviation, found.params_deviation) == (0, 0)


def test_a_large_space_is_counted_without_listing() -> None:
    ct = {**CT, "depth": list(range(1, 25)), "width": [16, 24], "expand": [1, 2]}
    one = space(ct, *({**ct, "stride": 2} for _ in range(3)), image_size=32, convolution_first=True)

    found = solutions(one, "C-C-C-T", Wanted(macs=2e7, tolerance=0.01))

    assert found.total > 1000
    assert all(abs(each.deviation) <= 0.01 for each in found[:50])


# --- the paper's family ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "layout"), [("coatnet-2", "C-C-T-T"), ("vit-rel-24x512", "vit-rel")])
def test_the_family_grid_holds_the_paper_s_networks(name: str, layout: str) -> None:
    own = cost(load_arch(name))

    (found,) = match(family_spaces(layout), layout, macs=own.macs, params=own.params, tolerance=0.001)

    assert found.arch.id == load_arch(name).id


def test_a_layout_at_a_cost_is_an_architecture() -> None:
    arch = load_arch("C-T-T-T@1.5e10", num_classes=10)

    assert arch.layout == "C-T-T-T"
    assert arch.num_classes == 10
    assert arch.problems() == []
    assert cost(arch).macs == pytest.approx(1.5e10, rel=0.01)


@pytest.mark.parametrize("layout", ["C-C-C-T", "C-T-T-T", "ViT_REL"])
def test_the_family_exists_for_small_images(layout: str) -> None:
    found = resized(f"{layout}@4e6", image_size=32, num_classes=10)

    assert found.arch.problems() == []
    assert abs(found.deviation) < 0.05


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("C-C-T-T@4G", "expected LAYOUT@MACS such as C-C-T-T@4.2e9, got '4G' as macs"),
        ("C-C-T@4e9", "no layout named 'C-C-T'; did you mean 'C-C-T-T'?"),
        ("coatnet-0@4e9", "no layout named 'coatnet-0'"),
        ("C-C-T-T@nan", "expected a number above 0, got nan"),
        ("C-C-T-T@10", "no network; the nearest has"),
    ],
)
def test_a_layout_at_no_cost_is_refused(name: str, message: str) -> None:
    with pytest.raises(InputError) as raised:
        load_arch(name)

    assert message in str(raised.value)


def test_an_image_size_that_the_strides_do_not_divide_is_refused() -> None:
    with pytest.raises(InputError, match="not a multiple of the strides' product 32; try 224"):
        load_arch("C-C-T-T@4.2e9", image_size=225)


# --- the verb --------------------------------------------------------------------------------------------------------


def test_the_verb_tells_instances_with_deviations_and_writes_them(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    words = ("match", "C-C-T-T", "--macs", "4e6", "--space", "cifar-tiny", "--instances", 2, "--out", tmp_path)

    printed = call(capsys, *words)
    as_json = call(capsys, *words, "--json")

    assert printed.code == 0
    assert f"{as_json.json[0]['solutions']:,} networks of C-C-T-T are within" in printed.out
    assert [row["rank"] for row in as_json.json] == [1, 2]
    for row in as_json.json:
        arch = load_arch(row["path"])
        assert (arch.id, arch.layout) == (row["arch_id"], "C-C-T-T")
        assert row["macs"] == cost(arch).macs == pytest.approx(4e6 * (1 + row["deviation"]))
        assert load_space("cifar-tiny").decode(row["candidate"]) == arch


def test_the_verb_keeps_networks_of_a_measured_speed(capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    from coatnet_search.cli.commands import match as verb

    speeds = iter([100.0, 900.0, 1010.0])
    monkeypatch.setattr(verb, "rows", lambda subjects, device: [{verb.MEASURED: next(speeds)}])

    printed = call(capsys, "match", "C-C-T-T", "--macs", "4e6", "--space", "cifar-tiny", "--throughput", "1000",
                   "--device", "cpu", "--json")  # fmt: skip

    assert [row["throughput_images_per_s"] for row in printed.json] == [1010.0]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("C-C-T-T",), "required: --macs"),
        (("C-C-T-T", "--macs", "4e9", "--device", "cpu"), "--throughput and --device go together"),
        (("C-C-T-T", "--macs", "4e6", "--space", "cifar-tiny", "--image-size", "32"), "leave one of both out"),
        (("C-T-C-T", "--macs", "4e6", "--space", "cifar-tiny"), "no layout named 'C-T-C-T'"),
        (("C-C-T-T", "--macs", "4e9", "--space", "cifar-tiny"), "no network; the nearest has"),
    ],
)
def test_the_verb_refuses_in_one_line(words, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    printed = call(capsys, "match", *words)

    assert printed.code == 2
    assert message in printed.error
