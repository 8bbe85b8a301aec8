"""One set of weights, any network of the space: the same function in the supernet and taken out of it."""

import numpy as np
import pytest
import torch
from torch import nn

from coatnet_search.arch import Candidate
from coatnet_search.build import build
from coatnet_search.bundled import names
from coatnet_search.space import load_space
from coatnet_search.supernet import Supernet
from coatnet_search.supernet.slices import view

BUNDLED = names("search_spaces")


def shake(module: nn.Module, seed: int) -> None:
    """Random weights, and random statistics of norms: a fresh network is too much alike everywhere."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in [*module.named_parameters(), *module.named_buffers()]:
            if name.endswith("running_var"):
                value.uniform_(0.5, 2, generator=generator)
            elif value.is_floating_point():
                value.add_(torch.randn(value.shape, generator=generator), alpha=0.1)


def gradients(net: Supernet, candidate: Candidate) -> dict[str, torch.Tensor]:
    """The gradients of the slices that a candidate's network uses, by their names in the network alone."""
    return {f"{prefix}.{name}": view(tensor.grad, cut) for prefix, _, step in net.network(candidate).steps
            for name, tensor, cut in step.named_slices() if isinstance(tensor, nn.Parameter)}  # fmt: skip


@pytest.mark.parametrize("name", BUNDLED)
def test_the_extracted_network_is_the_same_function(name):
    space = load_space(name)
    net = Supernet(space, init="fan_in").eval()
    shake(net, 0)
    candidate = space.sample(np.random.default_rng(0))
    x = torch.randn(2, space.file.in_channels, space.file.image_size, space.file.image_size)

    arch, weights = net.extract(candidate)
    alone = build(arch, weights).eval()
    ours, theirs = net(x, candidate), alone(x)
    ours.square().mean().backward()
    theirs.square().mean().backward()

    assert arch == space.decode(candidate)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    found = gradients(net, candidate)
    for key, parameter in alone.named_parameters():
        torch.testing.assert_close(found[key], parameter.grad, rtol=1e-4, atol=1e-5)
