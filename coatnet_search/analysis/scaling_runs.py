"""The runs of a scaling study as rows, and what every answer must say of how they were made."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from coatnet_search.analysis.frame import complete, numbers
from coatnet_search.core.errors import InputError
from coatnet_search.record.trial import TUNE

ALIKE = 1.1  # amounts of training within this factor are taken for equal
COLUMNS = ("number", "arm", "layout", "size", "instance", "peer", "num_images", "epochs", "seed", "draw", "error",
           "train_loss", "train_top1", "val_top1", "params", "macs", "state", "doubled", "tune", "arch_id")  # fmt: skip


def scaling_runs(frame: pd.DataFrame) -> pd.DataFrame:
    """A row a planned run, in order of number, of whatever state: the columns of ``COLUMNS``. ``arm`` is the layout
    (with its size where there are several), or a network of timm; ``num_images`` of a run on all images must be known.

    Raises InputError where a record is no scaling study's: its trials share one amount of data.
    """
    rows = complete(frame)
    known = [value if isinstance(value, Mapping) else {} for value in rows["attributes"]]
    table = pd.DataFrame({name: rows[name] for name in COLUMNS if name in rows.columns})
    table["peer"] = [one.get("peer") is not None for one in known]
    table["layout"] = [str(one.get("layout") or one.get("peer") or row) for one, row in
                       zip(known, rows["layout"], strict=True)]  # fmt: skip
    table["size"] = [float(one.get("size", 1.0)) for one in known]
    table["instance"] = [int(one.get("instance", 1)) for one in known]
    table["doubled"] = [bool(one.get("doubled", False)) for one in known]
    table["tune"] = [one.get(TUNE) for one in known]  # what a trial of a sweep replaced; None of all others
    for name in ("num_images", "epochs", "seed", "draw", "error", "train_loss", "train_top1", "params", "macs"):
        table[name] = numbers(rows, name)
    table = table[(table["num_images"].notna() & (table["epochs"] > 0)).to_numpy()].reset_index(drop=True)
    if table["num_images"].nunique() < 2:
        raise InputError("no scaling study: its trained trials share one amount of data; give the study equal_cost and "
                         "regimes (see studies/cifar10-scaling.yaml)")  # fmt: skip
    several = table.groupby("layout")["size"].transform("nunique") > 1
    suffix = [f" x{size:g}" if more else "" for size, more in zip(table["size"], several, strict=True)]
    table["arm"] = table["layout"] + suffix
    table.attrs = dict(frame.attrs)
    return table[list(COLUMNS)]


def check_schedules(runs: pd.DataFrame) -> None:
    """Raises InputError for runs of one curve and amount of data with different schedules."""
    counts = runs.groupby(["arm", "instance", "num_images"])["epochs"].nunique()
    mixed = counts[counts > 1]
    if len(mixed):
        arm, _, images = mixed.index[0]
        raise InputError(f"{arm} on {images:,.0f} images has runs of different length; a curve has one schedule for "
                         "each amount of data: use a study of its own for the other one")  # fmt: skip


def schedule_change(runs: pd.DataFrame) -> str:
    """What there is to say where some amounts of data were trained for equally many steps and others for equally many
    epochs: the curve bends where the rule changes, for no reason of the layout's. Empty where one rule holds."""
    epochs = runs.groupby("num_images")["epochs"].max()
    seen = epochs * epochs.index.to_numpy()
    pairs = list(zip(epochs.index[:-1], epochs.index[1:], strict=True))
    steps = [(small, large) for small, large in pairs if 1 / ALIKE < seen[large] / seen[small] < ALIKE]
    growing = [(small, large) for small, large in pairs if 1 / ALIKE < epochs[large] / epochs[small] < ALIKE]
    if not steps or not growing:
        return ""
    last, first = max(large for _, large in steps), min(small for small, _ in growing)
    return (f"up to {last:,.0f} images all amounts were trained for about as many steps, and from {first:,.0f} on for "
            "as many epochs: there the images seen grow too, and curves bend for no reason of the layout; predictions "
            "across it are less sure than they look")  # fmt: skip


def settings(study: Mapping[str, Any]) -> list[str]:
    """What every figure and answer of a study must say of how its points were made, as short sentences."""
    source = study.get("imported")
    if source:
        return [f"runs imported from {source['file']}: how they were trained and tuned is not on record",
                *source["assumed"]]  # fmt: skip
    recipe, regimes = study.get("recipe") or {}, study.get("regimes") or {}
    match = study.get("match", "epochs")
    words = [f"recipe {recipe.get('name', '?')}, {_tuning(study.get('tune'))}"]
    least = f", at least {regimes['min_steps']:,} steps" if regimes.get("min_steps") else ""
    words.append(f"equal {match} in all regimes{least}")
    asked = study.get("equal_cost")
    if asked:
        words.append(f"layouts within {100 * asked['tolerance']:g} % of {asked['macs']:.3g} multiply-adds at size 1")
    return words


def _tuning(tune: Mapping[str, Any] | None) -> str:
    tried = {key: values for key, values in (tune or {}).items() if values}
    if not tried:
        return "untuned: one learning rate, decay and depth for all networks"
    words = ", ".join(f"{key} (beside the recipe's: {', '.join(f'{value:g}' for value in values)})"
                      for key, values in tried.items())  # fmt: skip
    return f"tuned for each layout and amount of data, one training a value, each key alone: {words}"
