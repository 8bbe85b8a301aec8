"""An architecture is a value: equal networks have one id, whatever is wrong is named, nothing is lost on the way."""

import copy
import dataclasses
import json
import pickle
import subprocess
import sys

import pytest
from archs import C, T, small

from coatnet_search.architecture.arch import Arch, Head, Stage, Stem
from coatnet_search.architecture.blocks import BLOCKS, BlockType, block_name, menu
from coatnet_search.architecture.family import known_names, named_arch
from coatnet_search.core.canonical import canonical_json, digest
from coatnet_search.core.errors import InputError, SetupError

DEEP = Stage(block=C, depth=3, width=8, stride=2)


def test_an_option_at_its_default_equals_one_that_is_left_out():
    written = Stage(block=C, depth=1, width=8, kernel=3, expand=4, se_ratio=0.25)

    left_out = Stage(block=C, depth=1, width=8)

    assert written == left_out
    assert hash(written) == hash(left_out)
    assert small(written).id == small(left_out).id


def test_letters_equal_full_names():
    assert small(Stage(block="mbconv", depth=1, width=8)).id == small(Stage(block="C", depth=1, width=8)).id
    assert Stage(block="attention", depth=1, width=32) == Stage(block="T", depth=1, width=32)


def test_four_point_zero_equals_four():
    floats = Stage(block=C, depth=1, width=8, expand=4.0, kernel=5.0)
    wholes = Stage(block=C, depth=1, width=8, expand=4, kernel=5)

    assert floats == wholes
    assert type(floats.options["kernel"]) is int
    assert small(floats).id == small(wholes).id
    assert canonical_json({"b": 4.0, "a": (1, 2.5)}) == '{"a":[1,2.5],"b":4}'


def test_the_order_of_options_does_not_matter():
    one = Stage(block=C, depth=1, width=8, options={"kernel": 5, "expand": 2})
    other = Stage(block=C, depth=1, width=8, options={"expand": 2, "kernel": 5})

    assert one == other
    assert hash(one) == hash(other)


@pytest.mark.parametrize("split", [(1, 2), (2, 1), (1, 1, 1)])
def test_stages_that_only_go_on_with_the_same_blocks_are_one_network(split):
    stages = [Stage(block=C, depth=d, width=8, stride=1 if place else 2) for place, d in enumerate(split)]

    assert small(*stages).id == small(DEEP).id


@pytest.mark.parametrize(
    "follow",
    [
        Stage(block=C, depth=1, width=8, stride=2),
        Stage(block=C, depth=1, width=16),
        Stage(block=C, depth=1, width=8, kernel=5),
        Stage(block=T, depth=1, width=8, head_size=8),
    ],
)
def test_stages_that_differ_are_not_merged(follow):
    assert small(dataclasses.replace(DEEP, depth=2), follow, image_size=32).id != small(DEEP, image_size=32).id


def test_options_of_the_stride_do_not_tell_stages_without_one_apart():
    plain = Stage(block=C, depth=2, width=8)

    assert Stage(block=C, depth=2, width=8, pool="avg", stride_at="depthwise") == plain
    assert Stage(block=C, depth=2, width=8, stride=2, pool="avg") != dataclasses.replace(plain, stride=2)


def test_a_stage_goes_on_with_the_blocks_of_one_that_strode_otherwise():
    whole = Stage(block=C, depth=3, width=8, stride=2, stride_at="depthwise")
    halves = dataclasses.replace(whole, depth=1), Stage(block=C, depth=2, width=8)

    assert small(*halves).id == small(whole).id


def test_a_stem_without_norms_has_one_spelling():
    assert Stem(depth=1, activation="gelu_tanh", norm_eps=1e-5) == Stem(depth=1)
    assert Stem(kind="patch", depth=3, stride=4) == Stem(kind="patch", depth=1, stride=4)
    assert Stem(depth=2, activation="gelu_tanh") != Stem(depth=2)


@pytest.mark.parametrize("change", [
    {"image_size": 32}, {"in_channels": 1}, {"num_classes": 6}, {"stem": Stem(depth=2, width=8, stride=1)},
    {"head": Head(hidden=False)}, {"head": Head(norm_eps=1e-6)},
])  # fmt: skip
def test_whatever_changes_the_network_changes_its_id(change):
    assert dataclasses.replace(small(), **change).id != small().id


def test_every_named_network_has_an_id_of_its_own():
    archs = [named_arch(name) for name in known_names() if name != "C-C-T-T"]  # this layout is coatnet-0

    ids = {arch.id for arch in archs}

    assert len(ids) == len(archs)
    assert named_arch("C-C-T-T").id == named_arch("coatnet-0").id
    assert all(arch.problems() == [] for arch in archs)


