"""Steps of training at the sizes of photographs, each network in a process of its own: a crash ends only that."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from archs import small, space
from torch import Tensor, nn

from coatnet_search.architecture.arch import Stage, Stem
from coatnet_search.architecture.blocks import common, menu
from coatnet_search.architecture.blocks.common import Convolution, Pointwise, sampled_first
from coatnet_search.architecture.build import build
from coatnet_search.architecture.cost import count_module
from coatnet_search.architecture.peers import create
from coatnet_search.supernet.network import Supernet

STEPS = """
import sys
import torch
from test_training_steps import network
torch.set_num_threads(1)
for side, images in ((64, 32), (128, 8), (224, 2)):
    print(side, flush=True)
    model = network(sys.argv[1], side).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    x = torch.randn(images, 3, side, side).to(memory_format=torch.channels_last)
    torch.nn.functional.cross_entropy(model(x), torch.zeros(images, dtype=torch.long)).backward()
    optimizer.step()
    assert all(parameter.isfinite().all() for parameter in model.parameters())
"""
OPTIONS = {"mbconv": {"expand": 2}, "fused_mbconv": {"expand": 2, "kernel": 1}, "attention": {"head_size": 8}}
NAMES = [
    *sorted(OPTIONS),
    "supernet",
    "timm:resnet18",
    "timm:repvgg_a0",
]  # repvgg's first convolution strides over the colours


def network(name: str, side: int) -> nn.Module:
    """A peer, a supernet's narrowest, or a network whose first block strides over few channels of a large map."""
    if name == "supernet":
        return Narrowest(side)
    if name.startswith("timm:"):
        return create(name.removeprefix("timm:"), side, num_classes=3)
    patches = Stem(kind="patch", width=8, stride=side // 56)
    stages = [Stage(block=name, depth=1, width=8, stride=2, **OPTIONS[name])]
    stages += [Stage(block="mbconv", depth=1, width=8, stride=2, stride_at="depthwise")]
    return build(small(*stages, image_size=side, stem=patches))


class Narrowest(nn.Module):
    """A supernet that runs the slices of its narrowest candidate."""

    def __init__(self, side: int) -> None:
        super().__init__()
        row = {"block": ["C", "F"], "depth": 1, "width": [8, 16], "stride": 2, "expand": 2, "kernel": [1, 3]}
        stem = {"kind": "patch", "width": 8, "stride": side // 56}
        self.space = space(row, image_size=side, in_channels=3, stem=stem)
        self.net = Supernet(self.space)

    def forward(self, x: Tensor) -> Tensor:
        kinds = [{"s1_block": block, "s1_width": 8, "s1_kernel": 1} for block in ("C", "F")]
        return self.net(x, kinds[0]) + self.net(x, kinds[1])


def test_every_block_type_has_a_step_here() -> None:
    assert {*OPTIONS} == {*menu()}


@pytest.mark.parametrize("name", NAMES)
def test_a_step_of_training_ends_well_at_the_sizes_of_photographs(name: str) -> None:
    done = subprocess.run([sys.executable, "-c", STEPS, name], capture_output=True, text=True, check=False,
                          cwd=Path(__file__).parent,
                          env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})  # fmt: skip

    assert done.returncode == 0, f"at {done.stdout.split()[-1:]} pixels: {done.returncode} {done.stderr}"


@pytest.mark.parametrize("stride", [2, 3, (2, 1)])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_sampling_first_gives_the_answers_and_gradients_of_the_plain_convolution(
    stride: int | tuple[int, int], bias: bool, layout: torch.memory_format
) -> None:
    layer = Convolution(5, 7, 1, stride=stride, bias=bias).double()
    x = torch.randn(2, 5, 9, 8, dtype=torch.double).contiguous(memory_format=layout).requires_grad_()
    parts = [x, *layer.parameters()]

    found, plain = layer(x), F.conv2d(x, layer.weight, layer.bias, layer.stride)
    wanted = torch.autograd.grad(plain.square().sum(), parts)

    assert layer.samples_first(x) == common._ONEDNN
    torch.testing.assert_close(found, plain)
    for ours, theirs in zip(torch.autograd.grad(found.square().sum(), parts), wanted, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize(
    ("layer", "side", "channels", "samples"),
    [
        (Pointwise(8, 4, stride=2), 8, 8, common._ONEDNN),
        (Pointwise(8, 4), 8, 8, False),
        (Pointwise(16, 4, stride=2), 8, 16, False),  # as many channels as a register holds
        (Convolution(8, 4, 3, stride=2, padding=1), 8, 8, False),
        (Convolution(8, 8, 1, stride=2, groups=8), 8, 8, False),
        (Convolution(8, 8, 1, stride=2, padding=1), 8, 8, False),
    ],
)
def test_only_1x1_strides_over_few_channels_sample_first(
    layer: Convolution, side: int, channels: int, samples: bool
) -> None:
    x = torch.randn(1, channels, side, side)

    assert layer.samples_first(x) is samples
    assert not layer.samples_first(x.to("meta"))  # nor on a GPU
    with torch.no_grad():
        assert not layer.samples_first(x)


def test_other_peoples_convolutions_get_it_with_their_names_and_costs() -> None:
    model = create("repvgg_a0", 64, num_classes=3)
    own = nn.Sequential(nn.Conv2d(8, 16, 1, stride=2), nn.Conv2d(16, 16, 3, 2, 1))
    names, before = list(own.state_dict()), count_module(lambda: nn.Sequential(nn.Conv2d(8, 16, 1, stride=2)), 8, 64)

    changed = sampled_first(own)

    assert [type(layer) for layer in own] == [Convolution, nn.Conv2d]
    assert changed is own
    assert list(own.state_dict()) == names
    assert count_module(lambda: sampled_first(nn.Sequential(nn.Conv2d(8, 16, 1, stride=2))), 8, 64) == before
    assert any(isinstance(layer, Convolution) for layer in model.modules())


def test_an_exported_graph_has_the_plain_convolution() -> None:
    layer, x = Pointwise(8, 4, stride=2), torch.randn(2, 8, 8, 8)

    exported = torch.export.export(layer, (x,)).graph
    traced = torch.jit.trace(layer, x).graph  # type: ignore[no-untyped-call]

    assert "avg_pool2d" not in str(exported)
    assert "avg_pool2d" not in str(traced)
