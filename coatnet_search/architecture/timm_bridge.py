"""To and from timm: its CoAtNets as architectures with weights, ours as networks that ``timm.create_model`` makes.

Importing this file registers ``coatnet_search`` (with ``arch=``: a YAML file, a name, a layout, an ``Arch``) and the
published sizes as ``coatnet_search_0``, ... ``coatnet_search_7``, which leaves timm's own names alone.
"""

import dataclasses
import itertools
import math
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import timm
import torch
from timm.models import MaxxVit, MaxxVitCfg, build_model_with_cfg, register_model
from timm.models.maxxvit import MaxxVitConvCfg, MaxxVitTransformerCfg, MbConvBlock, TransformerBlock2d
from torch import Tensor, nn

from coatnet_search.architecture.arch import Arch, Head, Stage, Stem
from coatnet_search.architecture.build import CoAtNet, build, fit_tables, timm_cfg
from coatnet_search.architecture.family import DEPTHWISE, FAMILY, named_arch
from coatnet_search.architecture.files import read_arch
from coatnet_search.architecture.timm_names import create_by_name
from coatnet_search.core.canonical import Scalar
from coatnet_search.core.errors import InputError, unknown

PAPER = tuple(f"coatnet_{size}_224" for size in range(6))  # those of timm that are the paper's architecture

# --- timm's networks as ours -----------------------------------------------------------------------------------------


def from_timm(network: nn.Module | str) -> tuple[Arch, dict[str, Tensor]]:
    """The architecture and the state dict of timm's ``coatnet_0_224`` .. ``coatnet_5_224``: ``build(*from_timm(...))``
    gives the same outputs up to rounding.

    ``network``: one of these names (weights random, timm has none) or such a network, of any square image size, number
    of classes and weights. What timm does otherwise than the paper become options of blocks. Raises InputError for
    every other network: the ``_rw``, ``rmlp`` and ``bn`` lines are other architectures.
    """
    if isinstance(network, str):
        if network.partition(".")[0] not in PAPER:
            raise InputError(_refused(network))
        network = create_by_name(network)
    name = str((getattr(network, "pretrained_cfg", None) or {}).get("architecture") or type(network).__name__)
    if not isinstance(network, MaxxVit):
        raise InputError(_refused(name))
    arch = _read(network, name)
    return arch, dict(_weights(network))


def _refused(name: str, reason: str = "") -> str:
    plain = name.partition(".")[0]
    if not reason and not timm.is_model(plain):
        return unknown("network to convert", name, PAPER)
    use = f"; use it as timm:{name}" if timm.is_model(plain) and plain not in PAPER else ""
    detail = f" ({reason})" if reason and not use else ""
    return f"{name}: not the paper's architecture{detail}; {PAPER[0]} to {PAPER[-1]} are converted{use}"


def _read(network: MaxxVit, name: str) -> Arch:
    """The architecture that the network's modules spell out; refused where timm would build another one from it."""
    side, other = network.img_size
    if side != other:
        raise InputError(f"{name}: images of {side}x{other} pixels; architectures have square ones")
    try:
        arch = Arch(
            image_size=side, in_channels=network.in_chans, num_classes=network.num_classes, stem=_stem(network.stem),
            stages=tuple(_READ[kind][0](blocks[0], len(blocks), stride) for kind, blocks, stride in _runs(network)),
            head=Head(hidden=True, norm_eps=network.head.norm.eps),
        )  # fmt: skip
        with torch.device("meta"):
            twin = _twin(arch, [len(group.blocks) for group in network.stages])
    except (AttributeError, TypeError, KeyError, AssertionError, InputError) as error:
        raise InputError(_refused(name, str(error))) from None
    for mine, its in itertools.zip_longest(_spelled(twin), _spelled(network), fillvalue="nothing"):
        if mine != its:
            raise InputError(_refused(name, f"{its.strip()} where the paper has {mine.strip()}"))
    return arch


def _stem(stem: Any) -> Stem:
    return Stem(width=stem.conv2.out_channels, bias=stem.conv1.bias is not None, norm_eps=stem.norm1.eps,
                activation=_activation(stem.norm1.act))  # fmt: skip


def _runs(network: MaxxVit) -> Iterator[tuple[type, list[nn.Module], int]]:
    """Blocks of one type behind each other, and the stride of the first; timm's stages may mix types."""
    for group in network.stages:
        stride = 2
        for kind, blocks in itertools.groupby(group.blocks, key=type):
            yield kind, list(blocks), stride
            stride = 1


def _convolution(block: Any, depth: int, stride: int) -> Stage:
    width, inner = block.conv3_1x1.out_channels, block.conv1_1x1.out_channels
    options: dict[str, Scalar] = {
        "expand": inner / width, "kernel": block.conv2_kxk.kernel_size[0], "norm_eps": block.norm1.eps,
        "se_ratio": 0 if block.se is None else block.se.fc1.out_channels / width,
        "activation": _activation(block.norm1.act),
    }  # fmt: skip
    if stride == 2:
        options |= {"stride_at": "expand" if block.conv1_1x1.stride == (2, 2) else "depthwise", "pool": _pool(block)}
    return Stage(block="mbconv", depth=depth, width=width, stride=stride, options=options)


