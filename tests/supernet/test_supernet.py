"""One set of weights, any network of the space: the same function in the supernet and taken out of it."""

import copy
import dataclasses
import pickle

import numpy as np
import pytest
import torch
from archs import C, T, space
from supernets import parameters_of, slices_of
from timm.layers import DropPath
from timm.utils import ModelEmaV3
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from coatnet_search.architecture.arch import Candidate
from coatnet_search.architecture.blocks import BlockType, block_name, menu
from coatnet_search.architecture.build import build, seeded_build
from coatnet_search.core.bundled import names
from coatnet_search.core.errors import InputError, SetupError
from coatnet_search.space.space import Space, load_space
from coatnet_search.supernet import memory
from coatnet_search.supernet.blueprint import memory_needed
from coatnet_search.supernet.network import Supernet
from coatnet_search.supernet.slices import view
from coatnet_search.supernet.tensor_files import load_supernet, save_supernet
from coatnet_search.training.prepare import prepared
from coatnet_search.training.recipe import make_recipe

BUNDLED = names("search_spaces")
FEW = {"imagenet-layouts": 1, "cifar-small": 3}


def shake(module: nn.Module, seed: int = 0) -> None:
    """Random weights, and random statistics of norms: a fresh network is too much alike everywhere."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in [*module.named_parameters(), *module.named_buffers()]:
            if name.endswith("running_var"):
                value.uniform_(0.5, 2, generator=generator)
            elif value.is_floating_point():
                value.add_(torch.randn(value.shape, generator=generator), alpha=0.1)


def shaken(space: Space) -> Supernet:
    net = Supernet(space, init="fan_in").eval()
    shake(net)
    return net


def images(space: Space, count: int = 2) -> torch.Tensor:
    side = space.file.image_size
    return torch.randn(count, space.file.in_channels, side, side, generator=torch.Generator().manual_seed(1))


def drawn(space: Space, count: int, seed: int = 0) -> list[Candidate]:
    rng = np.random.default_rng(seed)
    return [space.sample(rng) for _ in range(count)]


def gradients(net: Supernet, candidate: Candidate) -> dict[str, torch.Tensor]:
    """The gradients of the slices that a candidate's network uses, by their names in the network alone."""
    return {f"{prefix}.{name}": view(tensor.grad, cut) for prefix, _, step in net.network(candidate).steps
            for name, tensor, cut in step.named_slices() if isinstance(tensor, nn.Parameter)}  # fmt: skip


def check_same_function(net: Supernet, candidate: Candidate) -> None:
    """Logits to 1e-5 and gradients to 1e-4 of the network that comes out, in eval mode."""
    x = images(net.space)
    arch, weights = net.extract(candidate)
    alone = build(arch, weights).eval()
    net.zero_grad()

    ours, theirs = net(x, candidate), alone(x)
    ours.square().mean().backward()
    theirs.square().mean().backward()

    assert arch == net.space.decode(candidate)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
    found = gradients(net, candidate)
    for key, parameter in alone.named_parameters():
        torch.testing.assert_close(found[key], parameter.grad, rtol=1e-4, atol=1e-5, msg=key)


TINY = space(
    {"block": C, "depth": [1, 2], "width": [8, 12], "stride": 1, "kernel": [3, 5], "expand": [1, 2]},
    {"block": [C, T], "depth": [1, 2], "width": [8, 16], "stride": 2},
)
SMALLEST = {"s1_depth": 1, "s1_width": 8, "s1_kernel": 3, "s1_expand": 1, "s2_block": T, "s2_depth": 1, "s2_width": 8}
LARGEST = {"s1_depth": 2, "s1_width": 12, "s1_kernel": 5, "s1_expand": 2, "s2_block": T, "s2_depth": 2, "s2_width": 16}

