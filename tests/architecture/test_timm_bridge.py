"""timm's CoAtNets give the same answers here; ours are citizens of timm."""

import dataclasses
import warnings

import pytest
import timm
import torch
from archs import C, T, small
from timm.data import resolve_data_config
from timm.models import MaxxVit, MaxxVitCfg
from timm.models.maxxvit import MaxxVitConvCfg, MaxxVitTransformerCfg
from timm.optim import param_groups_layer_decay
from torch import nn

from coatnet_search.architecture import timm_bridge
from coatnet_search.architecture.arch import Arch, Stage, Stem
from coatnet_search.architecture.blocks.attention import Attention
from coatnet_search.architecture.build import build, seeded_build
from coatnet_search.architecture.cost import cost
from coatnet_search.architecture.family import named_arch
from coatnet_search.architecture.timm_bridge import PAPER, from_timm
from coatnet_search.architecture.weights import load_weights, save_weights
from coatnet_search.core.document import dump
from coatnet_search.core.errors import InputError, SetupError


def randomised(model, seed=0):
    """Weights and statistics that all matter."""
    torch.manual_seed(seed)
    for name, value in [*model.named_parameters(), *model.named_buffers()]:
        if name.endswith("running_var"):
            value.uniform_(0.5, 2)
        elif value.is_floating_point():
            nn.init.normal_(value, 1.0 if value.ndim == 1 and name.endswith("weight") else 0.0, 0.3)
    return model.eval()


def maxxvit(image_size=128, convolution=None, attention=None, num_classes=7, **changes):
    """timm's class at a thousandth of its size."""
    cfg = MaxxVitCfg(
        conv_cfg=MaxxVitConvCfg(**(convolution or {})),
        transformer_cfg=MaxxVitTransformerCfg(dim_head=8, **(attention or {})),
        **{"embed_dim": (8, 16, 16, 24), "depths": (1, 2, 2, 1), "stem_width": 8, "head_hidden_size": 24, **changes},
    )  # fmt: skip
    return MaxxVit(cfg, img_size=image_size, num_classes=num_classes)


# --- from timm -------------------------------------------------------------------------------------------------------

SAME = {
    "as the paper's names": {},
    "another size": {"image_size": 192},
    "strided 1x1": {"convolution": {"stride_mode": "1x1", "kernel_size": 5, "expand_ratio": 2.0}},
    "max pool": {"convolution": {"pool_type": "max2"}, "attention": {"pool_type": "max2"}},
    "epsilon": {"convolution": {"norm_eps": 1e-2}, "attention": {"norm_eps": 1e-2}},
    "stem with bias": {"stem_bias": True},
    "no squeeze": {"convolution": {"attn_layer": ""}},
    "no bias": {"attention": {"rel_pos_type": ""}},
    "tanh": {"convolution": {"act_layer": "gelu_tanh"}, "attention": {"act_layer": "gelu_tanh"}},
    "CTTT": {"block_type": ("C", "T", "T", "T")},
    "mixed stage": {"block_type": ("C", "C", ("C", "T"), "T")},
    "head size": {"embed_dim": (8, 16, 48, 48), "head_hidden_size": 48, "attention": {"expand_ratio": 2.0}},
}  # fmt: skip


@pytest.mark.parametrize("changes", SAME.values(), ids=SAME)
@torch.no_grad()
def test_logits_are_those_of_timm(changes):
    theirs = randomised(maxxvit(**changes))
    side = changes.get("image_size", 128)
    x = torch.randn(2, 3, side, side)

    arch, weights = from_timm(theirs)
    ours = build(arch, weights).eval()

    expected = theirs(x)
    assert (ours(x) - expected).abs().max() <= 1e-5 * expected.abs().max()
    assert arch.image_size == side


def test_a_mixed_stage_becomes_two():
    arch, _ = from_timm(maxxvit(block_type=("C", "C", ("C", "T"), "T")))

    assert arch.layout == "C-C-C-T-T"
    assert [stage.stride for stage in arch.stages] == [2, 2, 2, 1, 2]


@pytest.mark.parametrize("place", range(6))
def test_the_paper_s_names_are_the_family_with_the_stride_in_the_depthwise_convolution(place):
    with torch.device("meta"):
        arch, weights = from_timm(PAPER[place])

    member = named_arch(f"coatnet-{place}-dw")
    assert [(s.block, s.depth, s.width, s.stride) for s in arch.stages] == [
        (s.block, s.depth, s.width, s.stride) for s in member.stages
    ]
    assert {s.options["pool"] for s in arch.stages} == {"avg"}
    assert {s.options["norm_eps"] for s in arch.stages} == {1e-5, 1e-6}
    assert {s.options["head_size"] for s in arch.stages if s.letter == T} == {32}
    assert not arch.stem.bias
    assert sum(v.numel() for n, v in weights.items() if "running" not in n and "tracked" not in n) == cost(arch).params


