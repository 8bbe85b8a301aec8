"""Folding norms changes the work, never the answer."""

import copy

import pytest
import torch
from archs import C, T, small
from torch import nn

from coatnet_search.architecture.arch import Stage, Stem
from coatnet_search.architecture.blocks import menu
from coatnet_search.architecture.build import build
from coatnet_search.architecture.fold_norms import fold_norms


def randomised(arch):
    torch.manual_seed(0)
    model = build(arch, init="fan_in")
    for name, value in [*model.named_parameters(), *model.named_buffers()]:
        if "running_var" in name:
            value.uniform_(0.3, 3)
        elif value.is_floating_point() and value.ndim == 1:
            nn.init.normal_(value, 1.0 if name.endswith("weight") else 0.0, 0.3)
    return model.double().eval()


def norms(model):
    return sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())


def network(block, **options):
    stages = (
        Stage(block=block, depth=2, width=8, stride=2, options=options),
        Stage(block=T, depth=1, width=16, head_size=8),
    )
    return small(*stages, image_size=32, stem=Stem(depth=3, width=8, stride=2))


CONVOLUTIONS = [name for name, block in menu().items() if block.kind == "convolution"]
OPEN = {"kernel": (1, 3, 5), "se_ratio": (0, 0.25)}
CASES = [(name, {key: value}) for name in CONVOLUTIONS for key, values in {**menu()[name].values, **OPEN}.items()
         for value in values]  # fmt: skip


@pytest.mark.parametrize(("block", "options"), CASES)
@torch.no_grad()
def test_outputs_are_the_same(block, options):
    model = randomised(network(block, **options))
    x = torch.randn(2, 3, 32, 32, dtype=torch.double)

    folded = fold_norms(model)

    torch.testing.assert_close(folded(x), model(x), rtol=1e-10, atol=1e-10)
    assert norms(folded) < norms(model)


@pytest.mark.parametrize(("block", "left"), [(C, 0), ("F", 2)])
def test_only_a_norm_before_a_convolution_that_pads_is_left(block, left):
    assert norms(fold_norms(randomised(network(block)))) == left


def test_a_layer_norm_is_not_folded():
    model = randomised(network(C, norm="layer"))

    folded = fold_norms(model)

    assert type(folded.stages[0][0].norm2) is type(model.stages[0][0].norm2)


@torch.no_grad()
def test_the_network_itself_is_left_as_it_was():
    model = randomised(network(C)).train()
    before = copy.deepcopy(model.state_dict())

    folded = fold_norms(model)

    assert model.training
    assert not folded.training
    assert not any(parameter.requires_grad for parameter in folded.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@torch.no_grad()
def test_folding_twice_is_folding_once():
    model = fold_norms(randomised(network(C)))
    x = torch.randn(1, 3, 32, 32, dtype=torch.double)

    assert torch.equal(fold_norms(model)(x), model(x))