def _attention(block: Any, depth: int, stride: int) -> Stage:
    width = block.attn.proj.out_channels
    if not block.attn.head_first:
        raise TypeError("queries, keys and values before heads")
    options: dict[str, Scalar] = {
        "expand": block.mlp.fc1.out_channels / width, "head_size": block.attn.dim_head, "norm_eps": block.norm2.eps,
        "relative": block.attn.rel_pos is not None, "activation": _activation(block.mlp.act),
    }  # fmt: skip
    if stride == 2:
        options["pool"] = _pool(block)
    return Stage(block="attention", depth=depth, width=width, stride=stride, options=options)


def _pool(block: Any) -> Literal["max", "avg"]:
    return "max" if isinstance(block.shortcut.pool, nn.MaxPool2d) else "avg"


def _activation(module: nn.Module) -> str:
    return "gelu_tanh" if "Tanh" in type(module).__name__ else "gelu"


def _twin(arch: Arch, depths: list[int]) -> MaxxVit:
    """The network that timm builds with the same choices everywhere; ``depths``: of timm's stages."""
    letters = iter("C" if stage.block == "mbconv" else "T" for stage in arch.stages for _ in range(stage.depth))
    widths = iter(stage.width for stage in arch.stages for _ in range(stage.depth))
    types = [tuple(itertools.islice(letters, depth)) for depth in depths]
    convolution, attention = _options(arch, "mbconv"), _options(arch, "attention")
    cfg = MaxxVitCfg(
        embed_dim=tuple(next(itertools.islice(widths, depth - 1, None)) for depth in depths),
        depths=tuple(depths), block_type=tuple(types), stem_width=arch.stem.width, stem_bias=arch.stem.bias,
        head_hidden_size=arch.out_width, weight_init="",
        conv_cfg=MaxxVitConvCfg(
            **_chosen(convolution, kernel="kernel_size"),
            stride_mode="1x1" if convolution.get("stride_at") == "expand" else "dw", pool_type=_pool_of(convolution),
            attn_layer="se" if convolution.get("se_ratio") else "", attn_ratio=convolution.get("se_ratio", 0),
        ),
        transformer_cfg=MaxxVitTransformerCfg(
            **_chosen(attention, head_size="dim_head"),
            pool_type=_pool_of(attention), rel_pos_type="bias" if attention.get("relative") else "",
        ),
    )  # fmt: skip
    if not attention:
        cfg.transformer_cfg.norm_eps = arch.head.norm_eps
    return MaxxVit(cfg, img_size=arch.image_size, in_chans=arch.in_channels, num_classes=arch.num_classes)


def _options(arch: Arch, block: str) -> Mapping[str, Scalar]:
    """Those of the first stage of this block, one with a stride if there is: others do not say how they pool."""
    found = sorted((stage for stage in arch.stages if stage.block == block), key=lambda stage: -stage.stride)
    return found[0].options if found else {}


def _chosen(options: Mapping[str, Scalar], **more: str) -> dict[str, Any]:
    """The options under timm's names; ``more``: those that only this type of block has."""
    names = {"expand": "expand_ratio", "norm_eps": "norm_eps", "activation": "act_layer", **more}
    return {theirs: options[ours] for ours, theirs in names.items() if ours in options}


def _pool_of(options: Mapping[str, Scalar]) -> str:
    return f"{options.get('pool', 'avg')}2"


_RATES = re.compile(r"\((drop\w*|\w+_drop)\): ")  # dropout and stochastic depth: no part of an architecture


def _spelled(network: nn.Module) -> list[str]:
    """A network's parts in order, and the shapes of what it learns."""
    lines = [line for line in repr(network).splitlines() if not _RATES.search(line)]
    return lines + [f"{name} of {tuple(value.shape)}" for name, value in network.state_dict().items()]


# theirs: ours; the first that begins a name counts
_STEM = {"conv1": "0", "norm1": "1", "conv2": "3"}
_HEAD = {"norm": "norm", "pre_logits.fc": "hidden", "fc": "fc"}
_MBCONV = {
    "shortcut.expand": "shortcut.proj", "pre_norm": "norm1", "conv1_1x1": "expand", "norm1": "norm2",
    "conv2_kxk": "depthwise", "norm2": "norm3", "se": "se", "conv3_1x1": "project",
}  # fmt: skip
_ATTENTION = {
    "shortcut.expand": "shortcut.proj", "norm1.norm": "norm1", "norm1": "norm1", "attn.qkv": "qkv",
    "attn.rel_pos.relative_position_bias_table": "relative_bias.table", "attn.proj": "proj", "norm2": "norm2",
    "mlp.fc1": "fc1", "mlp.fc2": "fc2",
}  # fmt: skip