def test_weights_of_another_size_come_over_with_resized_tables():
    arch, weights = from_timm(randomised(maxxvit(128)))

    larger = build(dataclasses.replace(arch, image_size=192), weights)

    assert larger.stages[2][0].relative_bias.table.shape == (2, 23, 23)


REFUSED = {
    "activation after the pre-norm": {"convolution": {"pre_norm_act": True}},
    "expansion from the input": {"convolution": {"expand_output": False}},
    "silu": {"convolution": {"act_layer": "silu"}},
    "relu in the squeeze": {"convolution": {"attn_act_layer": "relu"}},
    "squeeze before the norm": {"convolution": {"attn_early": True}},
    "no bias in the projection": {"convolution": {"output_bias": False}},
    "pool before the block": {"convolution": {"stride_mode": "pool"}},
    "overlapping pool": {"convolution": {"pool_type": "avg"}, "attention": {"pool_type": "avg"}},
    "groups": {"convolution": {"group_size": 4}},
    "padding": {"convolution": {"padding": "same"}},
    "convnext": {"convolution": {"block_type": "convnext"}},
    "layer scale": {"attention": {"init_values": 1e-2}},
    "an MLP for the bias": {"attention": {"rel_pos_type": "mlp", "rel_pos_dim": 8}},
    "expansion in the output": {"attention": {"expand_first": False}},
    "batch norm in attention": {"attention": {"norm_layer": "batchnorm2d"}},
    "two widths in the stem": {"stem_width": (4, 8)},
    "no hidden layer": {"head_hidden_size": None},
    "another hidden width": {"head_hidden_size": 16},
    "windows": {"block_type": ("M", "M", "M", "M")},
    "one norm eps of two": {"convolution": {"norm_eps": 1e-2}, "block_type": ("T", "T", "T", "T")},
    "no classes": {"num_classes": 0},
    "oblong images": {"image_size": (128, 192)},
}  # fmt: skip


@pytest.mark.parametrize("changes", REFUSED.values(), ids=REFUSED)
def test_what_differs_from_the_paper_is_refused(changes):
    with pytest.raises(InputError, match="MaxxVit: "):
        from_timm(maxxvit(**changes))


@pytest.mark.parametrize(
    "name", ["coatnet_0_rw_224", "coatnet_rmlp_2_rw_384", "coatnet_bn_0_rw_224.sw_in1k", "resnet18"]
)
def test_other_networks_are_refused_by_name(name):
    with pytest.raises(InputError, match=f"{name}: .* use it as timm:{name}"):
        from_timm(name)


def test_a_refused_module_is_named_too():
    with torch.device("meta"), pytest.raises(InputError, match="use it as timm:coatnet_0_rw_224"):
        from_timm(timm.create_model("coatnet_0_rw_224"))


def test_a_typo_gets_a_suggestion():
    with pytest.raises(InputError, match="did you mean 'coatnet_0_224'"):
        from_timm("coatnet_0_22")


def test_training_choices_of_the_timm_network_do_not_matter():
    cfg = maxxvit().eval()
    dropping = MaxxVit(
        MaxxVitCfg(embed_dim=(8, 16, 16, 24), depths=(1, 2, 2, 1), stem_width=8, head_hidden_size=24,
                   transformer_cfg=MaxxVitTransformerCfg(dim_head=8, proj_drop=0.1, attn_drop=0.1)),
        img_size=128, num_classes=7, drop_rate=0.1, drop_path_rate=0.3)  # fmt: skip

    assert from_timm(dropping)[0] == from_timm(cfg)[0]


# --- created by timm -------------------------------------------------------------------------------------------------

ARCH = small(Stage(block=C, depth=2, width=8, stride=2), Stage(block="F", depth=1, width=16, stride=1),
             Stage(block=T, depth=2, width=16, stride=2, head_size=8), image_size=32,
             stem=Stem(depth=2, width=8, stride=2))  # fmt: skip


def created(**options):
    return timm.create_model("coatnet_search", arch=ARCH, **options)


def test_timm_knows_the_sizes_and_its_own_names_stay_timm_s():
    names = timm.list_models("coatnet_search*")

    assert {
        "coatnet_search",
        "coatnet_search_0",
        "coatnet_search_0_dw",
        "coatnet_search_6_printed",
        "coatnet_search_7",
    } <= {*names}
    assert timm.model_entrypoint("coatnet_0_224").__module__ == "timm.models.maxxvit"


