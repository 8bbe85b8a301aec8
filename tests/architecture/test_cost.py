"""Sums of counted blocks equal what counters say of whole networks; the file of counts costs time, never a result."""

import dataclasses
import json
import multiprocessing
import sys

import numpy as np
import pytest
import torch
from archs import C, T, small

from coatnet_search.architecture.arch import Arch, Head, Stage, Stem
from coatnet_search.architecture.build import build, num_parameters
from coatnet_search.architecture.cost import Cost, cost, macs_by_operator
from coatnet_search.architecture.family import named_arch
from coatnet_search.core import bundled
from coatnet_search.core.errors import InputError
from coatnet_search.space.space import load_space

costs = sys.modules["coatnet_search.architecture.cost"]  # the package's own name for the function is the same
SPACES = bundled.names("search_spaces")
VARIED = {
    "both blocks": small(),
    "patch stem": small(stem=Stem(kind="patch", width=8, stride=2), image_size=32),
    "deep stem": small(stem=Stem(depth=3, width=8, stride=2, bias=False), image_size=32),
    "no hidden layer": small(head=Head(hidden=False)),
    "no squeeze, wide kernel": small(Stage(block=C, depth=2, width=8, stride=2, kernel=7, se_ratio=0, expand=1)),
    "layer norm": small(Stage(block=C, depth=2, width=12, stride=2, norm="layer")),
    "strided depthwise": small(Stage(block=C, depth=2, width=12, stride=2, stride_at="depthwise")),
    "no bias": small(Stage(block=T, depth=2, width=24, stride=2, relative=False, head_size=12, expand=1.5)),
    "grey": small(in_channels=1),
    "no stages": Arch(image_size=8, num_classes=3, stem=Stem(width=8)),
}  # fmt: skip


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    """A cache folder of this test alone, and a process that has counted nothing."""
    monkeypatch.setenv("COATNET_SEARCH_CACHE", str(tmp_path))
    forget()
    yield tmp_path
    forget()


def forget():
    """As in a new process: what is counted is in the file alone."""
    for counted in (costs._file, costs.stage_count, costs.stem_count, costs.head_count):
        counted.cache_clear()


def counted_whole(arch):
    with torch.device("meta"):
        return num_parameters(build(arch)), sum(macs_by_operator(arch).values())


def check(name, number):
    space, rng = load_space(name), np.random.default_rng(7)
    for _ in range(number):
        arch = space.decode(space.sample(rng))
        found = cost(arch)
        assert (found.params, found.macs) == counted_whole(arch), arch


@pytest.mark.parametrize("name", SPACES)
def test_costs_equal_those_of_the_built_network_and_the_counter(name):
    check(name, 20)


@pytest.mark.full
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", SPACES)
def test_two_hundred_costs_equal_those_of_the_built_network_and_the_counter(name):
    check(name, 200)


@pytest.mark.full
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", SPACES)
def test_two_hundred_networks_cost_the_same_by_fvcore(name):
    space, rng = load_space(name), np.random.default_rng(8)

    for _ in range(200 if space.file.image_size <= 32 else 10):
        arch = space.decode(space.sample(rng))
        assert macs_by_operator(arch, "fvcore") == macs_by_operator(arch), arch


@pytest.mark.parametrize("arch", VARIED.values(), ids=VARIED)
def test_every_kind_of_network_costs_what_it_is(arch):
    found = cost(arch)

    assert (found.params, found.macs) == counted_whole(arch)
    assert found.params == sum(parameter.numel() for parameter in build(arch).parameters())


@pytest.mark.parametrize("arch", VARIED.values(), ids=VARIED)
def test_fvcore_agrees_operator_by_operator(arch):
    by_torch, by_fvcore = macs_by_operator(arch), macs_by_operator(arch, "fvcore")

    assert by_fvcore == by_torch


def test_attention_products_are_counted():
    arch = small(Stage(block=T, depth=3, width=16, stride=2, head_size=8))

    products = macs_by_operator(arch)["attention"]

    assert products == 3 * 2 * 64 * 64 * 16  # layers, q k^T and its product with v, 64 x 64 tokens, 16 channels