SPACES = {
    "a stage left out": space({"block": C, "depth": [0, 1], "width": [8, 12], "stride": 2},
                              {"block": [C, T], "depth": [0, 2], "width": [8, 16], "stride": [1, 2]}, image_size=16),
    "strides": space({"block": C, "depth": 1, "width": [8, 16], "stride": [1, 2]},
                     {"block": T, "depth": [1, 2], "width": [8, 16], "stride": [1, 2]}, image_size=16),
    "ViT": space({"block": T, "depth": [1, 3], "width": [16, 24], "stride": 1, "expand": [2, 4]},
                 image_size=32, stem={"kind": "patch", "width": (8, 16), "stride": (4, 8)}),
    "stems": space({"block": C, "depth": 1, "width": 8, "stride": 2},
                   stem={"kind": ("conv", "patch"), "depth": (1, 2, 3), "width": (8, 12), "stride": 1,
                         "bias": (True, False), "activation": ("gelu", "gelu_tanh")}),
    "norms": space({"block": C, "depth": [1, 2], "width": [8, 12], "stride": 2, "norm": ["batch", "layer"],
                    "norm_eps": [1.0e-3, 1.0e-5]}),
    "a bias or none": space({"block": T, "depth": [1, 2], "width": [8, 16], "stride": 2, "relative": [True, False],
                             "activation": ["gelu", "gelu_tanh"]}),
    "where to stride": space({"block": C, "depth": [1, 2], "width": [8, 12], "stride": [1, 2], "pool": ["max", "avg"],
                              "stride_at": ["expand", "depthwise"], "se_ratio": [0, 0.25, 1]}),
    "fused": space({"block": [C, "F"], "depth": [1, 2], "width": [8, 12], "stride": 2, "kernel": [1, 3, 7],
                    "se_ratio": [0, 0.5]}),
    "no classes hidden": space({"block": C, "depth": 1, "width": [8, 12], "stride": 2}, head={"hidden": False}),
    "only": space({"block": C, "depth": 1, "width": [8, 12], "stride": 1, "kernel": [3, 5]},
                  {"block": [C, T], "depth": [1, 2], "width": [8, 16], "stride": 2},
                  only=({"s1_width": 8, "s1_kernel": 5}, {"s1_width": 12, "s1_kernel": 3, "s2_block": C})),
}  # fmt: skip


# --- the same function -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BUNDLED)
def test_an_extracted_network_is_the_same_function(name):
    net = shaken(load_space(name))

    for candidate in drawn(net.space, FEW.get(name, 6)):
        check_same_function(net, candidate)


@pytest.mark.full
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("name", BUNDLED)
def test_a_hundred_extracted_networks_are_the_same_function(name):
    net = shaken(load_space(name))

    for candidate in drawn(net.space, 100, seed=1):
        check_same_function(net, candidate)


@pytest.mark.parametrize("name", SPACES)
def test_whatever_a_space_leaves_open_is_the_same_function(name):
    net = shaken(SPACES[name])

    for candidate in drawn(net.space, 8):
        check_same_function(net, candidate)


@pytest.mark.parametrize("name", BUNDLED)
def test_what_runs_has_the_cost_that_is_counted(name):
    space = load_space(name)
    with torch.device("meta"):
        net, x = Supernet(space).eval(), images(space, 1).to("meta")

    for candidate in drawn(space, 5, seed=2):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            net(x, candidate)
        cuts, parameters = slices_of(net, candidate), dict(net.named_parameters())
        used = sum(view(parameters[name], cut).numel() for name, cut in cuts.items() if name in parameters)

        assert counter.get_total_flops() // 2 == space.cost(candidate).macs
        assert used == space.cost(candidate).params


ONE = space({"block": C, "depth": 2, "width": 12, "stride": 1, "kernel": 5},
            {"block": T, "depth": 2, "width": 16, "stride": 2})  # fmt: skip


def test_a_space_of_one_network_is_that_network_bit_for_bit():
    torch.manual_seed(3)
    net = Supernet(ONE, init="fan_in")
    alone = seeded_build(ONE.decode({}), 3, init="fan_in")
    x = images(ONE, 4)
    optimisers = [torch.optim.AdamW(model.parameters(), lr=1e-2) for model in (net, alone)]

    for _ in range(3):
        losses = net(x, {}).square().mean(), alone(x).square().mean()
        for loss, optimiser in zip(losses, optimisers, strict=True):
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        assert torch.equal(*losses)

    _, weights = net.extract({})
    own = alone.state_dict()
    assert list(weights) == list(own)
    assert all(torch.equal(weights[name], own[name]) for name in own)
    assert all(torch.equal(found, dict(alone.named_parameters())[name].grad)
               for name, found in gradients(net, {}).items())  # fmt: skip


