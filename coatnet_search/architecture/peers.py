"""Networks of timm as peers of ours: built for a study's data, counted, with weights that are on this machine."""

import functools
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import timm
import torch
from huggingface_hub import try_to_load_from_cache
from timm.models import load_state_dict
from torch import Tensor, nn

from coatnet_search.architecture.arch import Arch
from coatnet_search.architecture.blocks.common import sampled_first
from coatnet_search.architecture.cost import Count, count_module
from coatnet_search.architecture.peer_spec import PeerSpec
from coatnet_search.architecture.tensor_files import read_file
from coatnet_search.architecture.timm_names import check_name, create_by_name
from coatnet_search.architecture.trained_weights import Start, load_trained, named, without_prefixes
from coatnet_search.core.canonical import Scalar
from coatnet_search.core.errors import InputError, SetupError

TIMM = "timm:"
HUB_FILES = ("model.safetensors", "pytorch_model.bin")


@dataclass(frozen=True, kw_only=True)
class Peer:
    """One network of timm for given data. ``shape``: an architecture without stages that has its image size, channels
    and classes. ``weights``: the file to fine-tune from, None: from scratch."""

    label: str
    name: str
    evaluate: str
    shape: Arch
    weights: Path | None = None
    recipe: tuple[tuple[str, Scalar], ...] = field(default=())

    @functools.cached_property
    def count(self) -> Count:
        """Parameters, multiply-adds of convolutions, linear layers and attention products (also of fused attention:
        torch's counter on the meta device, halved), activations. Raises InputError where it cannot be counted."""
        try:
            return count_module(lambda: self.build(weights=False), self.shape.in_channels, self.shape.image_size)
        except (RuntimeError, AssertionError, ValueError) as error:
            side = self.shape.image_size
            raise InputError(f"{self.label}: does not work at {side} pixels: {str(error).splitlines()[0]}") from None

    @functools.cached_property
    def digest(self) -> str:
        """What it starts from: ``scratch``, or 16 hex digits of the SHA-256 of its file of weights."""
        if self.weights is None:
            return "scratch"
        with open(self.weights, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]

    def build(self, *, drop_path: float = 0.0, weights: bool = True) -> nn.Module:
        """The network of ``started`` alone; without ``weights`` as it is before they are loaded."""
        return self.started(drop_path=drop_path)[0] if weights and self.weights else self._fresh(drop_path)

    def started(self, *, drop_path: float = 0.0) -> tuple[nn.Module, Start | None]:
        """The network, (B, C, S, S) -> (B, num_classes), with its weights where it has some (see ``load_timm``), and
        what was loaded. Random weights draw from torch's global generator.

        Raises InputError for weights of another network, and for stochastic depth where it has none.
        """
        model = self._fresh(drop_path)
        if self.weights is None:
            return model, None
        try:
            return model, load_timm(self.name, model, self.shape, read_weights(self.weights))
        except InputError as error:
            raise InputError(f"{self.label}: {self.weights}: {error}") from None

    def _fresh(self, drop_path: float) -> nn.Module:
        options: dict[str, Any] = {"drop_path_rate": drop_path} if drop_path else {}
        try:
            return create(self.name, self.shape.image_size, num_classes=self.shape.num_classes,
                          in_chans=self.shape.in_channels, **options)  # fmt: skip
        except TypeError as error:
            if drop_path and "drop_path_rate" in str(error):
                raise InputError(f"{self.label}: has no stochastic depth; set drop_path: 0 in its recipe") from None
            raise


def create(name: str, image_size: int, **options: Any) -> nn.Module:
    """timm's network for images of this size, whether or not its size is fixed when it is built."""
    try:
        return sampled_first(create_by_name(name, img_size=image_size, **options))
    except TypeError as error:
        if "img_size" not in str(error):
            raise
        return sampled_first(create_by_name(name, **options))  # a network that takes any size has no such option


def load_timm(name: str, model: nn.Module, shape: Arch, weights: Mapping[str, Tensor]) -> Start:
    """Loads weights into a network of timm, freshly built for ``shape``: those of timm, or of a file in a form that
    timm's own loader knows for this network. Raises InputError where they do not fit.
    """
    plain = without_prefixes(weights, model.state_dict())
    found = _by_timm(name, model, shape, plain)
    return load_trained(model, plain if found is None else found, given=plain)