def test_activations_are_what_the_counted_operators_write():
    arch = Arch(image_size=8, num_classes=4, in_channels=1, stem=Stem(depth=1, width=8, stride=1),
                stages=(Stage(block=C, depth=1, width=8, se_ratio=0.25),))  # fmt: skip

    found = cost(arch).by_stage

    assert found["stem"].activations == 8 * 64
    assert found["s1"].activations == (32 + 32 + 8) * 64 + 2 + 32  # expand, depthwise, project; squeeze, excite
    assert found["head"].activations == 8 + 4


def test_the_parts_sum_to_the_whole():
    found = cost(named_arch("coatnet-6"))

    assert list(found.by_stage) == ["stem", "s1", "s2", "s3", "s4", "s5", "head"]
    for name, value in found.as_metrics().items():
        assert sum(getattr(part, name) for part in found.by_stage.values()) == value


def test_depth_adds_equal_blocks():
    one, two, five = (cost(small(Stage(block=T, depth=depth, width=16, stride=2, head_size=8))) for depth in (1, 2, 5))

    assert five.params - two.params == 3 * (two.params - one.params)
    assert five.macs - two.macs == 3 * (two.macs - one.macs)


@pytest.mark.parametrize("arch", [
    small(image_size=18), small(stem=Stem(depth=1, width=8, stride=2), image_size=33),
    small(stem=Stem(kind="patch", width=8, stride=4), image_size=30),
])  # fmt: skip
def test_a_size_that_a_stride_does_not_divide_has_no_cost(arch):
    assert arch.problems()

    with pytest.raises(InputError, match="is not a multiple of the strides"):
        cost(arch)


def test_counting_leaves_the_random_state_and_the_default_device_alone(own_cache):
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)

    cost(small())

    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.enable_grad, torch.no_grad])
def test_costs_are_the_same_in_any_mode(own_cache, mode):
    with mode():
        found = cost(small())

    assert (found.params, found.macs) == counted_whole(small())


# --- the file of counts ------------------------------------------------------------------------------------------


def lines(folder):
    return (folder / "costs.jsonl").read_text().splitlines()


def test_a_new_process_counts_nothing_again(own_cache, monkeypatch):
    before = cost(small())
    number = len(lines(own_cache))
    forget()

    monkeypatch.setattr(costs, "num_parameters", None)  # whoever counts fails

    assert cost(small()) == before
    assert len(lines(own_cache)) == number == 5  # stem, convolution, two kinds of attention block, head


@pytest.mark.parametrize("junk", [
    "", "{", "null", "3", '"abc"', "[]", '["k"]', '["k", 1, 2]', '["k", 1, 2, 3, 4]', '["k", "a", "b", "c"]',
    '[["k"], 1, 2, 3]', '["k", Infinity, 1, 2]', '["k", NaN, 1, 2]', '["k", 1.5, 2, 3]', '["k", -1, 2, 3]',
    '["k", true, 2, 3]', '{"k": 1, "l": 2, "m": 3, "n": 4}', '["k", null, 1, 2]', "\x00\x00\x00",
    '["abc", 12["def", 1, 2, 3]',
])  # fmt: skip
def test_a_corrupt_line_is_passed_over(own_cache, junk):
    before = cost(small())
    whole = (own_cache / "costs.jsonl").read_text()
    (own_cache / "costs.jsonl").write_text(junk + "\n" + whole + junk)
    forget()

    assert cost(small()) == before
    assert set(costs._file()) == {json.loads(line)[0] for line in whole.splitlines()}


def test_bytes_that_are_no_text_are_passed_over(own_cache):
    before = cost(small())
    whole = (own_cache / "costs.jsonl").read_bytes()
    (own_cache / "costs.jsonl").write_bytes(b"\xff\xfe\x80\n" + whole)
    forget()

    assert cost(small()) == before


@pytest.mark.parametrize("cut", [1, 5, 20])
def test_a_torn_last_line_is_counted_again(own_cache, cut):
    before = cost(small())
    whole = (own_cache / "costs.jsonl").read_text()
    (own_cache / "costs.jsonl").write_text(whole[:-cut])
    forget()

    assert cost(small()) == before
    forget()
    assert cost(small()) == before