def test_a_call_creates_no_modules_and_copies_no_weights(monkeypatch):
    net = shaken(TINY)

    def refuse(*args, **kwargs):
        raise AssertionError("a module was created")

    monkeypatch.setattr(nn.Module, "__init__", refuse)
    net(images(TINY), SMALLEST)

    for _, _, step in net.network(SMALLEST).steps:
        with_tensors = step.tensors()
        shared = [tensor for _, tensor, _ in step.named_slices()]
        assert [w.untyped_storage().data_ptr() for w in with_tensors] == [
            s.untyped_storage().data_ptr() for s in shared
        ]


def test_extracted_weights_are_copies():
    net = shaken(TINY)
    before = copy.deepcopy(net.state_dict())

    _, weights = net.extract(LARGEST)
    for value in weights.values():
        value.zero_()

    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_smaller_networks_use_leading_channels_and_the_centre_of_kernels():
    net = Supernet(TINY)

    cuts = slices_of(net, {**SMALLEST, "s1_expand": 2})

    assert cuts["stages.s1.mbconv.0.depthwise.weight"].parts == ((0, 0, 16), (2, 1, 3), (3, 1, 3))
    assert cuts["stages.s1.mbconv.0.expand.weight"].parts == ((0, 0, 16),)
    assert cuts["stages.s2.attention.0.qkv.weight"].parts == ((0, 0, 24), (1, 0, 8))
    assert cuts["stages.s2.attention.0.relative_bias.table"].parts == ((0, 0, 1),)


def test_a_smaller_map_sees_the_centre_of_the_bias_table():
    net = Supernet(SPACES["strides"])

    cuts = slices_of(net, {"s1_width": 8, "s1_stride": 2, "s2_depth": 1, "s2_width": 16, "s2_stride": 2})

    assert cuts["stages.s2.attention.0.relative_bias.table"].parts == ((1, 12, 7), (2, 12, 7))


# --- branches ----------------------------------------------------------------------------------------------------


def test_each_stage_has_a_branch_for_each_block_type():
    net = Supernet(TINY)

    assert [branch.path for branch in net.branches] == [
        ("stages", "s1", "mbconv"), ("stages", "s2", "mbconv"), ("stages", "s2", "attention")]  # fmt: skip
    assert net.branches_of(SMALLEST) == (net.branches[0], net.branches[2])


def test_the_branches_of_a_candidate_hold_the_parameters_that_it_uses():
    net = Supernet(TINY)
    net(images(TINY), LARGEST).sum().backward()

    used = {name for branch in net.branches_of(LARGEST) for name in parameters_of(net, branch)}

    touched = {name for name, parameter in net.named_parameters() if parameter.grad is not None}
    assert touched == used | {name for name in touched if name.startswith(("stem.", "head."))}
    assert not {name for name in touched if name.startswith("stages.s2.mbconv")}


def test_another_function_of_the_same_numbers_has_weights_of_its_own():
    paths = [".".join(branch.path) for branch in Supernet(SPACES["norms"]).branches]

    assert paths == ["stages.s1.mbconv norm=batch", "stages.s1.mbconv norm=layer"]


def test_a_branch_from_which_no_network_goes_on_is_left_out():
    dead_end = space({"block": [C, T], "depth": 1, "width": 8, "stride": 1},
                     {"block": C, "depth": 1, "width": 8, "stride": 2}, convolution_first=True)  # fmt: skip

    assert [branch.block for branch in Supernet(dead_end).branches] == ["mbconv", "mbconv"]


def test_weights_that_no_allowed_combination_uses_are_not_made():
    net = Supernet(SPACES["only"])

    assert net.get_parameter("stages.s1.mbconv.0.depthwise.weight").shape == (48, 1, 5, 5)
    assert net.get_parameter("stages.s2.attention.0.qkv.weight").shape == (48, 8)


# --- gradients ---------------------------------------------------------------------------------------------------


def test_gradients_of_several_networks_add_up_whether_in_one_backward_or_in_several():
    net = shaken(TINY).train()
    x = images(TINY)

    sum(net(x, candidate).square().mean() for candidate in (LARGEST, SMALLEST)).backward()
    together = {name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None}
    net.zero_grad()
    for candidate in (SMALLEST, LARGEST):
        net(x, candidate).square().mean().backward()

    assert {name for name, p in net.named_parameters() if p.grad is not None} == set(together)
    for name, grad in together.items():
        torch.testing.assert_close(net.get_parameter(name).grad, grad, rtol=1e-4, atol=1e-6)


