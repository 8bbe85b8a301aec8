"""Networks of timm as peers of ours: built for a study's data, counted, with weights that are on this machine."""

import functools
import hashlib
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import timm
from huggingface_hub import try_to_load_from_cache
from torch import nn

from coatnet_search.architecture.arch import Arch
from coatnet_search.architecture.blocks.common import sampled_first
from coatnet_search.architecture.cost import Count, count_module
from coatnet_search.architecture.peer_spec import PeerSpec
from coatnet_search.architecture.timm_names import check_name, create_by_name
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
        """The network, (B, C, S, S) -> (B, num_classes); with its weights where it has some, a new head where these
        have another number of classes. Random weights draw from torch's global generator.

        Raises InputError for weights of another network, and for stochastic depth where it has none.
        """
        options: dict[str, Any] = {"num_classes": self.shape.num_classes, "in_chans": self.shape.in_channels}
        if drop_path:
            options["drop_path_rate"] = drop_path
        if weights and self.weights:
            options |= {"pretrained": True, "pretrained_cfg_overlay": {"file": str(self.weights)}}
        try:
            return create(self.name, self.shape.image_size, **options)
        except TypeError as error:
            if drop_path and "drop_path_rate" in str(error):
                raise InputError(f"{self.label}: has no stochastic depth; set drop_path: 0 in its recipe") from None
            raise
        except RuntimeError as error:
            if weights and self.weights:
                raise InputError(f"{self.label}: {self.weights} holds other weights: {_mismatches(error)}") from None
            raise


def create(name: str, image_size: int, **options: Any) -> nn.Module:
    """timm's network for images of this size, whether or not its size is fixed when it is built."""
    try:
        return sampled_first(create_by_name(name, img_size=image_size, **options))
    except TypeError as error:
        if "img_size" not in str(error):
            raise
        return sampled_first(create_by_name(name, **options))  # a network that takes any size has no such option


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


def _mismatches(error: RuntimeError) -> str:
    """The first three things that do not fit, of torch's long list."""
    text = str(error)
    shapes = re.findall(r"size mismatch for ([\w.]+): copying a param with shape torch.Size\(\[([\d, ]*)\]\) from "
                        r"checkpoint, the shape in current model is torch.Size\(\[([\d, ]*)\]\)", text)  # fmt: skip
    found = [f"{name} is ({has}), not ({needs})" for name, has, needs in shapes]
    for words, what in (("Missing key", "missing"), ("Unexpected key", "unknown")):
        listed = re.search(rf"{words}\(s\) in state_dict: (.*)", text)
        found += [f"{name} is {what}" for name in re.findall(r'"([^"]+)"', listed.group(1))] if listed else []
    return "; ".join(found[:3]) or next(iter(text.splitlines()), "unreadable")