def test_an_id_is_the_same_in_another_process():
    code = "from coatnet_search.architecture.family import named_arch; print(named_arch('coatnet-0').id)"

    other = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": "7"}
    )

    assert other.stdout.strip() == named_arch("coatnet-0").id
    assert len(named_arch("coatnet-0").id) == 10


def test_an_architecture_needs_no_torch():
    code = (
        "import sys, coatnet_search.architecture.family as f; f.named_arch('vit-rel').id; print('torch' in sys.modules)"
    )

    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert other.stdout.strip() == "False"


@pytest.mark.parametrize("name", known_names())
def test_json_and_pickle_lose_nothing(name):
    arch = named_arch(name)

    read = Arch.from_dict(json.loads(json.dumps(arch.to_dict())))

    assert read == arch
    assert read.id == arch.id
    assert pickle.loads(pickle.dumps(arch)) == copy.deepcopy(arch) == arch  # noqa: S301
    assert pickle.loads(pickle.dumps(arch)).id == arch.id  # noqa: S301


def test_a_stage_of_options_that_are_not_default_comes_back():
    arch = small(Stage(block=C, depth=1, width=8, stride=2, kernel=5, pool="avg", norm="layer", se_ratio=0))

    assert Arch.from_dict(arch.to_dict()) == arch
    assert arch.to_dict()["stages"][0]["kernel"] == 5
    assert "expand" not in arch.to_dict()["stages"][0]


GOOD = small().to_dict()


def changed(key, value):
    return {**GOOD, key: value}


@pytest.mark.parametrize(("value", "words"), [
    ({**GOOD, "imagesize": 32}, "'imagesize'; did you mean 'image_size'"),
    ({key: value for key, value in GOOD.items() if key != "image_size"}, "image_size"),
    (changed("image_size", "big"), "image_size: expected a whole number"),
    (changed("image_size", True), "image_size"),
    (changed("in_channels", 0), "in_channels"),
    (changed("num_classes", 2.5), "num_classes"),
    (changed("stem", {"widht": 8}), "'widht'; did you mean 'width'"),
    (changed("stem", {"kind": "convolution"}), "stem kind"),
    (changed("stem", {"stride": 4}), "stride of a conv stem"),
    (changed("stem", {"stride": 0}), "stem stride"),
    (changed("stem", {"bias": "no"}), "stem bias: expected true or false"),
    (changed("stem", {"norm_eps": "1e-3"}), "stem norm_eps: expected a number"),
    (changed("stem", {"norm_eps": 0}), "stem norm_eps: expected a number above 0"),
    (changed("stem", {"activation": "relu"}), "stem activation"),
    (changed("stem", None), "a stem: expected a mapping"),
    (changed("head", {"hidden": "no"}), "head hidden: expected true or false"),
    (changed("head", {"norm_eps": float("nan")}), "head norm_eps"),
    (changed("head", [1]), "a head: expected a mapping"),
    (changed("stages", "CCTT"), "stages: expected a list"),
    (changed("stages", ["C"]), "a stage: expected a mapping"),
    (changed("stages", [{"depth": 1, "width": 8}]), "block"),
    (changed("stages", [{"block": "C", "width": 8}]), "depth"),
    (changed("stages", [{"block": "X", "depth": 1, "width": 8}]), "no block named 'X'"),
    (changed("stages", [{"block": "C", "depth": 0, "width": 8}]), "depth: expected a whole number of at least 1"),
    (changed("stages", [{"block": "C", "depth": 1, "width": 8.5}]), "width"),
    (changed("stages", [{"block": "C", "depth": 1, "width": 8, "stride": 3}]), "stride of a stage"),
    (changed("stages", [{"block": "C", "depth": 1, "width": 8, "head_size": 8}]), "no option named 'head_size'"),
    (changed("stages", [{"block": "C", "depth": 1, "width": 8, "kernel": "3"}]), "kernel: expected a number"),
    (changed("stages", [{"block": "C", "depth": 1, "width": 8, "kernel": float("inf")}]), "kernel: expected a number"),
    (changed("stages", [{"block": "C", "depth": 1, "width": 8, "kernel": True}]), "kernel"),
    (changed("stages", [{"block": "T", "depth": 1, "width": 8, "relative": 1}]), "relative: expected bool"),
    (changed("stages", [{"block": "C", "depth": 1, "width": 8, "pool": "mean"}]), "pool: expected one of"),
    ([1, 2], "an architecture: expected a mapping"),
    (None, "an architecture: expected a mapping"),
])  # fmt: skip
def test_a_mistake_is_named_with_its_key(value, words):
    with pytest.raises(InputError) as caught:
        Arch.from_dict(value)

    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_problems_say_which_stage_and_why():
    arch = small(
        Stage(block=C, depth=1, width=8, stride=2, kernel=4), Stage(block=T, depth=1, width=20, stride=2, head_size=16)
    )

    reasons = arch.problems()

    assert len(reasons) == 2
    assert "stage 1 (C)" in reasons[0]
    assert "kernel" in reasons[0]
    assert "stage 2 (T)" in reasons[1]
    assert "head_size" in reasons[1]


