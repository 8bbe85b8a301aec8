"""The published networks to their counts, weights from elsewhere or not at all, and a bias that is never stale."""

import copy
import dataclasses

import pytest
import torch
from archs import C, T, small
from torch import nn

from coatnet_search.architecture.arch import Arch, Stage, Stem
from coatnet_search.architecture.blocks.attention import RelativeBias
from coatnet_search.architecture.build import build, num_parameters, resize_table, seeded_build
from coatnet_search.architecture.cost import cost
from coatnet_search.architecture.family import named_arch, resized
from coatnet_search.core.errors import InputError

# Millions of parameters, and billions of multiply-adds at 224, 384 and 512 pixels and at 224 with strided depthwise
# convolution: a faithful build of CoAtNet (arXiv 2106.04803, table 3), counted in closed form
COUNTS = {
    "coatnet-0": (25.04, 4.14, 13.05, None, 4.55),
    "coatnet-1": (42.23, 8.24, 26.60, None, 8.64),
    "coatnet-2": (74.69, 15.50, 48.75, 93.35, 16.43),
    "coatnet-3": (166.97, 34.37, 105.79, 198.11, 36.45),
    "coatnet-4": (275.43, 60.24, 186.50, 351.46, 62.32),
    "coatnet-5": (687.05, 142.18, None, 803.98, 145.26),
    "coatnet-6": (1471.1, None, None, 1495.5, None),
    "coatnet-6-printed": (1348.4, 259.48, None, 1465.4, 262.26),
    "coatnet-7": (2442.0, 457.87, None, 2538.5, 462.19),
}
# The paper's own figures: millions of parameters, billions at 224
PRINTED = {"coatnet-0": (25, 4.2), "coatnet-1": (42, 8.4), "coatnet-2": (75, 15.7), "coatnet-3": (168, 34.7)}
BLOCKS_OF = {"coatnet-0": 12, "coatnet-5": 44, "coatnet-7": 58}
_CELLS = [(name, size, row[place]) for name, row in COUNTS.items() for place, size in ((1, 224), (2, 384), (3, 512))]


def rounded(value, like):
    """To as many digits as the known figure has."""
    digits = len(str(like).partition(".")[2])
    return round(value, max(digits, 1))


@pytest.mark.parametrize("name", COUNTS)
def test_parameters_are_those_of_the_published_network(name):
    assert rounded(cost(named_arch(name)).params / 1e6, COUNTS[name][0]) == COUNTS[name][0]


@pytest.mark.parametrize(("name", "size", "macs"), [cell for cell in _CELLS if cell[2]])
def test_multiply_adds_are_those_of_the_published_network(name, size, macs):
    known = cost(named_arch(name, image_size=size)).macs / 1e9

    assert known == pytest.approx(macs, abs=0.006 if macs < 800 else 0.06)


@pytest.mark.parametrize("name", [name for name, row in COUNTS.items() if row[4]])
def test_strided_depthwise_costs_what_it_should(name):
    assert cost(named_arch(name + "-dw")).macs / 1e9 == pytest.approx(COUNTS[name][4], abs=0.006)


@pytest.mark.parametrize("name", PRINTED)
def test_counts_agree_with_the_printed_ones(name):
    found = cost(named_arch(name))

    assert found.params / 1e6 == pytest.approx(PRINTED[name][0], rel=0.01)
    assert found.macs / 1e9 == pytest.approx(PRINTED[name][1], rel=0.02)


@pytest.mark.parametrize("name", BLOCKS_OF)
def test_the_built_network_has_the_blocks_and_the_parameters(name):
    arch = named_arch(name)

    with torch.device("meta"):
        model = build(arch)

    assert sum(len(stage) for stage in model.stages) == BLOCKS_OF[name]
    assert num_parameters(model) == cost(arch).params
    assert model(torch.empty(2, 3, 224, 224, device="meta")).shape == (2, 1000)


def test_the_bias_tables_of_coatnet_0_hold_43740_numbers_at_a_sixteenth():
    with torch.device("meta"):
        model = build(named_arch("coatnet-0"))

    tables = [module.table for module in model.stages[2].modules() if isinstance(module, RelativeBias)]

    assert [tuple(table.shape) for table in tables] == [(12, 27, 27)] * 5
    assert sum(table.numel() for table in tables) == 43_740


ABLATIONS = {
    "no bias": {"relative": False}, "head size": {"head_size": 16}, "average pool": {"pool": "avg"},
    "tanh": {"activation": "gelu_tanh"}, "norm": {"norm": "layer"}, "stride": {"stride_at": "depthwise"},
    "squeeze": {"se_ratio": 0}, "kernel": {"kernel": 5},
}  # fmt: skip