def test_what_a_smaller_network_does_not_use_gets_no_gradient():
    net = shaken(TINY)

    net(images(TINY), SMALLEST).square().mean().backward()

    grad = net.get_parameter("stages.s2.attention.0.qkv.weight").grad
    assert grad[:24, :8].all() and not grad[24:].any() and not grad[:, 8:].any()
    assert net.get_parameter("stages.s1.mbconv.1.expand.weight").grad is None


def test_gradients_as_values_are_those_of_backward_and_leave_grad_alone():
    net = shaken(TINY)
    x = images(TINY)
    parameters = [net.get_parameter(f"stages.s2.attention.0.{name}") for name in ("qkv.weight", "norm2.weight")]

    values = torch.autograd.grad(net(x, SMALLEST).square().mean(), parameters)

    assert all(parameter.grad is None for parameter in net.parameters())
    net(x, SMALLEST).square().mean().backward()
    for value, parameter in zip(values, parameters, strict=True):
        assert torch.equal(value, parameter.grad)


def test_backward_to_some_inputs_reaches_those_alone():
    net = shaken(TINY)
    one = net.get_parameter("head.fc.weight")

    net(images(TINY), SMALLEST).sum().backward(inputs=[one])

    assert [name for name, p in net.named_parameters() if p.grad is not None] == ["head.fc.weight"]


def test_gradients_of_gradients_are_those_of_the_network_alone():
    net = shaken(TINY)
    x = images(TINY)
    alone = build(*net.extract(SMALLEST)).eval()
    norms = []

    for run, weight in ((lambda: net(x, SMALLEST), net.get_parameter("head.fc.weight")),
                        (lambda: alone(x), alone.head.fc.weight)):  # fmt: skip
        (first,) = torch.autograd.grad(run().square().mean(), [weight], create_graph=True)
        (second,) = torch.autograd.grad(first.square().sum(), [weight])
        norms.append(second[:, :8])

    assert norms[0].abs().sum() > 0
    torch.testing.assert_close(norms[0], norms[1])


def test_the_gradient_of_an_image_needs_none_of_the_weights():
    net = shaken(TINY)
    x = images(TINY).requires_grad_()

    (grad,) = torch.autograd.grad(net(x, SMALLEST).sum(), [x])

    assert grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in net.parameters())


def test_frozen_weights_get_no_gradient():
    net = shaken(TINY)
    for parameter in parameters_of(net, net.branches[0]).values():
        parameter.requires_grad_(False)

    net(images(TINY), SMALLEST).sum().backward()

    assert all(parameter.grad is None for parameter in parameters_of(net, net.branches[0]).values())
    assert net.get_parameter("head.fc.weight").grad is not None


def test_recomputed_blocks_give_the_same_gradients_and_count_a_step_once():
    plain = shaken(TINY).train()
    checkpointed = copy.deepcopy(plain)
    checkpointed.set_grad_checkpointing()
    x = images(TINY, 4)

    for net in (plain, checkpointed):
        sum(net(x, candidate).square().mean() for candidate in (LARGEST, SMALLEST)).backward()

    for (name, one), (_, other) in zip(plain.named_parameters(), checkpointed.named_parameters(), strict=True):
        assert (one.grad is None) == (other.grad is None), name
        assert one.grad is None or torch.equal(one.grad, other.grad), name
    other = checkpointed.state_dict()
    assert all(torch.equal(value, other[name]) for name, value in plain.state_dict().items())
    assert plain.get_buffer("stages.s1.mbconv.0.norm1.num_batches_tracked") == 2


def test_weights_that_a_functional_call_puts_in_get_their_gradients():
    net = shaken(TINY)
    x = images(TINY)
    weights = {name: value.detach().clone().requires_grad_() for name, value in net.named_parameters()}

    loss = torch.func.functional_call(net, {k: v * 1 for k, v in weights.items()}, (x, SMALLEST)).square().mean()
    loss.backward()

    net(x, SMALLEST).square().mean().backward()
    torch.testing.assert_close(weights["head.fc.weight"].grad, net.get_parameter("head.fc.weight").grad)