def test_a_cache_folder_that_cannot_be_made_costs_time_only(own_cache, monkeypatch):
    (own_cache / "file").write_text("")
    monkeypatch.setenv("COATNET_SEARCH_CACHE", str(own_cache / "file" / "folder"))

    found = cost(small())

    assert (found.params, found.macs) == counted_whole(small())


def test_a_file_of_counts_that_cannot_be_read_or_written_costs_time_only(own_cache):
    (own_cache / "costs.jsonl").mkdir()

    found = cost(small())

    assert (found.params, found.macs) == counted_whole(small())


def test_changed_source_is_counted_afresh(own_cache, monkeypatch):
    cost(small())
    number = len(lines(own_cache))
    forget()
    source = costs._source.__wrapped__
    monkeypatch.setattr(
        costs, "_source", lambda module: source(module) + ("x" if "attention" in module.__name__ else "")
    )

    cost(small())

    assert len(lines(own_cache)) == number + 2  # the two kinds of attention block


def test_the_source_of_a_count_is_the_file_of_its_block():
    from coatnet_search.architecture.blocks import attention, mbconv

    assert costs._source(attention) != costs._source(mbconv)


def test_processes_that_count_at_once_leave_whole_lines(own_cache):
    cost(small())
    (own_cache / "costs.jsonl").unlink()
    forget()
    fork = multiprocessing.get_context("fork")

    running = [fork.Process(target=cost, args=(small(image_size=size),)) for size in (16, 16, 32, 32)]
    for process in running:
        process.start()
    for process in running:
        process.join(100)

    assert [process.exitcode for process in running] == [0] * 4
    assert all(len(json.loads(line)) == 4 for line in lines(own_cache))
    assert len(set(lines(own_cache))) == 10


def test_a_cost_without_parts_is_still_a_cost():
    assert Cost(1, 2, 3).as_metrics() == {"params": 1, "macs": 2, "activations": 3}
    assert dataclasses.replace(cost(small()), parts=()) == Cost(*list(cost(small()).as_metrics().values()))


ILLEGAL = {
    "heads that do not divide": (Stage(block="T", depth=1, width=30, stride=2, head_size=8), "divides width 30, got 8"),
    "no head": (Stage(block="T", depth=1, width=32, stride=2, head_size=0), "divides width 32, got 0"),
    "half a head": (Stage(block="T", depth=1, width=32, stride=2, head_size=8.5), "divides width 32, got 8.5"),
    "an even kernel": (Stage(block="C", depth=1, width=32, stride=2, kernel=4), "kernel must be an odd whole number"),
    "nothing inside": (Stage(block="F", depth=1, width=32, stride=2, expand=0), "expand must be at least 1"),
    "more squeezed than there is": (Stage(block="C", depth=1, width=32, stride=2, se_ratio=5), "between 0 and 1"),
}  # fmt: skip


@pytest.mark.parametrize("ask", [cost, build])
@pytest.mark.parametrize("name", ILLEGAL)
def test_what_cannot_be_built_has_no_cost_either_and_both_say_why(name, ask):
    stage, reason = ILLEGAL[name]
    arch = Arch(image_size=32, stem=Stem(depth=1, width=8, stride=1), stages=(stage, stage))

    with pytest.raises(InputError) as caught:
        ask(arch)

    assert str(caught.value).startswith(f"architecture {arch.id}: stage 1 (")
    assert str(caught.value).count(reason) == 2, "each stage has its own reason"


@pytest.mark.parametrize("what", [None, "C-C-T-T", {"image_size": 32}])
@pytest.mark.parametrize("ask", [cost, build])
def test_what_is_no_architecture_is_told_what_was_expected(what, ask):
    with pytest.raises(InputError, match="expected an Arch, such as load_arch gives; got"):
        ask(what)


def test_sizes_that_no_machine_holds_and_norms_that_divide_by_nothing_are_refused_where_they_are_written():
    with pytest.raises(InputError, match=r"width: expected at most 1,048,576, got 1e\+09"):
        Stage(block="C", depth=1, width=10**9)
    with pytest.raises(InputError, match="norm_eps: expected a number above 0, got -1"):
        Stage(block="C", depth=1, width=8, norm_eps=-1)
