"""Architectures -> rows of costs, and of measured speed on a named device: what ``profile`` prints."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import nn

from coatnet_search.architecture.arch import Arch
from coatnet_search.architecture.build import seeded_build
from coatnet_search.architecture.cost import Count, cost, macs_by_operator
from coatnet_search.architecture.peer_spec import PeerSpec
from coatnet_search.architecture.peers import TIMM, make_peer, native_size
from coatnet_search.architecture.timm_names import check_name
from coatnet_search.core.errors import InputError, SetupError
from coatnet_search.core.quantities import show
from coatnet_search.study.lookup import load_arch
from coatnet_search.training.device import Precision, chosen_precision, describe, device_id
from coatnet_search.training.device_lock import DeviceLock
from coatnet_search.training.measurements.by_stage import stage_times
from coatnet_search.training.measurements.conditions import Conditions, MeasurementFailed
from coatnet_search.training.measurements.repeat_until_calm import Settled, measure_calmly

MEASURED = "throughput_images_per_s"
MEMORY_FORMATS: tuple[Literal["contiguous", "channels_last"], ...] = ("contiguous", "channels_last")
PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16")
MOST_TIMED = 2e10  # multiply-adds an image; coatnet-2 at 224 pixels, some seconds on a CPU
BatchSize = int | Literal["best"] | None


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
    check_name(known)
    peer = make_peer(PeerSpec(timm=known), image_size or native_size(known), in_channels, num_classes)
    return Subject(name=name, id=None, arch=peer.shape, count=peer.count, make=peer.build)


def rows(subjects: list[Subject], device: str | None = None, counter: str = "torch",
         batch_size: BatchSize = None) -> Iterator[dict[str, Any]]:  # fmt: skip
    """A row a network: name, id, image_size, params, macs, activations; with a device its throughput, the spread of
    that, whether it was disturbed, and the conditions. ``counter``: who counts macs, torch or fvcore (architectures
    only, on the CPU).

    Raises InputError for a network that the counter does not take, SetupError for a device that is not here or too
    small.
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
            row |= _measured(one, _asked(place, batch_size))
        yield row


def _asked(place: torch.device, batch_size: BatchSize) -> Conditions:
    return Conditions(device=str(place), batch_size=batch_size, threads=torch.get_num_threads(),
                      precision=chosen_precision("auto", place))  # fmt: skip


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


def _measured(one: Subject, asked: Conditions) -> dict[str, Any]:
    model = one.make().to(asked.place)
    return _row(measure_calmly("throughput", model, one.arch, asked, _lock(asked).alone))


def _lock(asked: Conditions) -> DeviceLock:
    return DeviceLock(device_id(asked.place))


def _row(found: Settled) -> dict[str, Any]:
    named = {**found.as_attributes(), "device": describe(found.measured.conditions.place)}
    return {**found.measured.metrics, "disturbed": found.disturbed, "conditions": named}


def best_rows(subjects: list[Subject], device: str, batch_size: BatchSize = None) -> Iterator[dict[str, Any]]:
    """A row for each setting of each network on a device: every precision, folding and memory format, and for each
    precision the fastest of those compiled; ``gain`` is over the first row (none where either was disturbed), ``best``
    marks the fastest, ``note`` says why a setting has no number. A network without BatchNorms to fold is not folded.

    Raises InputError or SetupError as ``rows``, and MeasurementFailed where no setting of a network works.
    """
    place = _device(device)
    for one in subjects:
        model = one.make().to(place)
        asked = Conditions(device=str(place), batch_size=batch_size, threads=torch.get_num_threads())
        found: list[dict[str, Any]] = []
        for precision in PRECISIONS:
            eager = [_setting(model, one, setting) for setting in _settings(model, replace(asked, precision=precision))]
            known = [row for row in eager if row[MEASURED] is not None]
            if known:
                fastest = {key: max(known, key=_speed)[key] for key in ("memory_format", "fold")}
                eager.append(_setting(model, one, replace(asked, precision=precision, compile=True, **fastest)))
            found += eager
        known = [row for row in found if row[MEASURED] is not None]
        if not known:
            raise MeasurementFailed("error", f"{one.name}: {found[0]['note']}")
        best = max(known, key=_speed)
        for row in found:
            calm = not (row.get("disturbed", True) or found[0].get("disturbed", True))
            yield {"name": one.name, **row, "gain": row[MEASURED] / found[0][MEASURED] if calm else None,
                   "best": row is best}  # fmt: skip


def _speed(row: dict[str, Any]) -> float:
    return float(row[MEASURED])


def _settings(model: nn.Module, asked: Conditions) -> Iterator[Conditions]:
    """What is tried uncompiled; the plain setting first."""
    foldable = any(getattr(module, "folds", ()) for module in model.modules())
    for fold in (False, True) if foldable else (False,):
        for memory_format in MEMORY_FORMATS:
            yield replace(asked, fold=fold, memory_format=memory_format)


def _setting(model: nn.Module, one: Subject, asked: Conditions) -> dict[str, Any]:
    tried = {name: getattr(asked, name) for name in ("precision", "memory_format", "fold", "compile", "batch_size")}
    try:
        found = measure_calmly("throughput", model, one.arch, asked, _lock(asked).alone)
    except RuntimeError as error:  # an operator without this precision, no compiler, too little memory
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        return {**tried, MEASURED: None, f"{MEASURED}_spread": None, "note": reason}
    note = "disturbed" if found.disturbed else ""
    return {**tried, "batch_size": found.measured.conditions.batch_size, **_row(found), "note": note}


def timed_stages(arch: Arch) -> tuple[dict[str, float], str]:
    """Milliseconds of the parts of an architecture in one forward pass of one image (``stage_times``), on the GPU that
    is here, else on one thread of the CPU, and the device in words. No trainer of this machine is in a step meanwhile.

    Raises InputError for more than ``MOST_TIMED`` multiply-adds: those are not a matter of seconds.
    """
    whole = cost(arch).macs
    if whole > MOST_TIMED:
        raise InputError(f"{show('macs', whole)} multiply-adds an image are more than the {show('macs', MOST_TIMED)} "
                         "that are timed part by part; `coatnet-search profile` measures whole networks")  # fmt: skip
    device = "cuda" if torch.cuda.is_available() else "cpu"
    asked = Conditions(device=device, batch_size=1)
    model = seeded_build(arch, 0).to(asked.place)
    with _lock(asked).alone():
        found = stage_times(model, arch, asked)
    words = describe(asked.place) if device == "cuda" else "one thread of this machine's CPU"
    return {name: times["ms"] for name, times in found.items()}, words