# --- modes, devices, copies --------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_changed_weights_are_seen_at_once(mode):
    net = shaken(TINY)
    x = images(TINY)

    for seed in range(3):
        shake(net, seed)
        for candidate in (LARGEST, SMALLEST):
            with mode():
                assert torch.equal(net(x, candidate), build(*net.extract(candidate)).eval()(x))


def test_autocast_is_that_of_the_network_alone():
    net = shaken(TINY)
    x = images(TINY)
    alone = build(*net.extract(SMALLEST)).eval()

    with torch.autocast("cpu", torch.bfloat16):
        ours, theirs = net(x, SMALLEST), alone(x)
    for found in (ours, theirs):
        found.float().square().mean().backward()

    assert torch.equal(ours, theirs)
    for name, grad in gradients(net, SMALLEST).items():
        assert torch.equal(grad, alone.get_parameter(name).grad), name


def test_a_training_step_updates_statistics_as_the_network_alone_does():
    net = shaken(TINY).train()
    x = images(TINY, 4)
    alone = build(*net.extract(SMALLEST)).train()

    assert torch.equal(net(x, SMALLEST), alone(x))

    _, after = net.extract(SMALLEST)
    assert all(torch.equal(value, after[name]) for name, value in alone.state_dict().items())


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))])  # noqa: S301
def test_a_copy_has_weights_of_its_own(duplicate):
    net = shaken(TINY)
    x = images(TINY)
    before = net(x, SMALLEST)

    other = duplicate(net)
    same = other(x, SMALLEST)
    shake(other, 1)
    other(x, LARGEST).sum().backward()

    assert torch.equal(same, before)
    assert torch.equal(net(x, SMALLEST), before)
    assert not torch.equal(other(x, SMALLEST), before)
    assert all(parameter.grad is None for parameter in net.parameters())


def test_an_average_of_the_weights_is_a_supernet_too():
    net = shaken(TINY)
    average = ModelEmaV3(net, decay=0.5)
    x = images(TINY)
    with torch.no_grad():
        net.get_parameter("head.fc.bias").add_(2)

    average.update(net)

    torch.testing.assert_close(average.module(x, SMALLEST), net(x, SMALLEST) - 1)


def test_another_precision_or_memory_format_is_taken_on():
    net = shaken(TINY).double()
    x = images(TINY).double()
    before = net(x, SMALLEST)

    net.to(memory_format=torch.channels_last)
    found = net(x.contiguous(memory_format=torch.channels_last), SMALLEST)
    found.sum().backward()

    assert found.dtype == torch.float64
    torch.testing.assert_close(found, before)
    assert all(parameter.grad.dtype == torch.float64 for parameter in net.parameters() if parameter.grad is not None)


def test_a_supernet_of_the_meta_device_comes_to_life():
    net = shaken(TINY)
    x = images(TINY)
    with torch.device("meta"):
        empty = Supernet(TINY).eval()

    alive = empty.to_empty(device="cpu")
    alive.load_weights(net.state_dict())

    assert torch.equal(alive(x, LARGEST), net(x, LARGEST))


def test_stochastic_depth_is_that_of_the_network_alone():
    net = shaken(TINY).train()
    alone = build(*net.extract(LARGEST), drop_path=0.3).train()
    x = images(TINY, 8)

    torch.manual_seed(0)
    ours = net(x, LARGEST, drop_path=0.3)
    torch.manual_seed(0)
    theirs = alone(x)

    assert torch.equal(ours, theirs)
    assert any(module.drop_prob for module in net.running_modules() if isinstance(module, DropPath))
    net(x, LARGEST)
    assert not any(module.drop_prob for module in net.running_modules() if isinstance(module, DropPath))


def test_a_recipes_momentum_reaches_the_norms_that_run():
    net = prepared(
        Supernet(TINY), make_recipe({"name": "small-images", "epochs": 1, "bn_momentum": 0.25}), torch.device("cpu")
    )

    momenta = {module.momentum for module in net.running_modules() if isinstance(module, nn.BatchNorm2d)}

    assert momenta == {0.25}


# --- a block of a third party ------------------------------------------------------------------------------------


