"""A trained network as a folder that travels: ``model.safetensors``, and ``config.json`` that timm loads too.

``timm.create_model("local-dir:FOLDER", pretrained=True)`` works once ``coatnet_search.architecture.timm_bridge`` is
imported (for
networks of timm without that). Shapes: B images, C channels, S the side in pixels that the network sees, K classes.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from coatnet_search.architecture.arch import Arch
from coatnet_search.architecture.build import build, timm_cfg
from coatnet_search.architecture.tensor_files import read_file
from coatnet_search.architecture.timm_names import check_name
from coatnet_search.core.errors import InputError, SetupError
from coatnet_search.core.whole_file import write_text
from coatnet_search.data.augmentation import centre
from coatnet_search.data.batches import Data
from coatnet_search.data.decode import Reading, open_image, square, to_array
from coatnet_search.full.networks import Network

WEIGHTS, CONFIG = "model.safetensors", "config.json"
OURS = "coatnet_search"  # the name of our networks in timm, and the key of what timm has no word for


@dataclass(frozen=True, kw_only=True)
class Sight:
    """How a network wants to see an image: its central square resized to ``stored``, the middle ``shown`` of these
    pixels cut out and resized to ``image_size``, normalised by ``mean`` and ``std`` (of 0..255, a channel each).

    ``value_range`` and ``background``: see ``Reading``. A folder that was written before these has neither: what is
    transparent is not laid on a ground there, as in its training, and images of more than 8 bits a value are refused.
    """

    stored: int
    shown: int
    image_size: int
    in_channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    value_range: tuple[float, float] | None = None
    background: int | None = None

    @classmethod
    def of(cls, data: Data, image_size: int, centre_crop: bool = True) -> "Sight":
        """That of a data set's own validation images."""
        stored, shown = data.images.sides(image_size)
        if data.images.streamed and not centre_crop:
            stored = image_size
        return cls(stored=stored, shown=shown if centre_crop else stored, image_size=image_size,
                   in_channels=data.in_channels, mean=data.mean, std=data.std,
                   value_range=data.reading.value_range if data.reading else None,
                   background=data.reading.background if data.reading else None)  # fmt: skip

    def pixels(self, content: bytes) -> Tensor:
        """The bytes of an image file as uint8 (C, stored, stored). Raises what Pillow raises of damaged files."""
        reading = Reading(channels=self.in_channels, value_range=self.value_range, background=self.background)
        return torch.from_numpy(to_array(square(open_image(content, reading), self.stored)).copy())

    def batch(self, pixels: Tensor) -> Tensor:
        """uint8 (B, C, stored, stored) -> what the network takes, float (B, C, S, S)."""
        images = centre(pixels, self.shown, self.image_size)
        scale = (1 / torch.tensor(self.std)).view(-1, 1, 1)
        offset = -torch.tensor(self.mean).view(-1, 1, 1) * scale
        return torch.addcmul(offset.to(images.device), images, scale.to(images.device))


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """A trained network, ready to be asked. ``about``: where it comes from, as ``result.json`` has it."""

    model: nn.Module
    network: Network
    sight: Sight
    class_names: tuple[str, ...]
    loss: str
    about: Mapping[str, Any]


def config(network: Network, sight: Sight, class_names: Sequence[str], loss: str, about: Mapping[str, Any]) -> Any:
    """What ``config.json`` holds: timm's own keys, and under ``coatnet_search`` what timm has no word for."""
    shape = network.shape
    if network.timm is None:
        architecture, args = OURS, dict[str, Any](arch=shape.to_dict())
    else:
        architecture = network.timm
        args = {"num_classes": shape.num_classes, "in_chans": shape.in_channels}
    cfg = {
        **(timm_cfg(shape) if network.timm is None else _cfg_of_timm(network.timm)),
        "architecture": architecture, "num_classes": shape.num_classes,
        "input_size": [sight.in_channels, sight.image_size, sight.image_size],
        "mean": [value / 255 for value in sight.mean], "std": [value / 255 for value in sight.std],
        "crop_pct": sight.shown / sight.stored, "interpolation": "bilinear",
    }  # fmt: skip
    return {
        "architecture": architecture, "num_classes": shape.num_classes, "label_names": list(class_names),
        "model_args": args, "pretrained_cfg": cfg,
        OURS: {"schema": 1, "name": network.name, "sight": dataclasses.asdict(sight), "loss": loss,
               "about": dict(about)},
    }  # fmt: skip


def _cfg_of_timm(name: str) -> dict[str, Any]:
    """What timm needs to build one of its own networks at another size and with another head."""
    default = timm.get_pretrained_cfg(name)
    known = default.to_dict() if default else {}
    return {key: known[key] for key in ("fixed_input_size", "first_conv", "classifier") if key in known}


def write_bundle(
    folder: Path, network: Network, model: nn.Module, sight: Sight, class_names: Sequence[str], loss: str,
    about: Mapping[str, Any],
) -> None:  # fmt: skip
    """Writes both files; older ones stay until the new are whole."""
    folder.mkdir(parents=True, exist_ok=True)
    network.save(model, folder / WEIGHTS)
    write_json(folder / CONFIG, config(network, sight, class_names, loss, about))


def write_json(path: Path, value: Any) -> None:
    """``value`` as readable JSON, whole or not at all."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_bundle(folder: Path) -> Bundle:
    """The network of a folder of ``train`` or ``export``, in eval mode on the CPU.

    Raises SetupError where the files are not there, InputError where they are not whole or do not belong together.
    """
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise SetupError(f"{folder / name} is not there; give a folder that `train` or `export` has written")
    try:
        found = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        ours = found[OURS]
        lists = {key: tuple(value) for key, value in ours["sight"].items() if isinstance(value, list)}
        sight = Sight(**{**ours["sight"], **lists})
        names = tuple(str(name) for name in found["label_names"])
        network, loss, about = _network(found, sight, len(names)), ours["loss"], ours["about"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{folder / CONFIG}: not a file of `train` or `export`: {error}") from None
    tensors, _ = read_file(folder / WEIGHTS)
    try:
        if network.timm is None:
            model: nn.Module = build(network.shape, tensors)
        else:
            model = network.build(0)
            model.load_state_dict(tensors)
    except (InputError, RuntimeError) as error:
        raise InputError(f"{folder}: {CONFIG} and {WEIGHTS} do not belong together: {str(error)[:200]}") from None
    return Bundle(model=model.eval(), network=network, sight=sight, class_names=names, loss=loss, about=about)


def _network(found: Mapping[str, Any], sight: Sight, classes: int) -> Network:
    name = found[OURS]["name"]
    if found["architecture"] == OURS:
        return Network(name=name, shape=Arch.from_dict(found["model_args"]["arch"]))
    check_name(found["architecture"])
    shape = Arch(image_size=sight.image_size, in_channels=sight.in_channels, num_classes=classes)
    return Network(name=name, shape=shape, timm=found["architecture"])
