"""Arch -> exact parameters, multiply-adds and activations, each distinct block counted once by running it.

A block is counted by running it for one image on the meta device under torch's counter (halved: multiply-adds, of
convolutions, linear layers and attention products). Counts are kept in memory and in a file that is shared by all
processes; its entries are keyed by the source code of what was counted.
"""

import contextlib
import functools
import hashlib
import inspect
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import timm
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from coatnet_search.architecture.arch import Arch, Stage, Stem, check_legal
from coatnet_search.architecture.blocks import common, ends, menu
from coatnet_search.architecture.build import build, build_block, build_stem, num_parameters
from coatnet_search.core.canonical import digest
from coatnet_search.core.errors import InputError

_OPERATORS = {"convolution": "conv", "addmm": "linear", "mm": "linear", "bmm": "attention"}


class Count(NamedTuple):
    """Parameters; multiply-adds and activations for one image."""

    params: int
    macs: int
    activations: int


@dataclass(frozen=True)
class Cost:
    """``params``, ``macs`` (multiply-adds an image) and ``activations`` (numbers an image that convolutions, linear
    layers and attention products write) of a network; ``by_stage``: the same for stem, s1, s2, ..., head."""

    params: int
    macs: int
    activations: int
    parts: tuple[Count, ...] = ()

    @property
    def by_stage(self) -> dict[str, "Cost"]:
        names = ["stem", *(f"s{place}" for place in range(1, len(self.parts) - 1)), "head"]
        return {name: Cost(*part) for name, part in zip(names, self.parts, strict=True)}

    def _repr_html_(self) -> str:
        """A notebook's view: a line a part, with its share of the multiply-adds."""
        rows = {**self.by_stage, "all": self} if self.parts else {"all": self}
        cells = "".join(f"<tr><td>{name}</td><td>{one.params:,}</td><td>{one.macs:,}</td><td>{one.activations:,}</td>"
                        f"<td>{one.macs / max(self.macs, 1):.1%}</td></tr>" for name, one in rows.items())  # fmt: skip
        heads = "".join(f"<th>{name}</th>" for name in ("", "params", "macs", "activations", "share of macs"))
        return f"<table><tr>{heads}</tr>{cells}</table>"

    def as_metrics(self) -> dict[str, float]:
        return {"params": self.params, "macs": self.macs, "activations": self.activations}


def cost(arch: Arch) -> Cost:
    """The cost of an architecture at its image size. Raises InputError with the reasons where it cannot be built."""
    check_legal(arch)
    parts = [stem_count(arch.stem, arch.in_channels, arch.image_size)]
    in_width, grid = arch.stem.width, arch.image_size // arch.stem.stride
    for stage in arch.stages:
        parts.append(stage_count(stage, in_width, grid))
        in_width, grid = stage.width, grid // stage.stride
    parts.append(head_count(in_width, arch.num_classes, arch.head.hidden, grid))
    return Cost(sum(p[0] for p in parts), sum(p[1] for p in parts), sum(p[2] for p in parts), tuple(parts))


