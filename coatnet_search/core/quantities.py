"""What is known of each metric: title, unit, which way is better, how a person reads it. No vendors."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Sense = Literal["min", "max"]


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """``form``: ``percent`` (a fraction in files), ``count`` (k, M, G on screens) or ``plain``; ``unit`` follows it."""

    title: str
    sense: Sense
    form: Literal["percent", "count", "plain"] = "plain"
    unit: str = ""


QUANTITIES: dict[str, Quantity] = {
    "val_top1": Quantity(title="validation accuracy", sense="max", form="percent"),
    "val_top5": Quantity(title="validation top-5 accuracy", sense="max", form="percent"),
    "val_balanced_accuracy": Quantity(title="validation balanced accuracy", sense="max", form="percent"),
    "train_top1": Quantity(title="training accuracy", sense="max", form="percent"),
    "error": Quantity(title="validation error", sense="min", form="percent"),
    "generalisation_gap": Quantity(title="training minus validation accuracy", sense="min", form="percent"),
    "val_loss": Quantity(title="validation loss", sense="min"),
    "predicted_error": Quantity(title="predicted error", sense="min", form="percent"),
    "p_best": Quantity(title="P(best)", sense="max", form="percent"),
    "expected_regret": Quantity(title="expected regret", sense="min", form="percent"),
    "train_loss": Quantity(title="training loss", sense="min"),
    "macs": Quantity(title="multiply-adds", sense="min", form="count"),
    "params": Quantity(title="parameters", sense="min", form="count"),
    "activations": Quantity(title="activations", sense="min", form="count"),
    "throughput_images_per_s": Quantity(title="throughput", sense="max", unit="images/s"),
    "train_images_per_s": Quantity(title="training throughput", sense="max", unit="images/s"),
    "latency_ms": Quantity(title="latency", sense="min", unit="ms"),
    "latency_p95_ms": Quantity(title="latency, 95th percentile", sense="min", unit="ms"),
    "peak_memory_mib": Quantity(title="peak memory", sense="min", unit="MiB"),
}
TRAINING = 3  # a training step costs about three forward passes: one forward, two backward
COSTS = ("macs", "params", "activations", "throughput_images_per_s", "latency_ms", "peak_memory_mib")
_PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def quantity(name: str) -> Quantity:
    """What is known of a name; a name that a user's trainer added is a plain number whose smaller values are better."""
    known = QUANTITIES.get(name.removesuffix("_spread"))
    return known or Quantity(title=name.replace("_", " "), sense="min")


def sign(sense: Sense) -> float:
    """1 where less is better, -1 where more is: a value times it is a loss, the less the better."""
    return 1.0 if sense == "min" else -1.0


def quality(objectives: Mapping[str, Sense]) -> str:
    """The objective that tells how good a network is: the first that is not a cost, else the first."""
    return next((name for name in objectives if name not in COSTS), next(iter(objectives)))


def sense_of(name: str, objectives: Mapping[str, Sense]) -> Sense:
    """Which way is better: as the study's objectives say, else as the quantity is known."""
    return objectives.get(name) or quantity(name).sense


def heading(name: str) -> str:
    """The title of a table's column: ``throughput (images/s)``, ``validation error`` (its cells say %)."""
    known = quantity(name)
    return f"{known.title} ({known.unit})" if known.unit else known.title


def axis_title(name: str) -> str:
    """The title of an axis: ``validation error (%)``, ``throughput (images/s)``, ``multiply-adds``."""
    return f"{quantity(name).title} (%)" if quantity(name).form == "percent" else heading(name)


def scale(name: str) -> float:
    """What a figure multiplies a value by before it is drawn: 100 for fractions, else 1."""
    return 100.0 if quantity(name).form == "percent" else 1.0


def show(name: str, value: Any, *, unit: bool = True) -> str:
    """A number as a person reads it: ``94.4 %``, ``1.23 M``, ``1,234 images/s``; a missing one is a dash.

    Without ``unit`` the unit of a plain number is left to the heading (``heading``).
    """
    if value is None or isinstance(value, str):
        return value or "–"
    number = float(value)
    if not math.isfinite(number):
        return "–"
    known = quantity(name)
    if known.form == "percent":
        return f"{100 * number:.1f} %"
    if known.form == "count":
        return _prefixed(number)
    text = f"{number:,.0f}" if abs(number) >= 1000 else f"{number:#.4g}"
    return f"{text} {known.unit}".rstrip() if unit else text


def show_difference(name: str, value: float) -> str:
    """The size of a difference in three digits: points for percentages, else with its unit."""
    known = quantity(name)
    if known.form == "percent":
        return f"{abs(100 * value):.1f} points"
    return _prefixed(abs(value)) if known.form == "count" else f"{abs(value):.3g} {known.unit}".rstrip()


def never_recognised(count: int, of: int, names: Sequence[str]) -> str:
    """``3 of 10 classes are never recognised: a, b, c``; ``names`` may be the first few of them."""
    shown = ", ".join(names[:10])
    more = f" and {count - len(names[:10]):,} more" if count > len(names[:10]) else ""
    return f"{count:,} of {of:,} classes {'is' if count == 1 else 'are'} never recognised: {shown}{more}"


def _prefixed(number: float) -> str:
    for size, letter in _PREFIXES:
        if abs(number) >= size * 0.9995:  # 999,600 reads 1 M, not 1e+03 k
            return f"{number / size:.3g} {letter}"
    return f"{number:.4g}"
