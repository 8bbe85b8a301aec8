"""What networks cost, and how fast they are on a named device: the rows of ``profile``."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import timm
import torch
from torch import nn

from coatnet_search import evaluate
from coatnet_search.arch import Arch
from coatnet_search.build import seeded_build
from coatnet_search.cost import Count, _run, cost, macs_by_operator
from coatnet_search.device_lock import DeviceLock
from coatnet_search.errors import InputError, SetupError, unknown
from coatnet_search.lookup import TIMM, load_arch
from coatnet_search.measurements import load_measurement

MEASURED = "throughput_images_per_s"


@dataclass(frozen=True, kw_only=True)
class Subject:
    """One network to look at: ``arch`` has its image size, channels and classes; ``make`` builds it, weights random."""

    name: str
    id: str | None
    arch: Arch
    count: Count
    make: Callable[[], nn.Module]


def subject(name: str, *, image_size: int | None = None, in_channels: int | None = None,
            num_classes: int | None = None) -> Subject:  # fmt: skip
    """What ``name`` means: an architecture (see ``load_arch``) or ``timm:NAME``. Raises InputError."""
    if name.startswith(TIMM):
        return _timm(name, image_size, in_channels or 3, num_classes or 1000)
    arch = load_arch(name, image_size=image_size, in_channels=in_channels, num_classes=num_classes)
    if reasons := arch.problems():
        raise InputError(f"{name}: {reasons[0]}")
    found = cost(arch)
    return Subject(name=name, id=arch.id, arch=arch, count=Count(found.params, found.macs, found.activations),
                   make=lambda: seeded_build(arch, 0))  # fmt: skip


def _timm(name: str, image_size: int | None, in_channels: int, num_classes: int) -> Subject:
    known = name.removeprefix(TIMM)
    if not timm.is_model(known):
        raise InputError(
            unknown("timm network", known, timm.list_models(f"*{known[:4]}*") or timm.list_models("coat*"))
        )
    default = timm.get_pretrained_cfg(known)
    side = image_size or (default.input_size[-1] if default and default.input_size else 224)

    def make() -> nn.Module:
        options: dict[str, Any] = {"num_classes": num_classes, "in_chans": in_channels}
        try:
            return timm.create_model(known, img_size=side, **options)
        except TypeError:  # a network that takes any image size has no such option
            return timm.create_model(known, **options)

    try:
        count = _run(make, in_channels, side)
    except (RuntimeError, AssertionError, ValueError) as error:
        raise InputError(f"{name}: cannot be counted at {side} pixels: {str(error).splitlines()[0]}") from None
    arch = Arch(image_size=side, in_channels=in_channels, num_classes=num_classes)
    return Subject(name=name, id=None, arch=arch, count=count, make=make)


def rows(subjects: list[Subject], device: str | None = None, counter: str = "torch") -> Iterator[dict[str, Any]]:
    """A row a network: name, id, image_size, params, macs, activations; with a device its throughput, the spread of
    that and the conditions. ``counter``: who counts macs, torch or fvcore (architectures only, on the CPU).

    Raises InputError for a network that the counter does not take, SetupError for a device that is not here.
    """
    place = _device(device) if device else None
    for one in subjects:
        row: dict[str, Any] = {"name": one.name, "id": one.id, "image_size": one.arch.image_size}
        row |= one.count._asdict()
        if counter != "torch":
            if one.id is None:
                raise InputError(f"{one.name}: --counter {counter} counts this package's architectures alone")
            row |= {"macs": sum(macs_by_operator(one.arch, counter).values()), "counter": counter}
        if place:
            row |= _measured(one, place)
        yield row


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"--device: expected cpu, cuda or cuda:N, got {name!r}") from None
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"--device: expected cpu, cuda or cuda:N, got {name!r}")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise SetupError(f"--device {name}: torch sees {torch.cuda.device_count()} GPUs here")
    return device


def _measured(one: Subject, device: torch.device) -> dict[str, Any]:
    throughput = load_measurement("throughput")
    model = one.make().to(device)
    with DeviceLock(evaluate._device_id(device)).alone():
        found: dict[str, Any] = throughput.measure(model, one.arch, device)
    conditions = {
        "device": evaluate.describe(device),
        "batch_size": throughput.BATCH_SIZE[device.type],
        "precision": "float32",
    }
    return {**found, "conditions": conditions}