@pytest.mark.parametrize(("image_size", "better"), [(30, 32), (3, 8), (33, 32), (100, 96)])
def test_an_image_size_that_the_strides_do_not_divide_comes_with_one_that_they_do(image_size, better):
    stages = Stage(block=C, depth=1, width=8, stride=2), Stage(block=C, depth=1, width=16, stride=2)
    arch = Arch(image_size=image_size, stem=Stem(stride=2), stages=stages)

    reasons = arch.problems()

    assert reasons == [f"image_size {image_size} is not a multiple of the strides' product 8; try {better}"]
    assert dataclasses.replace(arch, image_size=better).problems() == []


def test_grids_and_layout_follow_from_the_stages():
    arch = named_arch("coatnet-6", image_size=512)

    assert arch.grids == (256, 128, 64, 32, 32, 16)
    assert arch.layout == "C-C-C-T-T"
    assert arch.out_width == 3072


def test_an_unknown_name_says_which_are_known():
    with pytest.raises(InputError, match="did you mean 'coatnet-0'"):
        named_arch("cotnet-0")


class Point:
    """An entry point as importlib gives it."""

    def __init__(self, name, block):
        self.name, self.value, self._block = name, "package:BLOCK", block

    def load(self):
        return self._block


@pytest.fixture
def installed(monkeypatch):
    """Makes the menu hold a third party's blocks for one test."""

    def install(**blocks):
        points = [Point(name, block) for name, block in blocks.items()]
        monkeypatch.setattr("importlib.metadata.entry_points", lambda group: points)
        menu.cache_clear()
        block_name.cache_clear()

    yield install
    menu.cache_clear()
    block_name.cache_clear()


def test_a_third_party_adds_a_block_with_options_of_its_own(installed):
    installed(plain=BlockType(letter="P", kind="convolution", cls="x:X", options={"mode": "a", "rate": 0.5}))

    stage = Stage(block="P", depth=1, width=8, mode="b")

    assert (stage.block, stage.letter) == ("plain", "P")
    assert stage.options == {"mode": "b", "rate": 0.5}
    with pytest.raises(InputError, match="mode: expected text"):
        Stage(block="P", depth=1, width=8, mode=3)


@pytest.mark.parametrize(("name", "letter"), [("mine", "C"), ("mbconv", "M"), ("mine", "attention"), ("T", "M")])
def test_a_third_party_cannot_take_a_name_that_is_taken(installed, name, letter):
    installed(**{name: dataclasses.replace(BLOCKS["mbconv"], letter=letter)})

    with pytest.raises(SetupError, match=f"block {name} of package:BLOCK"):
        menu()


def test_a_digest_is_hex_of_the_asked_length():
    assert len(digest({"a": 1}, 24)) == 24
    assert digest({"a": 1.0}) == digest({"a": 1})
    assert int(digest([1, "ü"]), 16) >= 0


@pytest.mark.parametrize("block", ["C", "F"])
@pytest.mark.parametrize("width", [1, 8, 24, 49, 96])
def test_ratios_that_squeeze_to_as_many_channels_are_one_network(block, width):
    """int(ratio x width) channels, at least one: that is all that the block has of its ratio."""
    from coatnet_search.architecture.blocks import squeezed

    found = {}
    for ratio in [0, 0.01, 0.06, 0.25, 0.3, 0.3333, 0.5, 0.55, 0.77, 1]:
        stage = Stage(block=block, depth=1, width=width, se_ratio=ratio)
        assert squeezed(width, stage.options["se_ratio"]) == squeezed(width, ratio)
        found.setdefault(squeezed(width, ratio), set()).add((stage, small(stage).id))

    assert all(len(same) == 1 for same in found.values())
    assert len({one for same in found.values() for one in same}) == len(found)


def test_the_ratio_that_was_written_stays_where_it_is_the_only_one():
    assert Stage(block="C", depth=1, width=8).options["se_ratio"] == 0.25
    assert Stage(block="C", depth=1, width=8, se_ratio=0.30).options["se_ratio"] == 0.25
    assert Stage(block="C", depth=1, width=8, se_ratio=0.5).options["se_ratio"] == 0.5
