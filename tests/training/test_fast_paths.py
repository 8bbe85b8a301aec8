"""What is done for speed changes no answer: oneDNN's kernels, maps without copies, one compiled graph."""

import pytest
import torch
import torch._dynamo
import torch.nn.functional as F
from archs import C, T, small
from torch.utils._python_dispatch import TorchDispatchMode

from coatnet_search.architecture.arch import Stage, Stem
from coatnet_search.architecture.blocks import common
from coatnet_search.architecture.blocks.common import Dense, Pointwise, onednn_pays
from coatnet_search.architecture.build import build
from coatnet_search.architecture.fold_norms import fold_norms

LARGE = small(
    Stage(block=C, depth=2, width=32, stride=2), Stage(block="F", depth=1, width=32, stride=1),
    Stage(block=T, depth=2, width=64, stride=2), Stage(block=T, depth=1, width=64, stride=2),
    stem=Stem(depth=2, width=16, stride=2), image_size=64,
)  # fmt: skip
SMALL = small(
    Stage(block=C, depth=1, width=8, stride=2),
    Stage(block="F", depth=1, width=8),
    Stage(block=T, depth=1, width=16, head_size=8),
)


class Kernels(TorchDispatchMode):
    """The names of the operators that run, with the number of what each returns."""

    def __init__(self):
        super().__init__()
        self.ran = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.ran.append((str(func).split(".")[1], out.numel() if isinstance(out, torch.Tensor) else 0))
        return out


def kernels(call):
    with Kernels() as mode:
        call()
    return mode.ran


def with_gradients(layer, x):
    x = x.detach().requires_grad_()
    y = layer(x)
    y.square().sum().backward()
    found = [y.detach(), x.grad, *(p.grad.clone() for p in layer.parameters())]
    layer.zero_grad()
    return found


@pytest.mark.parametrize("bias", [True, False])
def test_a_large_1x1_convolution_equals_the_plain_one(bias):
    layer = Pointwise(64, 128, bias=bias)
    x = torch.randn(4, 64, 32, 32).to(memory_format=torch.channels_last)

    fast, plain = with_gradients(layer, x), with_gradients(layer, x.contiguous())

    assert onednn_pays(x, 128)
    assert fast[0].is_contiguous(memory_format=torch.channels_last)
    for a, b in zip(fast, plain, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_a_large_token_layer_equals_the_linear_layer():
    layer = Dense(64, 128)
    y = torch.randn(4, 32, 32, 64)

    fast = with_gradients(layer, y)
    plain = with_gradients(_Plain(layer), y)

    assert fast[0].is_contiguous()
    for a, b in zip(fast, plain, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


class _Plain(torch.nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, y):
        return F.linear(y, self.inner.weight, self.inner.bias)


@pytest.mark.parametrize(("x", "pays"), [
    (torch.empty(4, 64, 32, 32).to(memory_format=torch.channels_last), common._ONEDNN),
    (torch.empty(4, 64, 32, 32), False),  # its operands would be reordered
    (torch.empty(1, 64, 8, 8).to(memory_format=torch.channels_last), False),  # too small
    (torch.empty(4, 64, 32, 32, dtype=torch.double).to(memory_format=torch.channels_last), False),
    (torch.empty(4, 64, 32, 32, device="meta").to(memory_format=torch.channels_last), False),
])  # fmt: skip
def test_only_large_float_maps_on_a_cpu_take_that_way(x, pays):
    assert onednn_pays(x, 128) is pays


def test_layers_of_tokens_take_any_number_of_axes():
    layer = Dense(8, 4)

    assert [tuple(layer(torch.randn(*shape, 8)).shape) for shape in ((), (3,), (2, 3), (2, 3, 3))] == [
        (4,), (3, 4), (2, 3, 4), (2, 3, 3, 4)]  # fmt: skip


@torch.no_grad()
def test_a_traced_network_has_plain_parts():
    layer = Pointwise(64, 128)
    x = torch.randn(4, 64, 32, 32).to(memory_format=torch.channels_last)

    graph = torch.jit.trace(layer, x).graph

    convolution = graph.findNode("aten::_convolution")
    dilation = list(convolution.inputs())[5].node()  # a list of constants
    assert [value.toIValue() for value in dilation.inputs()] == [1, 1]


@pytest.mark.parametrize("folded", [False, True])
@torch.no_grad()
def test_a_channels_last_batch_is_never_copied(folded):
    model = build(LARGE).eval().to(memory_format=torch.channels_last)
    model = fold_norms(model) if folded else model
    x = torch.randn(2, 3, 64, 64).to(memory_format=torch.channels_last)
    model(x)  # looks up the bias

    copies = [(name, count) for name, count in kernels(lambda: model(x)) if name in {"clone", "copy_", "_to_copy"}]

    assert copies == []


@torch.no_grad()
def test_channels_first_batches_are_turned_once():
    model = build(LARGE).eval()
    x = torch.randn(2, 3, 64, 64)
    model(x)

    turned = [count for name, count in kernels(lambda: model(x)) if name in {"clone", "copy_"} and count > 2 * 64]

    assert len(turned) <= 3  # norm and shortcut of the first attention block, and its pool


@pytest.mark.parametrize(("training", "layout"), [(False, torch.contiguous_format), (True, torch.channels_last)])
def test_it_compiles_to_one_graph_once(training, layout):
    model = build(SMALL).train(training).to(memory_format=layout)
    model.set_grad_checkpointing()
    torch._dynamo.reset()
    compiles = []

    def backend(module, inputs):
        compiles.append(len(inputs))
        return module.forward

    compiled = torch.compile(model, backend=backend, fullgraph=True)
    with torch.set_grad_enabled(training):
        for _ in range(3):
            y = compiled(torch.randn(2, 3, 16, 16).to(memory_format=layout))

    assert y.requires_grad is training
    assert len(compiles) == 1