def _weights(network: MaxxVit) -> Iterator[tuple[str, Tensor]]:
    """Their tensors under our names and in our shapes."""
    yield from _renamed("stem", network.stem, _STEM)
    for index, (kind, blocks, _) in enumerate(_runs(network)):
        for place, block in enumerate(blocks):
            for name, value in _renamed(f"stages.{index}.{place}", block, _READ[kind][1]):
                yield name, _fitted(name, value) if kind is TransformerBlock2d else value
    yield from _renamed("head", network.head, _HEAD)


def _renamed(prefix: str, module: nn.Module, names: Mapping[str, str]) -> Iterator[tuple[str, Tensor]]:
    for name, value in module.state_dict().items():
        old = next(old for old in names if name == old or name.startswith(old + "."))
        yield f"{prefix}.{names[old]}{name[len(old) :]}", value


def _fitted(name: str, value: Tensor) -> Tensor:
    """Their 1x1 convolutions are linear layers here, their tables (offsets, H) are (H, 2G-1, 2G-1)."""
    if name.endswith("table"):
        side = math.isqrt(value.shape[0])
        return value.T.reshape(-1, side, side)
    return value.flatten(1) if value.ndim == 4 and ".shortcut." not in name else value


_READ: dict[type, tuple[Callable[..., Stage], Mapping[str, str]]] = {
    MbConvBlock: (_convolution, _MBCONV),
    TransformerBlock2d: (_attention, _ATTENTION),
}

# --- ours as timm's --------------------------------------------------------------------------------------------------


def coatnet_search(
    pretrained: bool = False, *, arch: Arch | Mapping[str, Any] | str | Path | None = None, **options: Any
) -> nn.Module:
    """``timm.create_model("coatnet_search", arch=...)``: a YAML file, a name, a layout, an ``Arch`` or its mapping.

    Image size, channels and classes are the architecture's own unless timm's ``img_size``, ``in_chans`` and
    ``num_classes`` say otherwise. Raises InputError for what is no architecture.
    """
    if arch is None:
        raise InputError('coatnet_search: expected arch=, as in timm.create_model("coatnet_search", arch="arch.yaml")')
    if isinstance(arch, Mapping):
        arch = Arch.from_dict(arch)
    elif not isinstance(arch, Arch):
        arch = read_arch(Path(arch)) if Path(arch).suffix in (".yaml", ".yml") else named_arch(str(arch))
    return _create("coatnet_search", arch, pretrained, options)


def _create(variant: str, arch: Arch, pretrained: bool, options: dict[str, Any]) -> nn.Module:
    cfg = options.pop("pretrained_cfg", None) or {**timm_cfg(arch), "architecture": variant}
    maps = tuple(range(len(arch.stages) + 1))
    return build_model_with_cfg(
        _network, variant, pretrained, pretrained_cfg=cfg, model_cfg=arch, pretrained_filter_fn=_filter,
        feature_cfg={"flatten_sequential": True, "out_indices": maps}, **options,
    )  # fmt: skip


def _network(
    cfg: Arch, *, num_classes: int, in_chans: int, img_size: int | tuple[int, int], global_pool: str = "avg",
    drop_rate: float = 0.0, drop_path_rate: float = 0.0, device: Any = None, dtype: torch.dtype | None = None,
) -> CoAtNet:  # fmt: skip
    """What timm calls in place of a class. Raises InputError where the architecture is not legal."""
    high, wide = (img_size, img_size) if isinstance(img_size, int) else img_size
    if high != wide:
        raise InputError(f"img_size: architectures have square images, got {high}x{wide}")
    arch = dataclasses.replace(cfg, image_size=high, in_channels=in_chans, num_classes=num_classes or cfg.num_classes)
    model = build(arch, drop_path=drop_path_rate)
    model.reset_classifier(num_classes, global_pool)
    if drop_rate:
        model.head.drop = nn.Dropout(drop_rate)
    return model.to(device=device, dtype=dtype)


def _filter(weights: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    return fit_tables(weights, model.state_dict())


def _named(size: str) -> Callable[..., nn.Module]:
    def make(pretrained: bool = False, **options: Any) -> nn.Module:
        return _create(make.__name__, named_arch(size), pretrained, options)

    make.__name__ = make.__qualname__ = _name(size)
    make.__doc__ = f"{size} as the paper has it."
    return make


def _name(size: str) -> str:
    return size.replace("coatnet-", "coatnet_search_").replace("-", "_")


_SIZES = [*FAMILY, *(size + DEPTHWISE for size in FAMILY)]
default_cfgs = {_name(size): timm_cfg(named_arch(size)) for size in _SIZES}  # where timm looks for them
__all__ = ["coatnet_search", "from_timm"]
register_model(coatnet_search)
for _size in _SIZES:
    register_model(_named(_size))