def test_a_size_is_created_with_timm_s_options():
    with torch.device("meta"):
        model = timm.create_model(
            "coatnet_search_0", num_classes=10, in_chans=1, img_size=128, drop_path_rate=0.2, drop_rate=0.1
        )

    assert model.arch == named_arch("coatnet-0", image_size=128, in_channels=1, num_classes=10)
    assert model(torch.empty(2, 1, 128, 128, device="meta")).shape == (2, 10)
    assert model.stages[3][1].drop_path1.drop_prob == pytest.approx(0.2)
    assert model.head.drop.p == 0.1


@pytest.mark.parametrize("nested", [False, True])
def test_a_yaml_file_is_created_as_it_stands(tmp_path, nested):
    value = ARCH.to_dict()
    (tmp_path / "arch.yaml").write_text(dump({"arch": value} if nested else value))

    model = timm.create_model("coatnet_search", arch=str(tmp_path / "arch.yaml"))

    assert model.arch == ARCH
    assert model.num_classes == 5


def test_names_and_layouts_are_created_too():
    with torch.device("meta"):
        model = timm.create_model("coatnet_search", arch="C-C-T-T", num_classes=3)

    assert model.arch == named_arch("C-C-T-T", num_classes=3)


@pytest.mark.parametrize(("options", "message"), [
    ({}, "expected arch="), ({"arch": "coatnet-9"}, "did you mean"), ({"arch": "nothing.yaml"}, "nothing.yaml"),
    ({"arch": ARCH, "img_size": 30}, "not a multiple"), ({"arch": ARCH, "img_size": (32, 64)}, "square"),
    ({"arch": ARCH, "global_pool": "max"}, "global_pool"),
])  # fmt: skip
def test_what_cannot_be_created_is_said(options, message):
    with pytest.raises((InputError, SetupError), match=message):
        timm.create_model("coatnet_search", **options)


def test_weights_that_do_not_exist_are_not_promised():
    with torch.device("meta"), pytest.raises(RuntimeError, match="pretrained"):
        timm.create_model("coatnet_search_0", pretrained=True)


def test_images_are_prepared_as_the_architecture_wants_them():
    config = resolve_data_config(model=created())

    assert config["input_size"] == (3, 32, 32)
    assert config["mean"] == (0.5, 0.5, 0.5)


@pytest.mark.parametrize("kind", ["list", "dict", "hook", "getter"])
@torch.no_grad()
def test_feature_maps_come_out_of_every_wrapper_of_timm(kind):
    x = torch.randn(2, 3, 32, 32)
    whole = randomised(created())

    features = created(features_only=True, feature_cls=kind).eval()
    inner = features.model if kind == "getter" else features
    inner.load_state_dict({
        name if kind == "getter" else name.replace("stem.", "stem_").replace("stages.", "stages_"): value
        for name, value in whole.state_dict().items() if not name.startswith("head")
    })  # fmt: skip
    maps = features(x)

    maps = list(maps.values()) if isinstance(maps, dict) else maps
    assert features.feature_info.channels() == [8, 8, 16, 16]
    assert features.feature_info.reduction() == [2, 4, 4, 8]
    assert [tuple(m.shape) for m in maps] == [(2, 8, 16, 16), (2, 8, 8, 8), (2, 16, 8, 8), (2, 16, 4, 4)]
    torch.testing.assert_close(maps[-1], whole.forward_features(x))


def test_features_of_a_few_stages_keep_no_others():
    features = created(features_only=True, feature_cls="getter", out_indices=(0, 1))

    assert len(features.model.stages) == 1
    assert features.model.arch.stages == ARCH.stages[:1]
    assert features.feature_info.channels() == [8, 8]


@torch.no_grad()
def test_intermediates_are_the_maps_of_the_forward_pass():
    model = randomised(build(ARCH))
    x = torch.randn(2, 3, 32, 32)

    last, maps = model.forward_intermediates(x)
    two = model.forward_intermediates(x, indices=2, intermediates_only=True)
    early, first = model.forward_intermediates(x, indices=[0, 1], stop_early=True)

    assert len(maps) == 4
    assert torch.equal(last, maps[-1])
    assert torch.equal(last, model.forward_features(x))
    assert all(torch.equal(a, b) for a, b in zip(two, maps[2:], strict=True))
    assert torch.equal(early, first[1])
    torch.testing.assert_close(model.forward_head(last), model(x))


@pytest.mark.parametrize("indices", [0, 5, [4], [-5], []])
def test_maps_that_do_not_exist_are_refused(indices):
    with pytest.raises(InputError, match="maps 0 to 3"):
        build(ARCH).forward_intermediates(torch.randn(1, 3, 32, 32), indices=indices)


def test_maps_have_one_layout():
    with pytest.raises(InputError, match="NCHW"):
        build(ARCH).forward_intermediates(torch.randn(1, 3, 32, 32), output_fmt="NLC")


