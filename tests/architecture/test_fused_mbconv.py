"""A block type is a file and a line: fused MBConv in spaces, costs, layouts and tables, and what it computes."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from archs import C, T, small, space
from torch import nn

from coatnet_search.architecture.arch import Arch, Stage
from coatnet_search.architecture.blocks import menu
from coatnet_search.architecture.blocks.fused_mbconv import FusedMBConv
from coatnet_search.architecture.build import num_parameters, seeded_build
from coatnet_search.architecture.cost import cost, macs_by_operator
from coatnet_search.architecture.family import named_arch
from coatnet_search.core.errors import InputError

OPTIONS = menu()["fused_mbconv"].options


def block_of(in_width=8, width=16, stride=2, grid=8, **changes):
    torch.manual_seed(0)
    block = FusedMBConv(in_width, width, stride, grid, **{**OPTIONS, **changes})
    for name, value in [*block.named_parameters(), *block.named_buffers()]:
        if value.is_floating_point():
            nn.init.uniform_(value, 0.5, 2) if "var" in name else nn.init.normal_(value, std=0.3)
    return block.eval()


@torch.no_grad()
def test_it_equals_the_explicit_formula():
    block = block_of(se_ratio=0.25)
    x = torch.randn(2, 8, 8, 8)

    y = block(x)

    z = F.conv2d(block.norm1(x), block.expand.weight, stride=2, padding=1)  # the full convolution has the stride
    z = F.gelu(block.norm2(z))
    z = z * torch.sigmoid(block.se.fc2(F.silu(block.se.fc1(z.mean((2, 3), keepdim=True)))))
    torch.testing.assert_close(y, block.shortcut.proj(F.max_pool2d(x, 2)) + block.project(z))


def test_it_has_a_full_convolution_no_depthwise_one_and_by_default_no_squeeze():
    block = block_of(kernel=5)
    convolutions = [module for module in block.modules() if isinstance(module, nn.Conv2d)]

    assert isinstance(block.se, nn.Identity)
    assert {convolution.groups for convolution in convolutions} == {1}
    assert (block.expand.kernel_size, block.expand.stride, block.expand.out_channels) == ((5, 5), (2, 2), 64)
    assert block.expand.bias is None
    assert block.project.bias is not None


@pytest.mark.parametrize("layout", ["F-F-T-T", "F-C-T-T", "C-F-F-T"])
def test_layout_strings_build_and_count_it(layout):
    arch = named_arch(layout, image_size=64, num_classes=4)
    small_arch = named_arch(layout, image_size=128)

    with torch.device("meta"):
        model = seeded_build(small_arch, 0)

    assert arch.layout == layout
    assert num_parameters(model) == cost(small_arch).params
    assert sum(macs_by_operator(small_arch).values()) == cost(small_arch).macs


def test_an_architecture_with_it_goes_through_a_file_and_keeps_its_id():
    arch = small(
        Stage(block="F", depth=1, width=8, stride=2, kernel=5, se_ratio=0.25),
        Stage(block=T, depth=1, width=16, head_size=8),
    )

    again = Arch.from_dict(arch.to_dict())

    assert again == arch
    assert again.id == arch.id
    assert again.layout == "F-T"
    assert again.to_dict()["stages"][0] == {
        "block": "fused_mbconv", "depth": 1, "width": 8, "stride": 2, "kernel": 5, "se_ratio": 0.25}  # fmt: skip


def test_a_space_offers_it_beside_the_others():
    choices = space({"block": [C, "F", T], "depth": 1, "width": [8, 16], "stride": 1, "kernel": [3, 5]},
                    {"block": [C, "F", T], "depth": 1, "width": 16, "stride": 2}, convolution_first=True)  # fmt: skip
    rng = np.random.default_rng(0)

    candidates = [choices.sample(rng) for _ in range(200)]
    archs = [choices.decode(candidate) for candidate in candidates]

    assert {arch.layout for arch in archs} == {"C-C", "C-F", "C-T", "F-C", "F-F", "F-T", "T-T"}
    assert all(choices.problems(candidate) == [] for candidate in candidates)
    assert {arch.stages[0].options["kernel"] for arch in archs if arch.layout == "F-T"} == {3, 5}
    assert all(cost(arch).params > 0 for arch in archs)


def test_what_it_does_not_know_is_refused():
    with pytest.raises(InputError, match="stride_at"):
        Stage(block="F", depth=1, width=8, stride=2, stride_at="depthwise")
    assert "kernel" in small(Stage(block="F", depth=1, width=8, stride=2, kernel=4)).problems()[0]


def test_a_network_with_it_learns():
    arch = small(Stage(block="F", depth=1, width=8, stride=2), Stage(block=T, depth=1, width=16, head_size=8))
    model = seeded_build(arch, 0, init="fan_in")
    torch.manual_seed(0)
    x, labels = torch.randn(16, 3, 16, 16), torch.arange(16) % 5
    optimiser = torch.optim.Adam(model.parameters(), 3e-3)

    losses = []
    for _ in range(30):
        optimiser.zero_grad()
        loss = F.cross_entropy(model(x), labels)
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))

    assert losses[-1] < losses[0] / 4
