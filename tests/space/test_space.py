"""What may be chosen: one spelling for a network, sizes that brute force confirms, refusals with their reason."""

import itertools
import math
import sys

import numpy as np
import pytest
from archs import C, T, space
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coatnet_search.architecture.blocks import BLOCKS, BlockType, block_name, menu
from coatnet_search.architecture.cost import cost
from coatnet_search.core import bundled
from coatnet_search.core.errors import InputError
from coatnet_search.core.limits import limit_problems
from coatnet_search.space.space import Space, load_space

BUNDLED = bundled.names("search_spaces")
ONE = {"block": C, "depth": 1, "width": 8}


def c(**changes):
    """A convolution stage of one block at one width, but for what is changed."""
    return {**ONE, **changes}


def t(**changes):
    return c(**{"block": T, **changes})


def ct(**changes):
    return c(**{"block": [C, T], **changes})


def everything(space):
    """All raw candidates of a space."""
    names = list(space.choices)
    return [dict(zip(names, values, strict=True)) for values in itertools.product(*space.choices.values())]


def networks(space):
    """The distinct legal networks of a space, by decoding everything that can be written down."""
    legal = (space.decode(candidate) for candidate in everything(space) if not space.problems(candidate))
    return {arch.id: arch for arch in legal}


def check(space):
    """What must hold of any small space."""
    found = networks(space)
    spelled = {}
    for candidate in everything(space):
        canonical = space.canonical(candidate)
        assert space.canonical(canonical) == canonical
        assert list(canonical) == list(space.choices)
        assert space.problems(canonical) == space.problems(candidate) or space.problems(candidate)
        if space.problems(candidate):
            continue
        network = space.decode(candidate).id
        assert space.decode(canonical).id == network
        assert spelled.setdefault(network, canonical) == canonical
    listed = list(space.enumerate())
    assert [space.decode(candidate).id for candidate in listed] == list(dict.fromkeys(map(network_of(space), listed)))
    assert {space.decode(candidate).id for candidate in listed} == set(found)
    check_survey(space, found)


def network_of(space):
    return lambda candidate: space.decode(candidate).id


def check_survey(space, found):
    survey = space.survey
    layouts = {}
    for arch in found.values():
        layouts[arch.layout] = layouts.get(arch.layout, 0) + 1
    costs = [cost(arch) for arch in found.values()]
    assert survey.exact
    assert survey.size == space.size() == len(found)
    assert sum(survey.layouts.values()) == survey.size
    if {"activations"} & set(space.limits) or space.ambiguous:
        return  # layouts of merged stages depend on the spelling
    assert survey.layouts == layouts
    if costs:
        assert survey.params == (min(c.params for c in costs), max(c.params for c in costs))
        assert survey.macs == (min(c.macs for c in costs), max(c.macs for c in costs))