@pytest.mark.parametrize("change", ABLATIONS.values(), ids=ABLATIONS)
def test_an_ablation_is_another_network_with_other_answers(change):
    plain = small()
    stages = [dataclasses.replace(s, options={**s.options, **{k: v for k, v in change.items() if k in s.options}})
              for s in plain.stages]  # fmt: skip
    ablated = small(*stages)
    x = torch.randn(2, 3, 16, 16)

    answers = [seeded_build(arch, 0, init="fan_in").eval()(x) for arch in (plain, ablated)]

    assert ablated.id != plain.id
    assert not torch.allclose(*answers)


# --- shapes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("side", [16, 32, 40, 64, 128])
def test_any_image_size_that_the_strides_allow(channels, side):
    model = build(small(image_size=side, in_channels=channels)).eval()

    with torch.no_grad():
        assert model(torch.randn(2, channels, side, side)).shape == (2, 5)


@pytest.mark.parametrize("side", [224, 256, 288, 384, 480, 512])
@pytest.mark.parametrize("name", ["coatnet-0", "C-T-T-T", "vit-rel"])
def test_published_networks_take_sizes_up_to_512(name, side):
    with torch.device("meta"):
        model, images = build(named_arch(name, image_size=side)), torch.empty(1, 3, side, side)

        assert model(images).shape == (1, 1000)


def test_a_network_that_is_not_legal_is_refused_with_the_reason():
    with pytest.raises(InputError, match="not a multiple of the strides' product 4; try 16"):
        build(small(image_size=18))


def test_features_and_head_make_the_whole():
    model = build(small()).eval()
    x = torch.randn(2, 3, 16, 16)

    features = model.forward_features(x)

    assert features.shape == (2, 16, 4, 4)
    assert model.forward_head(features, pre_logits=True).shape == (2, model.num_features)
    assert torch.equal(model.forward_head(features), model(x))


def test_channels_last_images_stay_channels_last():
    model = build(small()).eval()
    x = torch.randn(2, 3, 16, 16).contiguous(memory_format=torch.channels_last)

    assert model.forward_features(x).is_contiguous(memory_format=torch.channels_last)


def test_stochastic_depth_grows_linearly_over_the_blocks():
    stages = Stage(block=C, depth=2, width=8, stride=2), Stage(block=T, depth=3, width=16, stride=2, head_size=8)
    model = build(small(*stages), drop_path=0.4)

    rates = [[m.drop_prob for m in b.modules() if hasattr(m, "drop_prob")] for stage in model.stages for b in stage]

    assert rates == [[0.0], [pytest.approx(0.1)], [pytest.approx(0.2)] * 2, [pytest.approx(0.3)] * 2, [0.4, 0.4]]


# --- initial weights ---------------------------------------------------------------------------------------------


def test_initial_weights_are_normal_and_biases_zero():
    model = seeded_build(named_arch("coatnet-0", num_classes=10), 0)

    for name, parameter in model.named_parameters():
        is_norm = "norm" in name or name.startswith("stem.1")
        if parameter.ndim > 1 and parameter.numel() > 5000:
            assert parameter.std().item() == pytest.approx(0.02, rel=0.1), name
        elif name.endswith("bias"):
            assert not parameter.any(), name
        elif is_norm:
            assert (parameter == 1).all(), name


def test_a_seed_gives_the_same_weights_and_leaves_the_random_state_alone():
    before = torch.get_rng_state()

    one, same, other = (seeded_build(small(), seed).state_dict() for seed in (1, 1, 2))

    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["head.fc.weight"], other["head.fc.weight"])


def test_bias_tables_are_not_decayed():
    model = build(small())

    assert model.no_weight_decay() == {f"stages.1.{place}.relative_bias.table" for place in range(2)}


# --- weights from elsewhere --------------------------------------------------------------------------------------


def test_weights_come_back_bit_by_bit():
    model = seeded_build(small(), 3).eval()
    x = torch.randn(2, 3, 16, 16)

    loaded = build(small(), model.state_dict()).eval()

    assert torch.equal(loaded(x), model(x))