@torch.no_grad()
def test_the_classifier_is_replaced_removed_and_unpooled():
    model = randomised(build(ARCH))
    x = torch.randn(2, 3, 32, 32)
    features = model.forward_head(model.forward_features(x), pre_logits=True)

    model.reset_classifier(9)
    new = model(x), model.arch.num_classes, model.get_classifier().out_features
    model.reset_classifier(0)
    bare = model(x)
    model.reset_classifier(4, "")
    maps = model(x)
    model.reset_classifier(4, "avg")

    assert (new[0].shape, *new[1:]) == ((2, 9), 9, 9)
    torch.testing.assert_close(bare, features)
    assert maps.shape == (2, 4, 4, 4)
    assert model(x).shape == (2, 4)


@torch.no_grad()
def test_a_created_network_without_classes_gives_features():
    model = created(num_classes=0)

    assert model(torch.randn(2, 3, 32, 32)).shape == (2, 16)
    assert isinstance(model.get_classifier(), nn.Identity)


def test_checkpointing_changes_neither_gradients_nor_statistics():
    plain, saving = (seeded_build(ARCH, 0, drop_path=0.3, init="fan_in").train() for _ in range(2))
    saving.set_grad_checkpointing()
    x = torch.randn(4, 3, 32, 32)

    for model in (plain, saving):
        torch.manual_seed(1)
        model(x).square().sum().backward()

    for (name, one), two in zip(plain.named_parameters(), saving.parameters(), strict=True):
        torch.testing.assert_close(one.grad, two.grad, msg=name)
    for one, two in zip(plain.buffers(), saving.buffers(), strict=True):
        torch.testing.assert_close(one, two)


def test_checkpointing_keeps_less():
    def kept(model):
        sizes = {}
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t: sizes.setdefault(t.data_ptr(), t.numel()) and t, lambda t: t
        ):
            model(torch.randn(4, 3, 32, 32))
        return sum(sizes.values())

    model = build(ARCH)
    plain = kept(model)
    model.set_grad_checkpointing()

    assert kept(model) < plain / 2


def test_layer_wise_rates_find_every_block():
    model = created()

    groups = param_groups_layer_decay(model, weight_decay=0.05, layer_decay=0.5,
                                      no_weight_decay_list=model.no_weight_decay())  # fmt: skip

    assert len({group["lr_scale"] for group in groups}) == 1 + 5 + 1  # stem, blocks, head
    decayed = {id(p) for group in groups if group["weight_decay"] for p in group["params"]}
    assert not any(
        id(block.relative_bias.table) in decayed for block in model.modules() if isinstance(block, Attention)
    )


# --- weights as files ------------------------------------------------------------------------------------------------


def test_weights_travel_with_their_architecture(tmp_path):
    model = randomised(build(ARCH)).to(memory_format=torch.channels_last)
    x = torch.randn(2, 3, 32, 32)

    save_weights(model, tmp_path / "net.safetensors")
    arch, weights = load_weights(tmp_path / "net.safetensors")

    assert arch == ARCH
    assert [path.name for path in tmp_path.iterdir()] == ["net.safetensors"]
    torch.testing.assert_close(build(arch, weights).eval()(x), model(x))


def test_timm_loads_such_a_file_at_another_size_and_number_of_classes(tmp_path):
    save_weights(randomised(build(ARCH)), tmp_path / "net.safetensors")

    model = created(pretrained=True, pretrained_cfg_overlay={"file": str(tmp_path / "net.safetensors")}, img_size=64,
                    num_classes=9, in_chans=1)  # fmt: skip
    same = created(checkpoint_path=str(tmp_path / "net.safetensors"))

    weights = load_weights(tmp_path / "net.safetensors")[1]
    assert model(torch.randn(1, 1, 64, 64)).shape == (1, 9)
    assert torch.equal(model.stages[0][0].expand.weight, weights["stages.0.0.expand.weight"])
    assert model.stages[2][0].relative_bias.table.shape == (2, 15, 15)
    assert all(torch.equal(value, weights[name]) for name, value in same.state_dict().items())


def test_other_files_are_not_weights(tmp_path):
    (tmp_path / "text.safetensors").write_text("hello")
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(1)}, tmp_path / "bare.safetensors")

    with pytest.raises(InputError, match="not a safetensors file"):
        load_weights(tmp_path / "text.safetensors")
    with pytest.raises(InputError, match="no architecture"):
        load_weights(tmp_path / "bare.safetensors")
    with pytest.raises(SetupError, match="no such file"):
        load_weights(tmp_path / "absent.safetensors")


def test_importing_again_says_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        import coatnet_search.architecture.timm_bridge

    assert coatnet_search.architecture.timm_bridge is timm_bridge
    assert isinstance(ARCH, Arch)
