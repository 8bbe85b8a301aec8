"""Networks are compiled by their blocks, equal ones once; what cannot be compiled is an error."""

from typing import Any

import pytest
import torch
from archs import C, T, small
from torch import nn

from coatnet_search.architecture.arch import Stage
from coatnet_search.architecture.build import seeded_build
from coatnet_search.core.errors import InputError, SetupError
from coatnet_search.study.load import load_study
from coatnet_search.training import compilation
from coatnet_search.training.compilation import GraphedSteps, check_compiler, compiled_by_block
from coatnet_search.training.recipe import make_recipe, recipe_values

CPU = torch.device("cpu")
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute")  # the compiler looks at it, within torch


def network(width: int = 16, depth: int = 3, stem: int = 8) -> nn.Module:
    stages = (Stage(block=C, depth=depth, width=width, stride=1),
              Stage(block=T, depth=depth, width=width, stride=2, head_size=8))  # fmt: skip
    return seeded_build(small(*stages, image_size=8), 0).train()


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one with each graph that is compiled, by a compiler that leaves it as it is."""
    found: list[int] = []
    real = torch.compile

    def backend(graph: Any, inputs: Any) -> Any:
        found.append(len(inputs))
        return graph.forward

    monkeypatch.setattr(torch, "compile", lambda model, **options: real(model, backend=backend, **options))
    return found


def test_equal_blocks_are_compiled_once_and_give_what_they_gave(graphs):
    images = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    expected = network(depth=5)(images)

    model = compiled_by_block(network(depth=5))
    found = model(images)
    found.sum().backward()

    assert len(graphs) == 6  # the stem, the first and the other four of each stage, the head
    torch.testing.assert_close(found, expected)


def test_a_search_of_many_networks_compiles_each_of_them(graphs, monkeypatch):
    monkeypatch.setattr(torch._dynamo.config, "recompile_limit", 2)  # what a process of many trials comes to

    counts = []
    for width in (8, 16, 24, 32, 40):
        compiled_by_block(network(width, depth=1))(torch.randn(2, 3, 8, 8))
        counts.append(len(graphs))

    assert counts == [4, 8, 12, 16, 20]


def test_a_network_that_is_compiled_too_often_is_an_error_and_never_runs_uncompiled_in_silence(graphs, monkeypatch):
    monkeypatch.setattr(compilation, "VARIANTS", 1)
    model = compiled_by_block(network(depth=1))

    with pytest.raises(torch._dynamo.exc.FailOnRecompileLimitHit):
        [model(torch.randn(batch, 3, 8, 8)) for batch in range(2, 9)]


def test_off_default_and_graphs_mean_what_true_and_false_meant_and_keep_their_keys():
    plain, true, false, off, default, graphs = (
        make_recipe({"name": "digits", **given})
        for given in ({}, *({"compile": value} for value in (True, False, "off", "default", "graphs")))
    )

    assert plain == false == off and recipe_values(off) == recipe_values(plain)
    assert true == default and recipe_values(default)["compile"] is True
    assert recipe_values(graphs)["compile"] == "graphs"
    with pytest.raises(InputError, match=r"recipe.compile: expected one of off, default, graphs, got 'on'"):
        make_recipe({"name": "digits", "compile": "on"})


@pytest.mark.parametrize(("written", "held"), [("off", False), ("false", False), ("default", True), ("true", True),
                                               ("graphs", "graphs")])  # fmt: skip
def test_conditions_take_the_words_and_the_old_values(written, held):
    assert load_study("quickstart", [f"conditions.compile={written}"]).file.conditions.compile is held


def test_graphs_of_a_cpu_are_refused_in_one_line():
    with pytest.raises(
        SetupError, match="compile: graphs asks for CUDA graphs, and cpu has none; write default or off"
    ):
        check_compiler(CPU, "graphs")


def test_graphs_that_would_recompute_blocks_are_refused():
    with pytest.raises(InputError, match=r"recipe.compile: graphs cannot be captured with recipe.grad_checkpointing"):
        make_recipe({"name": "digits", "compile": "graphs", "grad_checkpointing": True})


def test_capturing_a_step_leaves_the_statistics_alone_and_holds_for_one_shape(monkeypatch):
    def capture(module: nn.Module, given: tuple[torch.Tensor, ...]) -> Any:
        module(*given)  # the warm-up runs the network
        return lambda images: ("replayed", images.shape)

    monkeypatch.setattr(torch.cuda, "make_graphed_callables", capture)
    model = network(depth=1)
    before = {name: value.clone() for name, value in model.named_buffers()}
    steps = GraphedSteps(model).train()

    assert steps(torch.randn(4, 3, 8, 8)) == ("replayed", (4, 3, 8, 8))
    assert all(torch.equal(value, before[name]) for name, value in model.named_buffers())
    with pytest.raises(InputError, match=r"compile: graphs holds for one shape, \(4, 3, 8, 8\); got \(2, 3, 8, 8\)"):
        steps(torch.randn(2, 3, 8, 8))
    assert steps.eval()(torch.randn(2, 3, 8, 8)).shape == (2, 5)
