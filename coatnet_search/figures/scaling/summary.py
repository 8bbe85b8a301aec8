"""What a scaling study answers, as plain values: the page and ``report --json`` show these numbers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import pandas as pd

from coatnet_search.analysis.scaling import Scaling, fit_scaling
from coatnet_search.analysis.scaling_runs import settings
from coatnet_search.core.errors import InputError
from coatnet_search.core.quantities import show
from coatnet_search.figures.scaling import marks
from coatnet_search.figures.search.summary import records

Kind = Literal["text", "percent", "points", "images", "chance", "count", "number", "gap"]


@dataclass(frozen=True)
class Column:
    """A column of a table: its key in ``Section.values``, its title, and how a person reads its values."""

    name: str
    title: str
    kind: Kind = "text"

    def show(self, value: Any) -> str:
        """``31.2 %``, ``45,000``, ``4.32 T``; a missing amount of data is one that is not in the range."""
        if value is None:
            return "not in range" if self.name == "num_images" else "–"
        if isinstance(value, bool):
            return "yes" if value else "NO"
        if self.kind == "gap":
            return f"{100 * value:.2f} points"
        formats = {"text": "{}", "percent": "{:.2%}", "points": "{:.2g}", "images": "{:,.0f}", "chance": "{:.2f}",
                   "number": "{:.3g}"}  # fmt: skip
        return show("macs", value) if self.kind == "count" else formats[self.kind].format(value).replace("%", " %")


_PREDICTED = (Column("error", "predicted error", "percent"), Column("low", "5 %", "percent"),
              Column("high", "95 %", "percent"))  # fmt: skip
_IMAGES = Column("num_images", "images", "images")
_MEASURED = Column("error", "measured error", "percent")
_ARM = Column("arm", "arm")
TABLES = {
    "answers": (
        _ARM, *_PREDICTED, Column("p_best", "P(best)", "chance"),
        Column("expected_regret", "expected regret", "gap"),
        Column("macs", "multiply-adds", "count"), Column("params", "parameters", "count"),
        Column("training_macs", "multiply-adds of training", "count"),
    ),
    "crossovers": (
        Column("first", "first"), Column("second", "second"), Column("num_images", "images (median)", "images"),
        Column("low", "5 %", "images"), Column("high", "95 %", "images"),
        Column("not_in_range", "P(not in range)", "chance"),
        Column("p_first_always", "P(first always better)", "chance"),
        Column("p_second_always", "P(second always better)", "chance"),
    ),
    "frontier": (Column("training_macs", "budget (multiply-adds of training)", "count"), _ARM, *_PREDICTED),
    "held_out": (_ARM, _IMAGES, _MEASURED, Column("predicted", "predicted error", "percent"), *_PREDICTED[1:],
                 Column("inside", "inside")),
    "noise": (_IMAGES, Column("error", "mean error", "percent"), Column("runs", "runs", "images"),
              Column("seed_sd", "between seeds", "gap"), Column("binomial_sd", "validation images", "gap")),
    "instances": (_ARM, Column("instances", "instances", "images"), Column("log_sd", "in the log", "number"),
                  Column("points", "points of error", "points")),
    "too_short": (_ARM, _IMAGES, _MEASURED, Column("doubled_error", "with twice the epochs", "percent"),
                  Column("standard_error", "standard error", "gap")),
    "tuning": (_ARM, _IMAGES, Column("key", "key"), Column("value", "best value", "number"),
               Column("error", "error with it", "percent"), Column("own", "recipe's value", "number"),
               Column("own_error", "error with that", "percent"), Column("edge", "inside its range")),
    "missing": (_ARM, _IMAGES, Column("state", "state"), Column("runs", "runs", "images")),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Section:
    """The page's section: ``values`` ready for JSON; ``scaling`` is None where no fit could be made, and
    ``values["refused"]`` says why. ``target``: the amount of data of the first answers."""

    values: dict[str, Any]
    scaling: Scaling | None = field(default=None, repr=False)
    target: float = 0.0


def is_scaling(frame: pd.DataFrame, study: Mapping[str, Any]) -> bool:
    """Whether a study asks for more than one amount of data: a scaling study, or runs from elsewhere that have them."""
    if study.get("equal_cost"):
        return True
    return bool(study.get("imported")) and "num_images" in frame.columns and frame["num_images"].nunique() > 1


def scaling_section(
    frame: pd.DataFrame, study: Mapping[str, Any], num_val: int | None = None, *, up_to: float | None = None
) -> Section | None:
    """The answers of a scaling study's record, None of any other. ``up_to``: the fit sees regimes of at most so many
    images, the larger ones are held out and predicted. Raises InputError for ``up_to`` where there is nothing to fit.

    Keys of ``values``: settings, refused (why there is no fit, else None), num_images (what was fitted), reach,
    verdicts (sentences), answers (an amount of data and its arms), crossovers, frontier, noise, instances, held_out,
    too_short, tuning, missing (with what never ran), warnings.
    """
    if not is_scaling(frame, study):
        if up_to is not None:
            raise InputError("--up-to is for scaling studies; this study has one amount of data")
        return None
    try:
        scaling = fit_scaling(frame, up_to=up_to, num_val=num_val)
    except InputError as error:
        if up_to is not None:
            raise
        return Section(values={"settings": settings(study), "refused": str(error)})
    largest = float(min(scaling.num_images[-1], scaling.reach))
    return Section(values=_values(scaling, study, largest), scaling=scaling, target=largest)


def _values(scaling: Scaling, study: Mapping[str, Any], largest: float) -> dict[str, Any]:
    targets = list(dict.fromkeys([largest, scaling.reach]))
    return {
        "settings": settings(study),
        "refused": None,
        "num_images": scaling.num_images,
        "reach": scaling.reach,
        "verdicts": [scaling.conclusion(target) for target in targets],
        "answers": [{"num_images": target, "arms": records(scaling.at(target))} for target in targets],
        "crossovers": records(scaling.crossovers()),
        "frontier": _frontier(scaling, largest),
        "noise": records(scaling.noise),
        "instances": records(scaling.instances),
        "held_out": records(scaling.check()),
        "too_short": records(scaling.too_short),
        "tuning": _tuning(scaling, study),
        "missing": records(marks.lost(scaling)[["arm", "num_images", "state", "runs"]]),
        "warnings": scaling.warnings,
    }


def _tuning(scaling: Scaling, study: Mapping[str, Any]) -> list[dict[str, Any]]:
    table = scaling.tuning(study)
    return records(table.assign(edge=~table["on_edge"].astype(bool)).drop(columns=["on_edge", "tried"]))


def _frontier(scaling: Scaling, target: float) -> list[dict[str, Any]]:
    """The arms that are best for a budget, the smallest budget first; errors are fractions, as in the answers."""
    names = ["arm", "training_macs", "error", "low", "high"]
    table = scaling.at(target).set_index("arm", drop=False)
    steps = marks.frontier(scaling, target)
    return records(table.loc[steps["arm"][steps["best"]], names])