@functools.lru_cache(maxsize=1 << 16)
def stage_count(stage: Stage, in_width: int, grid: int) -> Count:
    """A whole stage; ``grid``: side of its incoming map."""
    first = _block_count(stage, in_width, stage.stride, grid)
    if stage.depth == 1:
        return first
    rest = _block_count(stage, stage.width, 1, grid // stage.stride)
    return Count(*(one + (stage.depth - 1) * more for one, more in zip(first, rest, strict=True)))


@functools.cache
def stem_count(stem: Stem, in_channels: int, image_size: int) -> Count:
    if image_size % stem.stride:
        raise InputError(f"a stem's stride of {stem.stride} does not divide an image_size of {image_size}")
    key = {"stem": vars(stem), "in_channels": in_channels, "image_size": image_size}
    return _kept(key, ends, lambda: count_module(lambda: build_stem(stem, in_channels), in_channels, image_size))


@functools.cache
def head_count(width: int, num_classes: int, hidden: bool, grid: int) -> Count:
    key = {"head": width, "num_classes": num_classes, "hidden": hidden, "grid": grid}
    return _kept(key, ends, lambda: count_module(
        lambda: ends.Classifier(width, num_classes, hidden=hidden, norm_eps=1e-5), width, grid))  # fmt: skip


def _block_count(stage: Stage, in_width: int, stride: int, grid: int) -> Count:
    if grid % stride:
        raise InputError(f"a stride of {stride} does not divide a map of side {grid}")
    key = {"block": stage.block, "options": stage.options, "width": stage.width, "in_width": in_width,
           "stride": stride, "grid": grid}  # fmt: skip
    where = inspect.getmodule(menu()[stage.block].load())
    return _kept(key, where, lambda: count_module(lambda: build_block(stage, in_width, stride, grid), in_width, grid))


def count_module(make: Callable[[], nn.Module], channels: int, side: int) -> Count:
    """A module counted by running it once on one image."""
    with torch.device("meta"), torch.no_grad():
        module, image = make().eval().requires_grad_(False), torch.empty(1, channels, side, side)
        written = _count(module, image, custom_mapping=dict.fromkeys(flop_registry, _written))
        return Count(num_parameters(module), _count(module, image) // 2, written)


def _count(module: nn.Module, image: torch.Tensor, **options: Any) -> int:
    with FlopCounterMode(display=False, **options) as counter:
        module(image)
    return int(counter.get_total_flops())


def _written(*args: Any, out_val: torch.Tensor, **kwargs: Any) -> int:
    return out_val.numel()


_written._get_raw = True  # type: ignore[attr-defined]  # the counter then hands over tensors instead of shapes


# --- the file of counts --------------------------------------------------------------------------------------------


def cache_folder() -> Path:
    """Where counts and decoded data are kept: $COATNET_SEARCH_CACHE, else ~/.cache/coatnet-search."""
    return Path(os.environ.get("COATNET_SEARCH_CACHE") or Path.home() / ".cache" / "coatnet-search")


@functools.cache
def _source(module: Any) -> str:
    """A digest of the code behind a count: a changed block is counted afresh."""
    text = inspect.getsource(module) + inspect.getsource(inspect.getmodule(count_module) or module)
    text += torch.__version__ + timm.__version__
    return hashlib.sha256((text + inspect.getsource(common)).encode()).hexdigest()[:16]


@functools.cache
def _file() -> dict[str, Count]:
    counts: dict[str, Count] = {}
    with contextlib.suppress(OSError):  # no file yet, or none that can be read: everything is counted
        for line in (cache_folder() / "costs.jsonl").read_text(errors="replace").splitlines():
            with contextlib.suppress(ValueError, TypeError):  # a line that another process did not finish
                key, params, macs, activations = json.loads(line)
                counts[key] = Count(_natural(params), _natural(macs), _natural(activations))
    return counts


def _natural(number: object) -> int:
    if type(number) is not int or number < 0:
        raise ValueError(f"not a count: {number!r}")
    return number


def _kept(key: Mapping[str, Any], module: Any, count: Callable[[], Count]) -> Count:
    name = digest({**key, "source": _source(module)}, 24)
    if name not in _file():
        _file()[name] = count()
        try:
            cache_folder().mkdir(parents=True, exist_ok=True)
            with (cache_folder() / "costs.jsonl").open("a") as file:
                file.write(json.dumps([name, *_file()[name]]) + "\n")  # one write a line: appends do not interleave
        except OSError:
            pass  # a cache folder that cannot be written costs time, never a result
    return _file()[name]


# --- cross-checks on the whole built network -----------------------------------------------------------------------


def macs_by_operator(arch: Arch, counter: str = "torch") -> dict[str, int]:
    """Multiply-adds of the whole built network by operator (conv, linear, attention), counted by ``torch`` on the meta
    device or by ``fvcore`` on the CPU (which builds the network there)."""
    if counter == "fvcore":
        return _fvcore(arch)
    with torch.device("meta"), torch.no_grad():
        model, image = build(arch).eval(), torch.empty(1, arch.in_channels, arch.image_size, arch.image_size)
        with FlopCounterMode(display=False) as run:
            model(image)
    sums = dict.fromkeys(("conv", "linear", "attention"), 0)
    for operator, flops in run.get_flop_counts()["Global"].items():
        sums[_OPERATORS.get(str(operator).rpartition(".")[2], "linear")] += flops // 2
    return sums


def _fvcore(arch: Arch) -> dict[str, int]:
    from fvcore.nn import FlopCountAnalysis  # noqa: PLC0415

    def attention(inputs: list[Any], outputs: list[Any]) -> int:
        (batch, heads, queries, size), keys = inputs[0].type().sizes(), inputs[1].type().sizes()[2]
        return int(2 * batch * heads * queries * keys * size)

    image = torch.zeros(1, arch.in_channels, arch.image_size, arch.image_size)
    analysis = FlopCountAnalysis(build(arch).eval(), image)
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    nothing = dict.fromkeys(("aten::batch_norm", "aten::layer_norm", "aten::adaptive_avg_pool2d"), lambda i, o: 0)
    analysis.set_op_handle(**{"aten::scaled_dot_product_attention": attention}, **nothing)
    found = analysis.by_operator()
    names = {"conv": "conv", "linear": "linear", "attention": "scaled_dot_product_attention"}
    return {ours: int(found.get(theirs, 0)) for ours, theirs in names.items()}
