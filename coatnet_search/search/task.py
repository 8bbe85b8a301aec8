"""The messages between driver and worker: Task (what a trial is to do), Report (what it found), kinds of failure."""

import dataclasses
import math
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from coatnet_search.architecture.arch import Arch, Candidate
from coatnet_search.core.errors import InputError, SetupError
from coatnet_search.record.trial import Failure, State
from coatnet_search.search.user_code import text_of
from coatnet_search.training.budget import Budget
from coatnet_search.training.guard import Overrun
from coatnet_search.training.loop import TrainingFailed

_FRACTIONS = ("val_top1", "val_top5", "val_balanced_accuracy", "train_top1", "error")
_POSITIVE = ("throughput_images_per_s", "train_images_per_s", "latency_ms", "latency_p95_ms", "peak_memory_mib",
             "params", "macs", "activations")  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Task:
    """What one trial is asked to do."""

    number: int
    key: str
    arch: Arch
    budget: Budget
    candidate: Candidate = field(default_factory=dict)  # what the architecture is in the space
    peer: str | None = None  # the label of the study's peer that is meant; ``arch`` then is its shape alone
    until: int | None = None  # pause after so many of the budget's epochs; None: train to the end
    measured: bool = False  # the device was measured when this trial began; it goes on from its checkpoint
    alone: bool = False  # no other trial runs meanwhile: it ran out of memory on a GPU that others share
    recipe: Mapping[str, Any] = field(default_factory=dict)  # what replaces values of the study's recipe

    def to_dict(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self), "arch": self.arch.to_dict()}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> "Task":
        return cls(**{**value, "arch": Arch.from_dict(value["arch"]), "budget": Budget(**value["budget"])})


@dataclass(frozen=True, kw_only=True)
class Report:
    """An epoch's metrics, or with a ``state`` the end of the trial: its final metrics, why it failed, what it took."""

    metrics: Mapping[str, float]
    state: State | None = None
    failure: Failure | None = None
    device: str | None = None
    timings: Mapping[str, float] = field(default_factory=dict)
    attributes: Mapping[str, Any] = field(default_factory=dict)


class Fault(Exception):
    """A trial's own failure, by kind."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def checked(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Metrics as floats, without those that are None. Raises Fault for what is no number, NaN, infinite, or outside
    what the metric can be."""
    clean: dict[str, float] = {}
    at = f" in epoch {text_of(metrics['epoch'])}" if "epoch" in metrics else ""
    for key, value in metrics.items():
        if value is None:  # not known
            continue
        name = text_of(key)
        number = _number(name, value, at)
        if not math.isfinite(number):
            raise Fault("nan", f"{name} is {number}{at}")
        if name in _FRACTIONS and not 0 <= number <= 1:
            raise Fault("measurement", f"{name} is {number:g}{at}; it is a fraction from 0 to 1")
        if name in _POSITIVE and number <= 0:
            raise Fault("measurement", f"{name} is {number:g}{at}; it must be positive")
        clean[name] = int(number) if name == "epoch" else number
    return clean


def _number(name: str, value: Any, at: str) -> float:
    """A float from a number or a scalar of torch or numpy; a text or an array is refused by name."""
    scalar = value.item() if hasattr(value, "item") and getattr(value, "size", None) != 0 and _single(value) else value
    if isinstance(scalar, bool) or not isinstance(scalar, (int, float)):
        raise Fault("measurement", f"{name} is a {type(value).__name__}{at}, not a number")
    return float(scalar)


def _single(value: Any) -> bool:
    count = value.numel() if hasattr(value, "numel") else getattr(value, "size", 0)
    return bool(count == 1)


def finite(metrics: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if math.isfinite(value)}


def failure_of(error: BaseException) -> Failure:
    """Why a trial failed, from what it raised."""
    if isinstance(error, SystemExit):
        return Failure(kind="exit", message=f"the trainer called exit with code {text_of(error.code)}"[:500])
    kind = getattr(error, "kind", None)
    if isinstance(error, torch.OutOfMemoryError):
        kind = "out_of_memory"
    elif kind is None and isinstance(error, (InputError, SetupError)):
        kind = "bad_input"
    own = isinstance(error, (Fault, TrainingFailed, Overrun, InputError, SetupError))
    message = " ".join(text_of(error).split()) or type(error).__name__
    trace = None if own else "".join(traceback.format_exception(error))[-4000:]
    return Failure(kind=kind or "error", message=message if own else f"{type(error).__name__}: {message}"[:500],
                   traceback=trace)  # fmt: skip