@pytest.mark.parametrize("to", [16, 24, 32, 64])
def test_a_constant_table_stays_constant_at_another_size(to):
    weights = build(small(image_size=32)).state_dict()
    for name in weights:
        if name.endswith("table"):
            weights[name].fill_(0.7)

    model = build(small(image_size=to), weights)

    tables = [module.table for module in model.modules() if isinstance(module, RelativeBias)]
    side = 2 * (to // 4) - 1
    assert [tuple(table.shape) for table in tables] == [(2, side, side)] * 2
    assert all(torch.allclose(table, torch.tensor(0.7)) for table in tables)


def test_a_linear_ramp_is_interpolated():
    ramp = torch.linspace(-1, 1, 7).expand(2, 7, 7)

    wide = resize_table(ramp, 15)
    tall = resize_table(ramp.transpose(1, 2), 15)

    torch.testing.assert_close(wide, torch.linspace(-1, 1, 15).expand(2, 15, 15))
    torch.testing.assert_close(tall, wide.transpose(1, 2))
    torch.testing.assert_close(resize_table(wide, 7), ramp)
    assert resize_table(ramp, 7) is ramp


def test_a_table_between_known_points_is_their_weighted_mean():
    table = torch.tensor([[[0.0, 3.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 6.0]]])

    resized_table = resize_table(table, 5)

    assert resized_table[0, 0].tolist() == [0, 1.5, 3, 1.5, 0]
    assert resized_table[0, 3, 3].item() == pytest.approx(1.5)
    assert resize_table(table.half(), 5).dtype == torch.half


def test_another_size_changes_tables_alone():
    weights = seeded_build(small(image_size=32), 0).state_dict()

    state = build(small(image_size=16), weights).state_dict()

    changed = {name for name in weights if not torch.equal(weights[name], state[name])}
    assert changed == {f"stages.1.{place}.relative_bias.table" for place in range(2)}


def test_weights_of_another_network_are_named_and_nothing_is_loaded():
    weights = build(
        small(Stage(block=C, depth=2, width=8, stride=2), Stage(block=T, depth=1, width=16, stride=2, head_size=8))
    ).state_dict()

    with pytest.raises(InputError) as caught:
        build(small(), weights)

    message = str(caught.value)
    assert message.startswith("weights of another network: stages.1.1.norm1.weight: missing; ")
    assert message.count(": missing") == 3
    assert "more; nothing was loaded" in message


def test_wrong_shapes_are_named_with_both():
    weights = build(small(num_classes=7)).state_dict()

    with pytest.raises(InputError) as caught:
        build(small(), weights)

    assert "head.fc.weight: (7, 16) for (5, 16); head.fc.bias: (7,) for (5,); nothing was loaded" in str(caught.value)


@pytest.mark.parametrize("shape", [(3, 7, 7), (2, 7), (2, 7, 5), (1, 2, 7, 7), ()])
def test_a_table_of_another_form_is_a_named_mismatch(shape):
    weights = {**build(small()).state_dict(), "stages.1.0.relative_bias.table": torch.zeros(shape)}

    with pytest.raises(InputError, match=r"stages\.1\.0\.relative_bias\.table: "):
        build(small(), weights)


def test_extra_weights_are_named():
    weights = {**build(small()).state_dict(), "optimizer": torch.zeros(1)}

    with pytest.raises(InputError, match="optimizer: not in this network"):
        build(small(), weights)


# --- without memory ----------------------------------------------------------------------------------------------


def test_on_the_meta_device_nothing_is_allocated():
    with torch.device("meta"):
        model = build(small())

    assert all(parameter.is_meta for parameter in model.parameters())
    assert model(torch.empty(1, 3, 16, 16, device="meta")).is_meta


@pytest.mark.parametrize("size", [16, 32])
def test_weights_fill_a_network_that_was_built_on_the_meta_device(size):
    donor = seeded_build(small(image_size=size), 0)
    x = torch.randn(2, 3, 16, 16)

    with torch.device("meta"):
        model = build(small(), donor.state_dict())

    assert not any(value.is_meta for value in model.state_dict().values())
    assert torch.equal(model.eval()(x), build(small(), donor.state_dict()).eval()(x))
    model.train()(x).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_an_emptied_network_is_whole_once_weights_are_loaded():
    donor = seeded_build(small(), 0).eval()
    x = torch.randn(2, 3, 16, 16)
    with torch.device("meta"):
        model = build(small())

    model.to_empty(device="cpu").load_state_dict(donor.state_dict())

    assert torch.equal(model.eval()(x), donor(x))


# --- the bias that eval mode keeps -------------------------------------------------------------------------------


def fresh(model, x):
    """What a copy that has kept nothing answers."""
    other = build(model.arch, model.state_dict()).to(x.dtype).eval()
    with torch.no_grad():
        return other(x)


def by_optimiser(model, x):
    step(model, x, torch.optim.SGD(model.parameters(), lr=5.0))


def by_fused_optimiser(model, x):
    step(model, x, torch.optim.AdamW(model.parameters(), lr=0.5, fused=True))


def by_foreach_optimiser(model, x):
    step(model, x, torch.optim.AdamW(model.parameters(), lr=0.5, foreach=True))


def step(model, x, optimiser):
    model.train()
    model(x).square().sum().backward()
    optimiser.step()
    model.eval()


def in_eval_mode(model, x):
    model(x).square().sum().backward()
    torch.optim.AdamW(model.parameters(), lr=0.5, fused=True).step()


def by_load(model, x):
    model.load_state_dict(seeded_build(model.arch, 99).state_dict())


def by_assign(model, x):
    model.load_state_dict(seeded_build(model.arch, 99).state_dict(), assign=True)


def by_copy(model, x):
    with torch.no_grad():
        for own, other in zip(model.parameters(), seeded_build(model.arch, 99).parameters(), strict=True):
            own.copy_(other)


def by_foreach_lerp(model, x):
    others = [p.detach() for p in seeded_build(model.arch, 99).parameters()]
    with torch.no_grad():
        torch._foreach_lerp_(list(model.parameters()), others, 0.5)


def in_inference_mode(model, x):
    with torch.inference_mode():
        for parameter in model.parameters():
            parameter.mul_(3)


def by_new_data(model, x):
    for parameter in model.parameters():
        parameter.data = parameter.data * 3


def by_new_parameter(model, x):
    for module in model.modules():
        if isinstance(module, RelativeBias):
            module.table = nn.Parameter(torch.randn_like(module.table))


def by_dtype_and_back(model, x):
    model.to(torch.bfloat16).to(x.dtype)


CHANGES = [by_optimiser, by_fused_optimiser, by_foreach_optimiser, in_eval_mode, by_load, by_assign, by_copy,
           by_foreach_lerp, in_inference_mode, by_new_data, by_new_parameter, by_dtype_and_back]  # fmt: skip


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_table_is_looked_up_again(change, mode):
    model = seeded_build(small(), 0, init="fan_in").eval()
    nn.init.normal_(model.stages[1][0].relative_bias.table)
    x = torch.randn(2, 3, 16, 16)
    with mode():
        before = model(x)
        assert torch.equal(model(x), before)

    change(model, x)

    with mode():
        after = model(x)
    assert not torch.equal(after, before)
    assert torch.equal(after, fresh(model, x))


def test_another_dtype_looks_up_in_it():
    model = seeded_build(small(), 0).eval()
    x = torch.randn(2, 3, 16, 16, dtype=torch.double)
    with torch.no_grad():
        model(x.float())

        assert torch.equal(model.double()(x), fresh(model, x))


def test_a_copy_has_a_bias_of_its_own():
    model = seeded_build(small(), 0).eval()
    x = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        before = model(x)

    other = copy.deepcopy(model)
    by_load(other, x)

    with torch.no_grad():
        assert torch.equal(other(x), fresh(other, x))
        assert torch.equal(model(x), before)


def test_gradients_flow_to_the_tables_after_inference():
    model = seeded_build(small(), 0, init="fan_in").eval()
    x = torch.randn(2, 3, 16, 16)
    with torch.inference_mode():
        quick = model(x)

    answer = model(x)
    answer.sum().backward()

    torch.testing.assert_close(answer.detach(), quick.clone())
    assert all(m.table.grad.abs().sum() > 0 for m in model.modules() if isinstance(m, RelativeBias))


def test_a_network_that_is_made_in_inference_mode_runs():
    with torch.inference_mode():
        model = build(small()).eval()

        assert model(torch.randn(2, 3, 16, 16)).shape == (2, 5)


def test_tables_of_functional_calls_are_not_mixed_up():
    bias = RelativeBias(heads=1, grid=4).eval()

    with torch.no_grad():
        found = [
            torch.func.functional_call(bias, {"table": torch.full((1, 7, 7), float(i))}, ())[0, 0, 0] for i in range(4)
        ]

    assert [value.item() for value in found] == [0, 1, 2, 3]


def test_a_kept_bias_is_not_looked_up_twice(monkeypatch):
    bias, calls = RelativeBias(heads=2, grid=4).eval(), []
    look_up = bias._look_up
    monkeypatch.setattr(bias, "_look_up", lambda: calls.append(1) or look_up())

    with torch.no_grad():
        for _ in range(3):
            bias()

    assert len(calls) == 1


def test_a_published_network_at_another_size_is_the_same_but_for_its_size():
    arch = named_arch("coatnet-2")

    assert resized(arch, 512) == named_arch("coatnet-2", image_size=512)


def test_a_network_without_stages_has_stem_and_head():
    arch = Arch(image_size=8, num_classes=4, stem=Stem(width=8))

    assert build(arch)(torch.randn(2, 3, 8, 8)).shape == (2, 4)