class Scaled(nn.Module):
    """A linear map of channels with a learned scale, and a constant that no state dict holds."""

    def __init__(self, in_width, width, stride, grid, *, drop_path, rate):
        super().__init__()
        self.linear = nn.Conv2d(in_width, width, stride, stride)
        self.scale = nn.Parameter(torch.full((width, 1, 1), float(rate)))
        self.register_buffer("ramp", torch.linspace(0, 1, grid // stride), persistent=False)

    def forward(self, x):
        return self.linear(x) * self.scale + self.ramp

    @staticmethod
    def problems(in_width, width, grid, **options):
        return []


@pytest.fixture
def scaled(monkeypatch):
    class Point:
        name, value = "scaled", "package:BLOCK"

        @staticmethod
        def load():
            return BlockType(letter="Z", kind="convolution", cls=f"{__name__}:Scaled", options={"rate": 0.5})

    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: [Point])
    menu.cache_clear()
    block_name.cache_clear()
    yield "Z"
    menu.cache_clear()
    block_name.cache_clear()


def test_a_block_of_a_third_party_is_sliced_too(scaled):
    net = shaken(space({"block": [C, scaled], "depth": [1, 2], "width": [8, 12], "stride": [1, 2]}))

    for candidate in drawn(net.space, 8):
        check_same_function(net, candidate)


def test_a_block_of_a_third_party_keeps_its_own_initial_values(scaled):
    net = Supernet(space({"block": scaled, "depth": 1, "width": [8, 12], "stride": 1}))

    assert (net.get_parameter("stages.s1.scaled.0.scale") == 0.5).all()


# --- memory and files --------------------------------------------------------------------------------------------


def test_the_memory_that_is_needed_is_known_before_it_is_taken():
    net = Supernet(TINY)

    known = memory_needed(TINY)

    assert known.parameters == sum(parameter.nbytes for parameter in net.parameters())
    assert known.buffers == sum(buffer.nbytes for buffer in net.buffers())
    assert known.training() == known.weights + 3 * known.parameters
    assert net.memory == known


def test_a_supernet_that_does_not_fit_says_how_much_it_needs(monkeypatch):
    monkeypatch.setattr(memory, "free_bytes", lambda device: 2**20)

    with pytest.raises(SetupError, match=r"space cifar-small needs 0\.01 GiB for its weights, 0\.00 GiB are"):
        Supernet(load_space("cifar-small"))
    with pytest.raises(SetupError, match=r"needs 0\.04 GiB for its weights, gradients and moments"):
        memory_needed(load_space("cifar-small")).check("cifar-small", torch.device("cpu"), training=True)


def test_in_a_container_its_limit_counts_and_files_that_were_read_do_not(monkeypatch, tmp_path):
    for name, text in {"memory.max": "5000\n", "memory.current": "4000\n",
                       "memory.stat": "anon 3200\ninactive_file 500\nactive_file 200\n"}.items():  # fmt: skip
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)

    limited = memory.host_bytes()
    (tmp_path / "memory.max").write_text("max\n")

    assert limited == 1700
    assert memory.host_bytes() > 1700


def test_on_the_meta_device_every_supernet_fits(monkeypatch):
    monkeypatch.setattr(memory, "host_bytes", lambda: 0)

    with torch.device("meta"):
        net = Supernet(load_space("imagenet-layouts"))

    assert all(parameter.is_meta for parameter in net.parameters())


def test_a_file_gives_the_same_supernet_back(tmp_path):
    net = shaken(TINY)
    x = images(TINY)

    save_supernet(net, tmp_path / "net.safetensors")
    loaded = load_supernet(tmp_path / "net.safetensors", TINY).eval()

    assert torch.equal(loaded(x, SMALLEST), net(x, SMALLEST))
    loaded(x, SMALLEST).sum().backward()
    assert [path.name for path in tmp_path.iterdir()] == ["net.safetensors"]


def test_a_file_of_another_space_is_refused_with_the_dimensions_that_differ(tmp_path):
    save_supernet(Supernet(ONE), tmp_path / "net.safetensors")
    wider = space({"block": C, "depth": 2, "width": [12, 16], "stride": 1, "kernel": 5},
                  {"block": T, "depth": 2, "width": 16, "stride": 2, "expand": 2})  # fmt: skip

    with pytest.raises(InputError) as caught:
        load_supernet(tmp_path / "net.safetensors", wider)

    message = str(caught.value)
    assert "the supernet of another space: s1_width is 12 there, [12, 16] here; " in message
    assert "s2_expand is not given there, 2 here" in message


