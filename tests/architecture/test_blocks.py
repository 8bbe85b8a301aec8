"""The contract that every block of the menu keeps, and known answers for the two that CoAtNet is made of."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from timm.layers import DropPath
from torch import nn

from coatnet_search.architecture.blocks import BLOCKS, menu
from coatnet_search.architecture.blocks.attention import Attention, RelativeBias
from coatnet_search.architecture.blocks.common import Shortcut
from coatnet_search.architecture.blocks.ends import Classifier, ConvStem, PatchStem
from coatnet_search.architecture.blocks.mbconv import MBConv

NAMES = sorted(menu())
SHAPES = [(8, 8, 1, 4), (8, 16, 1, 8), (16, 8, 2, 8), (16, 16, 2, 16), (24, 48, 2, 10)]  # in_width, width, stride, grid


def options_of(name, **changes):
    small = {"head_size": 8} if "head_size" in BLOCKS[name].options else {}
    return {**BLOCKS[name].options, **small, **changes}


def block_of(name, in_width=8, width=16, stride=2, grid=8, drop_path=0.0, **changes):
    """A block whose parameters all matter: no zeros, no ones."""
    torch.manual_seed(0)
    block = BLOCKS[name].load()(in_width, width, stride, grid, drop_path=drop_path, **options_of(name, **changes))
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.3)
    return block


def variations(name):
    """Every value of every closed set of a block, and a few of the open ones."""
    found = [{}, *({key: value} for key, values in BLOCKS[name].values.items() for value in values)]
    open_ones = {"kernel": (1, 5, 7), "expand": (1, 1.5, 6), "se_ratio": (0, 0.05, 1), "relative": (False,)}
    return found + [{k: v} for k, values in open_ones.items() if k in BLOCKS[name].options for v in values]


EACH = [(name, change) for name in NAMES for change in variations(name)]


# --- the contract ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("in_width", "width", "stride", "grid"), SHAPES)
def test_a_block_gives_the_promised_shape(name, in_width, width, stride, grid):
    block = block_of(name, in_width, width, stride, grid)

    y = block(torch.randn(2, in_width, grid, grid))

    assert y.shape == (2, width, grid // stride, grid // stride)


@pytest.mark.parametrize(("name", "change"), EACH)
@pytest.mark.parametrize("stride", [1, 2])
def test_every_option_builds_runs_and_trains(name, change, stride):
    block = block_of(name, 8, 16, stride, 8, **change)

    block(torch.randn(4, 8, 8, 8)).square().sum().backward()

    without = [n for n, p in block.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert without == []


@pytest.mark.parametrize(
    ("name", "change"), [(n, change) for n, change in EACH if not change.items() <= options_of(n).items()]
)
def test_every_option_changes_the_block(name, change):
    plain, other = block_of(name).eval(), block_of(name, **change).eval()
    x = torch.randn(2, 8, 8, 8, generator=torch.Generator().manual_seed(1))

    same_shapes = [p.shape for p in plain.parameters()] == [p.shape for p in other.parameters()]

    assert not same_shapes or not torch.equal(plain(x), other(x))


@pytest.mark.parametrize("name", NAMES)
def test_options_of_the_stride_have_no_effect_without_one(name):
    x = torch.randn(2, 8, 8, 8)
    reference = block_of(name, stride=1).eval()(x)

    for key in BLOCKS[name].striding:
        for value in BLOCKS[name].values[key]:
            assert torch.equal(block_of(name, stride=1, **{key: value}).eval()(x), reference)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("in_width", [8, 16])
def test_channels_last_goes_in_and_out_and_changes_nothing(name, stride, in_width):
    block = block_of(name, in_width, 16, stride).eval()
    x = torch.randn(2, in_width, 8, 8)

    y = block(x.contiguous(memory_format=torch.channels_last))

    assert y.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(y, block(x))


@pytest.mark.parametrize("name", NAMES)
def test_an_image_does_not_depend_on_its_neighbours_in_eval(name):
    block = block_of(name).eval()
    x = torch.randn(3, 8, 8, 8)

    y = block(x)

    torch.testing.assert_close(y[1:2], block(x[1:2]))


@pytest.mark.parametrize("name", NAMES)
def test_a_block_runs_on_the_meta_device(name):
    with torch.device("meta"):
        y = BLOCKS[name].load()(8, 16, 2, 8, drop_path=0.1, **options_of(name))(torch.empty(1, 8, 8, 8))

    assert y.is_meta
    assert y.shape == (1, 16, 4, 4)


@pytest.mark.parametrize("name", NAMES)
def test_problems_is_empty_exactly_where_the_block_builds_and_runs(name):
    cls, wrong = BLOCKS[name].load(), []
    numbers = {"expand": (4, 1, 1.5, 1.3, 0.5, 0, -1), "kernel": (3, 4, 0, -3, 1.5, 2.5),
               "se_ratio": (0.25, 0, 1, -0.5, 2), "head_size": (8, 16, 3, 0, -8, 1.5, 0.5, 32)}  # fmt: skip
    known = {key: values for key, values in numbers.items() if key in BLOCKS[name].options}

    for values in itertools.product(*known.values()):
        options = options_of(name, **dict(zip(known, values, strict=True)))
        reasons = cls.problems(8, 16, 4, **options)
        assert all(isinstance(reason, str) and reason for reason in reasons)
        if not reasons:
            assert cls(8, 16, 2, 8, drop_path=0.0, **options).eval()(torch.randn(1, 8, 8, 8)).shape == (1, 16, 4, 4)
        wrong.append(bool(reasons))

    assert any(wrong)
    assert not all(wrong)


WRONG = [("kernel", 4), ("kernel", 2.5), ("expand", 0.5), ("expand", 0), ("expand", 1.3), ("se_ratio", 1.5),
         ("head_size", 3), ("head_size", 1.5), ("head_size", 0)]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "key", "value"), [(name, *wrong) for name in NAMES for wrong in WRONG if wrong[0] in BLOCKS[name].options]
)
def test_problems_name_what_is_wrong(name, key, value):
    reasons = BLOCKS[name].load().problems(8, 16, 4, **options_of(name, **{key: value}))

    assert len(reasons) == 1
    assert key in reasons[0]
    assert str(value) in reasons[0]


@pytest.mark.parametrize("name", [name for name in NAMES if BLOCKS[name].kind == "attention"])
@pytest.mark.parametrize(("grid", "legal"), [(1, False), (2, False), (3, False), (4, True), (7, True)])
def test_attention_wants_sixteen_tokens(name, grid, legal):
    reasons = BLOCKS[name].load().problems(8, 16, grid, **options_of(name))

    assert (reasons == []) is legal
    assert legal or "16 tokens" in reasons[0]


@pytest.mark.parametrize("name", NAMES)
def test_stochastic_depth_drops_whole_images_in_training_only(name):
    block = block_of(name, stride=1, width=8, drop_path=0.99).eval()
    x = torch.randn(64, 8, 4, 4) if BLOCKS[name].kind == "convolution" else torch.randn(64, 8, 8, 8)

    kept = block(x)
    torch.manual_seed(0)
    dropped = block.train()(x)

    untouched = (dropped == x).flatten(1).all(1)
    assert not (kept == x).flatten(1).all(1).any()
    assert untouched.sum() > 50
    assert any(isinstance(module, DropPath) for module in block.modules())


# --- known answers -----------------------------------------------------------------------------------------------


def explicit_attention(block, x):
    """Self-attention as the formula says it, token by token: softmax(q k^T / sqrt(K) + bias[offset]) v."""
    side = x.shape[-1]
    tokens = x.flatten(2).transpose(1, 2)  # (B, N, W)
    y = F.layer_norm(tokens, (x.shape[1],), block.norm1.weight, block.norm1.bias, block.norm1.eps)
    rows = (
        block.qkv.weight.view(block.heads, 3, block.head_size, -1),
        block.qkv.bias.view(block.heads, 3, block.head_size),
    )
    out = torch.empty(*tokens.shape[:2], block.heads, block.head_size)
    for head in range(block.heads):
        q, k, v = (y @ rows[0][head, part].T + rows[1][head, part] for part in range(3))
        logits = q @ k.transpose(1, 2) * block.head_size**-0.5
        if block.relative_bias is not None:
            for i, j in itertools.product(range(side * side), repeat=2):
                down, right = i // side - j // side, i % side - j % side
                logits[:, i, j] += block.relative_bias.table[head, down + side - 1, right + side - 1]
        out[:, :, head] = logits.softmax(-1) @ v
    tokens = tokens + out.flatten(2) @ block.proj.weight.T + block.proj.bias
    z = F.layer_norm(tokens, (x.shape[1],), block.norm2.weight, block.norm2.bias, block.norm2.eps)
    tokens = tokens + block.fc2(F.gelu(block.fc1(z)))
    return tokens.transpose(1, 2).reshape(x.shape)


@pytest.mark.parametrize("relative", [True, False])
@pytest.mark.parametrize("head_size", [4, 8, 16])
@torch.no_grad()
def test_attention_equals_the_explicit_formula(relative, head_size):
    block = block_of("attention", 16, 16, 1, 4, relative=relative, head_size=head_size, expand=2).eval()
    x = torch.randn(2, 16, 4, 4)

    y = block(x)

    torch.testing.assert_close(y, explicit_attention(block, x))


@torch.no_grad()
def test_a_bias_of_one_offset_moves_attention_by_that_offset():
    bias = RelativeBias(heads=1, grid=4)
    bias.table[0, 3 - 1, 3 + 2] = 1.0  # query one row above its key and two columns to the right

    looked_up = bias()[0]  # (16, 16)

    pairs = {(int(query), int(key)) for query, key in looked_up.nonzero()}
    assert pairs == {(i * 4 + j, (i + 1) * 4 + j - 2) for i in range(3) for j in range(2, 4)}


@torch.no_grad()
def test_attention_pools_after_its_norm_and_its_shortcut_before_its_projection():
    block = block_of("attention", 8, 16, 2, 8).eval()
    x = torch.randn(2, 8, 8, 8)
    rest = block_of("attention", 8, 16, 1, 4).eval()
    rest.load_state_dict(block.state_dict())
    rest.norm1 = nn.Identity()

    y = block(x)

    normed = block.norm1(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    attended = rest.attend(F.max_pool2d(normed, 2).permute(0, 2, 3, 1))
    summed = block.shortcut.proj(F.max_pool2d(x, 2)).permute(0, 2, 3, 1) + attended
    expected = summed + block.fc2(F.gelu(block.fc1(block.norm2(summed))))
    torch.testing.assert_close(y, expected.permute(0, 3, 1, 2))


@torch.no_grad()
def test_mbconv_equals_the_explicit_formula():
    block = block_of("mbconv", 8, 16, 2, 8).eval()
    for norm in (block.norm1, block.norm2, block.norm3):
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
    x = torch.randn(2, 8, 8, 8)

    y = block(x)

    z = F.conv2d(block.norm1(x), block.expand.weight, stride=2)  # the stride is in the first 1x1
    z = F.gelu(block.norm2(z))
    z = F.gelu(block.norm3(F.conv2d(z, block.depthwise.weight, padding=1, groups=64)))
    squeezed = F.silu(block.se.fc1(z.mean((2, 3), keepdim=True)))
    z = z * torch.sigmoid(block.se.fc2(squeezed))
    expected = block.shortcut.proj(F.max_pool2d(x, 2)) + block.project(z)
    torch.testing.assert_close(y, expected)


def test_mbconv_strides_in_the_first_convolution_or_in_the_depthwise_one():
    default, ablation = block_of("mbconv"), block_of("mbconv", stride_at="depthwise")

    assert (default.expand.stride, default.depthwise.stride) == ((2, 2), (1, 1))
    assert (ablation.expand.stride, ablation.depthwise.stride) == ((1, 1), (2, 2))


def test_inner_widths_follow_from_the_outgoing_width():
    block = MBConv(8, 32, 2, 8, **options_of("mbconv"))
    attention = Attention(8, 32, 2, 8, **options_of("attention"))

    assert block.expand.out_channels == 128
    assert block.se.fc1.out_channels == 8  # a quarter of 32
    assert attention.fc1.out_features == 128


def test_biases_stand_where_the_architecture_has_them():
    block = block_of("mbconv")

    assert block.expand.bias is None
    assert block.depthwise.bias is None
    assert block.project.bias is not None
    assert block.se.fc1.bias is not None
    assert block.shortcut.proj.bias is not None
    assert (block.norm1.eps, block_of("attention").norm1.eps) == (1e-3, 1e-5)
    assert block_of("attention").qkv.bias is not None


def test_a_shortcut_of_equal_width_and_no_stride_is_the_identity():
    x = torch.randn(1, 8, 4, 4)

    assert torch.equal(Shortcut(8, 8, 1, "max")(x), x)
    assert list(Shortcut(8, 8, 2, "max").parameters()) == []
    torch.testing.assert_close(Shortcut(8, 8, 2, "avg")(x), F.avg_pool2d(x, 2))


@pytest.mark.parametrize(("depth", "stride"), [(1, 1), (2, 2), (3, 2)])
def test_a_conv_stem_ends_with_a_convolution(depth, stride):
    stem = ConvStem(3, 8, depth=depth, stride=stride, bias=True, norm_eps=1e-3, activation="gelu")

    assert stem(torch.randn(2, 3, 16, 16)).shape == (2, 8, 16 // stride, 16 // stride)
    assert isinstance(stem[-1], nn.Conv2d)
    assert len(stem) == 3 * depth - 2


def test_a_patch_stem_sees_each_patch_once():
    stem = PatchStem(3, 8, stride=4, bias=True)
    x = torch.zeros(1, 3, 16, 16)
    x[..., 4:8, 8:12] = 1

    y = stem(x) - stem(torch.zeros_like(x))

    assert y.shape == (1, 8, 4, 4)
    assert {tuple(place.tolist()) for place in y[0].abs().sum(0).nonzero()} == {(1, 2)}


def test_the_head_pools_norms_and_hides_with_tanh():
    head = Classifier(8, 5, hidden=True, norm_eps=1e-5)
    x = torch.randn(2, 8, 4, 4)

    features = torch.tanh(head.hidden(F.layer_norm(x.mean((2, 3)), (8,))))

    torch.testing.assert_close(head(x), head.fc(features))
    torch.testing.assert_close(head(x, pre_logits=True), features)
    assert Classifier(8, 5, hidden=False, norm_eps=1e-5).hidden is None