def _by_timm(name: str, model: nn.Module, shape: Arch, weights: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """What timm's own loader makes of a file's tensors (names of other code, tables of another image size), with the
    file's classes and channels; None where it finds them to be another network's."""
    own, cfg = model.state_dict(), dict(model.pretrained_cfg)  # type: ignore[arg-type]
    first = [f"{module}.weight" for module in named(cfg, "first_conv")]
    as_here = any(key in weights and key in own and weights[key].shape == own[key].shape for key in first)
    channels = shape.in_channels if as_here else cfg["input_size"][0] if cfg.get("input_size") else 3
    for classes, tensors in _with_heads(own, cfg, weights, shape.num_classes):
        overlay = {"state_dict": tensors, "num_classes": classes, "label_offset": 0, "custom_load": False,
                   "input_size": (channels, shape.image_size, shape.image_size)}  # fmt: skip
        try:
            loaded = _loaded(name, shape.image_size, num_classes=classes, in_chans=channels, overlay=overlay)
        except Exception:  # timm's filters meet files that they were not written for; any error says so
            continue
        return {key: value for key, value in loaded.items() if key in weights or key not in tensors}
    return None


def _with_heads(
    own: Mapping[str, Tensor], cfg: Mapping[str, Any], weights: Mapping[str, Tensor], classes: int
) -> Iterator[tuple[int, dict[str, Tensor]]]:
    """For how many classes the file may be, and its tensors; where it has no head, also with one lent to it."""
    heads = [f"{module}." for module in named(cfg, "classifier")]
    told = [weights[f"{head}weight"].shape[0] for head in heads if f"{head}weight" in weights]
    yield told[0] if told else int(cfg.get("num_classes") or 0), dict(weights)
    if not told:
        lent = {key: value for key, value in own.items() if any(key.startswith(head) for head in heads)}
        yield classes, {**weights, **lent}


def _loaded(name: str, image_size: int, *, overlay: dict[str, Any], **options: Any) -> dict[str, Tensor]:
    """The tensors of a network that timm has loaded strictly; where it does not offer to, those that the file names."""
    options |= {"pretrained": True, "pretrained_cfg_overlay": overlay}
    with torch.random.fork_rng(devices=[]):
        try:
            return create(name, image_size, pretrained_strict=True, **options).state_dict()
        except TypeError as error:
            if "pretrained_strict" not in str(error):
                raise
        found = create(name, image_size, **options).state_dict()
    return {key: value for key, value in found.items() if key in overlay["state_dict"]}


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a file of weights: safetensors, or what timm has put into the hub's cache (never unpickled as
    more than tensors). Raises InputError where it cannot be read."""
    if path.suffix == ".safetensors":
        return read_file(path)[0]
    try:
        return dict(load_state_dict(str(path), weights_only=True))
    except Exception as error:
        raise InputError(f"{path}: not a file of weights: {str(error).splitlines()[0][:200]}") from None


def native_size(name: str) -> int:
    """The side in pixels that a network of timm has by itself; 224 where it says nothing."""
    check_name(name)
    default = timm.get_pretrained_cfg(name)
    return int(default.input_size[-1]) if default and default.input_size else 224


def make_peer(spec: PeerSpec, image_size: int, in_channels: int, num_classes: int) -> Peer:
    """A study's peer for its data. Raises SetupError where the weights that it asks for are not here."""
    weights = _weights(spec) if spec.evaluate == "fine-tuned" else None
    shape = Arch(image_size=spec.image_size or image_size, in_channels=in_channels, num_classes=num_classes)
    return Peer(label=label(spec), name=spec.timm, evaluate=spec.evaluate, shape=shape, weights=weights,
                recipe=tuple((key, value) for key, value in spec.recipe.items()
                             if not isinstance(value, tuple)))  # fmt: skip


def label(spec: PeerSpec) -> str:
    """How tables and figures name it: ``timm:resnet18``, ``timm:resnet18 fine-tuned``, ``timm:resnet18 at 64``."""
    words = [f"{TIMM}{spec.timm}"]
    if spec.image_size:
        words.append(f"at {spec.image_size}")
    if spec.evaluate != "trained":
        words.append(spec.evaluate)
    return " ".join(words)


def _weights(spec: PeerSpec) -> Path:
    if spec.weights:
        path = Path(spec.weights)
        if not path.is_file():
            raise SetupError(f"peer {spec.timm}: no such file of weights: {path}")
        if path.suffix != ".safetensors":
            raise InputError(f"peer {spec.timm}: expected weights in a .safetensors file, got {path.name}")
        return path
    default = timm.get_pretrained_cfg(spec.timm)
    hub = default.hf_hub_id if default else None
    if not hub:
        raise InputError(f"peer {spec.timm}: timm has no weights for it; name a file (weights: FILE.safetensors)")
    for file in HUB_FILES:
        found = try_to_load_from_cache(hub, file)
        if isinstance(found, str):
            return Path(found)
    raise SetupError(
        f"peer {spec.timm}: its weights are not on this machine and nothing is downloaded; fetch them by "
        f'`python -c "import timm; timm.create_model({spec.timm!r}, pretrained=True)"`, or name a file (weights:)'
    )