def test_other_limits_are_the_same_supernet(tmp_path):
    save_supernet(Supernet(TINY), tmp_path / "net.safetensors")
    limited = Space(dataclasses.replace(TINY.file, limits={"macs": 1e5}), "limited")

    assert load_supernet(tmp_path / "net.safetensors", limited).space is limited


def test_weights_of_another_supernet_are_named_and_nothing_is_loaded():
    net, other = Supernet(TINY), Supernet(space({"block": C, "depth": 1, "width": 8, "stride": 2}))
    before = copy.deepcopy(net.state_dict())

    with pytest.raises(InputError, match=r"supernet: stages\.s1\.mbconv\.0\.\S+: missing; .* nothing was loaded"):
        net.load_weights(other.state_dict())
    with pytest.raises(InputError, match=r"head\.fc\.weight: \(3, 4\) for \(3, 16\)"):
        net.load_weights({**before, "head.fc.weight": torch.zeros(3, 4)})

    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


@pytest.mark.parametrize("content", [b"", b"no tensors at all"])
def test_a_file_that_holds_no_supernet_is_one_line(content, tmp_path):
    (tmp_path / "net.safetensors").write_bytes(content)

    with pytest.raises(InputError, match="not a safetensors file"):
        load_supernet(tmp_path / "net.safetensors", TINY)
    with pytest.raises(SetupError, match="no such file"):
        load_supernet(tmp_path / "other.safetensors", TINY)


# --- bad input ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("change", "message"), [
    ({"s2_width": 24}, r"s2_width: 24 is not among \[8, 16\]"),
    ({"s3_width": 24}, "no dimension named 's3_width'; did you mean 's2_width'"),
    ({"s2_width": [8]}, r"s2_width: \[8\] is not among"),
])  # fmt: skip
def test_a_candidate_outside_the_space_is_named(change, message):
    net = Supernet(TINY)

    with pytest.raises(InputError, match=message):
        net(images(TINY), {**SMALLEST, **change})


def test_images_of_another_size_are_refused():
    with pytest.raises(InputError, match="images of 16x16 pixels: this supernet's have 8x8"):
        Supernet(TINY)(torch.zeros(1, 1, 16, 16), SMALLEST)


def test_a_missing_dimension_is_named():
    with pytest.raises(InputError, match="dimension s2_width is missing"):
        Supernet(TINY).extract({name: value for name, value in SMALLEST.items() if name != "s2_width"})


def test_a_combination_or_a_cost_that_the_space_does_not_allow_is_named():
    limited = Space(dataclasses.replace(TINY.file, limits={"macs": 1e5}), "limited")
    refused = {"s1_width": 12, "s1_kernel": 5, "s2_block": C, "s2_depth": 1, "s2_width": 8}

    with pytest.raises(InputError, match="candidate: only: not one of the combinations"):
        Supernet(SPACES["only"])(images(TINY), refused)
    with pytest.raises(InputError, match="candidate: macs"):
        Supernet(limited)(images(TINY), LARGEST)


@pytest.mark.parametrize(("changes", "message"), [
    ({"image_size": (8, 16)}, r"has one image_size, this space has \[8, 16\]; give it one value"),
    ({"head_size": (4, 8)}, r"has one head_size of stage 1, this space has \[4, 8\]"),
])  # fmt: skip
def test_a_space_with_several_sizes_has_no_supernet(changes, message):
    several = space({"block": T, "depth": 1, "width": 8, "stride": 1}, **changes)

    with pytest.raises(InputError, match=message):
        Supernet(several)
    with pytest.raises(InputError, match=message):
        memory_needed(several)


def test_head_sizes_of_one_stage_are_refused_too():
    several = space({"block": T, "depth": 1, "width": 16, "stride": 1, "head_size": [4, 8]}, head_size=None)

    with pytest.raises(InputError, match="one head_size of stage 1"):
        Supernet(several)


def test_a_space_without_a_network_has_no_supernet():
    with pytest.raises(InputError, match="none of its networks can be built"):
        Supernet(space({"block": T, "depth": 1, "width": 8, "stride": 2}, image_size=4))