SPACES = {
    "two blocks": lambda: space(ct(depth=[1, 2], width=[8, 16], stride=[1, 2], kernel=[3, 5])),
    "depth 0": lambda: space(c(depth=[0, 1], kernel=[3, 5]), c(depth=[0, 1, 2], width=16, stride=2)),
    "all left out": lambda: space(c(depth=[0, 1]), c(depth=[0, 1], width=16)),
    "head sizes": lambda: space(ct(depth=[0, 1], width=16), ct(width=32),
                                head_size=(8, 16, 32)),
    "head sizes of a stage": lambda: space(ct(width=16, head_size=(8, 16)), head_size=(4, 8)),
    "head sizes beside a stage's": lambda: space(ct(width=16, head_size=8),
                                                 ct(width=32), head_size=(8, 16)),
    "image sizes": lambda: space(c(stride=[1, 2]), ct(width=16, stride=2),
                                 image_size=(6, 8, 12)),
    "stems": lambda: space(ct(), stem={"kind": ("conv", "patch"), "depth": (1, 2), "width": (8, 16), "stride": 2}),
    "stems of any stride": lambda: space(
        ONE, stem={"kind": ("conv", "patch"), "depth": 1, "width": 8, "stride": (2, 4)}),
    "idle options of stems": lambda: space(
        ONE, stem={"depth": (1, 2), "activation": ("gelu", "gelu_tanh"), "norm_eps": (1e-3, 1e-5), "width": 8,
                   "stride": 1}),
    "merging": lambda: space(c(depth=[1, 2], width=[8, 16]), c(depth=[1, 2, 3], width=[8, 16], stride=[1, 2])),
    "merging of three": lambda: space(*[c(depth=[1, 2])] * 3),
    "merging under two names": lambda: space(c(depth=[1, 2]), c(block=["mbconv", T], depth=[1, 2])),
    "merging across a gap": lambda: space(c(depth=[1, 2]), c(depth=[0, 1], width=16), c(depth=[1, 2])),
    "twins of which one may go": lambda: space(c(depth=[0, 1, 2]), c(depth=[0, 1])),
    "twins that stride": lambda: space(c(depth=[0, 1], stride=2), c(depth=[0, 1], stride=2), image_size=16),
    "twins with options": lambda: space(c(depth=[0, 1], kernel=[3, 5]), c(depth=[1, 2], kernel=[5, 3])),
    "options of the stride": lambda: space(c(stride=[1, 2], pool=["avg", "max"], stride_at=["depthwise", "expand"])),
    "merging after a stride": lambda: space(c(stride=2, depth=[1, 2], pool=["max", "avg"]), c(depth=[1, 2])),
    "merging with head sizes": lambda: space(t(depth=[0, 1], width=16, head_size=8),
                                             t(depth=[0, 1], width=16), head_size=(16, 8)),
    "convolution first": lambda: space(*[ct(depth=[0, 1], width=w) for w in (8, 16, 24)], convolution_first=True),
    "no rule of order": lambda: space(*[ct(width=w) for w in (8, 16)], convolution_first=False),
    "wrong values": lambda: space(c(kernel=[2, 3], expand=[0.5, 1, 1.3], se_ratio=[0, 2])),
    "heads that do not divide": lambda: space(ct(width=[8, 12, 16]), head_size=(8, 12)),
    "few tokens": lambda: space(ct(width=8, stride=[1, 2]), ct(width=16, stride=2)),
    "one point": lambda: space(ONE),
    "nothing legal": lambda: space(c(kernel=[2, 4])),
    "limits": lambda: space(ct(depth=[1, 2], width=[8, 16]), limits={"params": (1000.0, 4000.0), "macs": 150000.0}),
    "limits that leave nothing": lambda: space(c(depth=[1, 2]), limits={"params": 10.0}),
    "limits and merging": lambda: space(c(depth=[0, 1]), c(depth=[1, 2]), limits={"macs": (None, 100000.0)}),
    "open lower limit": lambda: space(c(width=[8, 16]), limits={"params": (1500.0, None)}),
}  # fmt: skip


@pytest.mark.parametrize("make", SPACES.values(), ids=SPACES)
def test_a_space_holds_each_network_once_and_counts_them(make):
    check(make())


def rows():
    """One stage of a random space."""
    some = lambda *values: st.lists(st.sampled_from(values), min_size=1, max_size=2, unique=True).map(tuple)  # noqa: E731
    return st.fixed_dictionaries(
        {"block": st.sampled_from([C, T, (C, T), (T, C), "mbconv"]), "depth": some(0, 1, 2), "width": some(8, 16)},
        optional={"stride": some(1, 2), "kernel": some(3, 5, 4), "expand": some(1, 2, 0.5), "pool": some("max", "avg"),
                  "head_size": some(4, 8)},
    )  # fmt: skip


SPACES_AT_RANDOM = st.builds(
    lambda stages, **others: (stages, others),
    st.lists(rows(), min_size=1, max_size=3),
    head_size=st.sampled_from([8, (8, 4), (16, 8), None]),
    image_size=st.sampled_from([8, (8, 4), (16, 6)]),
    convolution_first=st.booleans(),
    limits=st.sampled_from([{}, {"params": 3000.0}, {"params": (2000.0, 5000.0)}]),
)  # fmt: skip


def random_space(drawn, most):
    """The space if it is small enough to list, otherwise None; keys that no block of a stage has are left out."""
    stages, others = drawn
    for row in stages:
        known = set().union(*(menu()[block_name(b)].options for b in np.atleast_1d(row["block"])))
        for key in set(row) - known - {"block", "depth", "width", "stride"}:
            del row[key]
    found = space(*stages, **others)
    return found if math.prod(map(len, found.choices.values())) <= most else None


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None)
@given(SPACES_AT_RANDOM)
def test_random_spaces_hold_each_network_once_and_count_them(drawn):
    found = random_space(drawn, 200)

    if found:
        check(found)


@pytest.mark.full
@pytest.mark.timeout(3600)
@settings(max_examples=600, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(SPACES_AT_RANDOM)
def test_many_random_spaces_hold_each_network_once_and_count_them(drawn):
    found = random_space(drawn, 3000)

    if found:
        check(found)


@pytest.mark.parametrize("name", BUNDLED)
def test_samples_of_bundled_spaces_are_legal_and_canonical(name):
    found, rng = load_space(name), np.random.default_rng(3)

    for _ in range(50):
        candidate = found.sample(rng)
        assert found.problems(candidate) == []
        assert found.canonical(candidate) == candidate
        assert limit_problems(found.limits, found.exact(candidate)) == []


@pytest.mark.parametrize("name", BUNDLED)
def test_bundled_spaces_have_all_layouts_and_no_duplicates_by_construction(name):
    found = load_space(name)

    assert set(found.survey.layouts) == {"C-C-C-C", "C-C-C-T", "C-C-T-T", "C-T-T-T"}
    assert sum(found.survey.layouts.values()) == found.survey.size > 10_000
    assert found.survey.exact


def test_the_size_of_cifar_tiny_is_that_of_a_random_share():
    found, rng = load_space("cifar-tiny"), np.random.default_rng(5)
    free = Space(found.file.__class__(**{**vars(found.file), "limits": {}}))
    raw = math.prod(map(len, found.choices.values()))

    draws = [found._draw(rng) for _ in range(6000)]
    hits = sum(not found.problems(c) and found.canonical(c) == c for c in draws)

    share = found.size() / raw
    assert hits / 6000 == pytest.approx(share, abs=4 * (share * (1 - share) / 6000) ** 0.5)
    assert free.size() > found.size()


def test_drawing_follows_from_the_seed_alone():
    found = load_space("cifar-small")

    one, same, other = ([found.sample(rng) for _ in range(5)] for rng in map(np.random.default_rng, (1, 1, 2)))

    assert one == same
    assert one != other


def test_a_space_of_one_point_is_allowed():
    found, rng = space(ONE), np.random.default_rng(0)

    assert found.sample(rng) == {}
    assert found.size() == 1
    assert list(found.enumerate()) == [{}]


def test_a_space_without_legal_candidates_says_why(monkeypatch):
    monkeypatch.setattr(sys.modules["coatnet_search.space.space"], "TRIES", 50)
    found = space(c(kernel=[2, 4]))

    with pytest.raises(InputError, match=r"none of 50 random candidates is legal; for example: .*kernel"):
        found.sample(np.random.default_rng(0))
    assert found.size() == 0


@pytest.mark.parametrize(("row", "others", "words"), [
    ({"kernel": 4}, {}, "kernel must be an odd"),
    ({"kernel": 2.5}, {}, "kernel must be an odd"),
    ({"expand": 0.5}, {}, "expand must be at least 1"),
    ({"se_ratio": 1.5}, {}, "se_ratio"),
    ({"depth": 0}, {}, "every stage is left out"),
    (t(width=12), {}, "head_size must be a whole number that divides width 12, got 8"),
    (t(expand=0.5), {}, "expand must be at least 1"),
    (t(stride=2), {"image_size": 6}, "attention needs at least 16 tokens, 3x3 leaves 9"),
    ({"stride": 2}, {"image_size": 7}, "image_size 7 is not a multiple of the strides' product 2; try 8"),
    ({}, {"limits": {"params": 10.0}}, "params 1"),
    ({}, {"limits": {"macs": (1e12, None)}}, "is under the limit 1e+12"),
    ({}, {"stem": {"kind": "conv", "stride": 4}}, "stride of a conv stem"),
])  # fmt: skip
def test_what_is_wrong_is_said(row, others, words):
    found = space({**ONE, **row}, **others)

    reasons = found.problems({})

    assert any(words in reason for reason in reasons), reasons


def test_convolution_after_attention_is_refused_only_where_the_rule_holds():
    rows = [t(width=8), {"block": C, "depth": 1, "width": 16}]

    assert space(*rows).problems({}) == []
    assert space(*rows, convolution_first=True).problems({}) == [
        "convolution_first: a convolution stage comes after attention"
    ]


def test_a_stage_that_is_left_out_leaves_its_stride_out():
    found = space(c(depth=[0, 1], stride=2), t(width=16))

    assert found.decode({"s1_depth": 0}).grids == (8, 8)
    assert found.decode({"s1_depth": 1}).grids == (8, 4, 4)


def test_a_candidate_decodes_to_what_it_says():
    found = space(ct(depth=[1, 2], width=[8, 16], kernel=[3, 5]), head_size=(8, 4), image_size=(8, 16))

    arch = found.decode(
        {"image_size": 16, "head_size": 4, "s1_block": "T", "s1_depth": 2, "s1_width": 16, "s1_kernel": 5}
    )

    assert (arch.image_size, arch.in_channels, arch.num_classes) == (16, 1, 3)
    assert (arch.stages[0].block, arch.stages[0].depth, arch.stages[0].width) == ("attention", 2, 16)
    assert arch.stages[0].options["head_size"] == 4


@pytest.mark.parametrize(("candidate", "words"), [
    ({}, "dimension s1_depth is missing"), ({"s1_depth": 7}, "s1_depth: 7 is not among"), ({"s1_dept": 1}, "s1_depth"),
    ({"s1_depth": 1, "s9_depth": 1}, "no dimension named 's9_depth'; did you mean 's1_depth'"),
])  # fmt: skip
def test_a_candidate_of_another_space_is_refused(candidate, words):
    found = space(c(depth=[1, 2]))

    assert words in found.problems(candidate)[0]
    for use in (found.decode, found.canonical, found.cost):
        with pytest.raises(InputError, match=words.replace("?", r"\?")):
            use(candidate)


def test_data_replace_channels_and_classes_alone():
    found = load_space("cifar-tiny").with_data(in_channels=1, num_classes=7)
    candidate = found.sample(np.random.default_rng(0))

    assert (found.decode(candidate).in_channels, found.decode(candidate).num_classes) == (1, 7)
    assert found.choices == load_space("cifar-tiny").choices


def test_a_limit_on_activations_gives_an_estimate_near_the_truth():
    free = load_space("digits")
    rng = np.random.default_rng(1)
    archs = [free.decode(free.sample(rng)) for _ in range(400)]
    middle = float(np.median([cost(arch).activations for arch in archs]))

    bound = Space(free.file.__class__(**{**vars(free.file), "limits": {"activations": middle}}))

    assert not bound.survey.exact
    assert 0.2 < bound.size() / free.size() < 0.8
    assert bound.survey.size == sum(bound.survey.layouts.values())


# --- blocks of others --------------------------------------------------------------------------------------------


class Plain(sys.modules["torch"].nn.Conv2d):
    """A third party's block: one convolution."""

    def __init__(self, in_width, width, stride, grid, *, drop_path, size, mode):
        super().__init__(in_width, width, size, stride, size // 2)

    @staticmethod
    def problems(in_width, width, grid, *, size, mode):
        return ["size must be odd"] if size % 2 == 0 else []


@pytest.fixture
def plain_block():
    line = BlockType(letter="P", kind="convolution", cls=f"{__name__}:Plain", options={"size": 3, "mode": "a"},
                     values={"mode": ("a", "b")})  # fmt: skip
    menu()["plain"] = line
    block_name.cache_clear()
    yield line
    del menu()["plain"]
    block_name.cache_clear()


def test_a_third_party_block_is_searched_counted_and_built(plain_block):
    check(space({"block": ["P", C], "depth": [1, 2], "width": 8, "size": [3, 4, 5], "kernel": [3, 5]}))


def test_values_that_only_one_of_the_blocks_knows_are_refused_not_fatal(plain_block):
    other = BlockType(letter="Q", kind="convolution", cls=plain_block.cls, options={"size": 3, "mode": "x"},
                      values={"mode": ("x", "a")})  # fmt: skip
    menu()["other"] = other
    try:
        check(space({"block": ["P", "Q"], "depth": 1, "width": 8, "mode": ["a", "b", "x"]}))
    finally:
        del menu()["other"]


def test_the_menu_is_as_it_was():
    assert set(menu()) == set(BLOCKS)


# --- files -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["digit", "no-such-space", "../x.yaml", "x" * 300, "folder/" + "x" * 300])
def test_a_space_that_is_not_there_is_named(name):
    with pytest.raises(InputError) as caught:
        load_space(name)

    assert "\n" not in str(caught.value)


def test_a_space_comes_from_a_path_too(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("image_size: 8\nstages: [{block: C, depth: [1, 2], width: 8}]\n")

    found = load_space(path)

    assert (found.name, found.size()) == ("mine", 2)


@pytest.mark.parametrize(
    "lines",
    [
        "image_size: 8\nstages: [{block: C, depth: [], width: 8}]\n",
        "image_size: []\nstages: [{block: C, depth: 1, width: 8}]\n",
        "image_size: 8\nstages: []\n",
    ],
)
def test_an_empty_list_is_an_error_of_the_file(tmp_path, lines):
    path = tmp_path / "mine.yaml"
    path.write_text(lines)

    with pytest.raises(InputError, match=r"mine\.yaml:\d: "):
        load_space(path)
