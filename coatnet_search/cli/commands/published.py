"""``published [STUDY_OR_RUN]``: results that were printed elsewhere, and ours beside them."""

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from coatnet_search.analysis import against_published as beside
from coatnet_search.analysis.against_published import Order, Result
from coatnet_search.cli.commands.records import run_record
from coatnet_search.core import bundled
from coatnet_search.core.errors import InputError
from coatnet_search.core.quantities import heading, quantity
from coatnet_search.core.screen import Screen
from coatnet_search.study.load import load_study

CHOICES = {"choice": "choice", "metric": "metric", "printed": "printed"}
OURS = {"ours": "ours (mean)", "sd": "standard deviation", "runs": "runs", "networks": "networks"}
ORDERS = {"better": "printed as better", "worse": "than", "metric": "in", "printed": "by", "ours": "ours",
          "interval": "95 % interval", "verdict": "order"}  # fmt: skip


def main(given: argparse.Namespace) -> int:
    screen = Screen(given.json, given.results)
    if given.study is None:
        return _list(screen)
    path = Path(given.study)
    ran = path.is_dir() or (len(path.parts) > 1 and path.suffix not in (".yaml", ".yml"))
    frame, study = run_record(path) if ran else (None, load_study(given.study).values())
    found = beside.unrun(study) if frame is None else beside.results(frame, study)
    pairs = beside.orders(found)
    screen.result({**_values(study, found), "orders": [_json_row(pair) for pair in pairs]})
    screen.say(str(study["question"]))
    screen.table(CHOICES | OURS if ran else CHOICES, [_choice(one) for one in found])
    if ran and pairs:
        screen.say()
        screen.table(ORDERS, [_pair(pair) for pair in pairs])
    for text in beside.notes(found):
        screen.say(f"note: {text}")
    if not ran:
        screen.next(["plan", given.study], "what the study will cost")
    return 0


def _list(screen: Screen) -> int:
    """The bundled studies that have published results."""
    values = [load_study(name).values() for name in bundled.names("studies")]
    studies = [(study, beside.unrun(study)) for study in values if study["published"]]
    screen.result([_values(study, found) for study, found in studies])
    for study, found in studies:
        screen.say(f"{study['name']}: {study['question']}")
        screen.table(CHOICES, [_choice(one) for one in found])
        for text in beside.notes(found):
            screen.say(f"note: {text}")
        screen.say()
    if not studies:
        raise InputError("no bundled study has published results")
    screen.next(["published", f"runs/{studies[0][0]['name']}"], "sets a run's results beside them")
    return 0


def _values(study: dict[str, Any], found: Sequence[Result]) -> dict[str, Any]:
    return {"study": study["name"], "question": study["question"], "published": [_of(one) for one in found]}


def _of(one: Result) -> dict[str, Any]:
    values = dataclasses.asdict(one)
    del values["units"]
    return {"choice": one.choice, **values}


def _json_row(pair: Order) -> dict[str, Any]:
    return {**dataclasses.asdict(pair), "verdict": pair.agreement}


def _choice(one: Result) -> dict[str, Any]:
    printed = _number(one.metric, one.value) if one.rank is None else f"place {one.rank}"
    return {"choice": one.choice, "metric": heading(one.metric), "printed": printed,
            "ours": _number(one.metric, one.ours), "sd": _difference(one.metric, one.sd, sign=False),
            "runs": one.runs, "networks": one.networks}  # fmt: skip


def _pair(pair: Order) -> dict[str, Any]:
    """A row of the table of orders: what the two have in common is said once."""
    printed = "equal" if pair.equal else _difference(pair.metric, pair.printed, sign=False) or "order alone"
    known = pair.low is not None
    interval = f"{_difference(pair.metric, pair.low)} to {_difference(pair.metric, pair.high)}" if known else "–"
    return {"better": pair.better, "worse": pair.worse, "metric": heading(pair.metric), "printed": printed,
            "ours": _difference(pair.metric, pair.ours), "interval": interval, "verdict": pair.agreement}  # fmt: skip


def _number(metric: str, value: float | None) -> str | None:
    """Two decimals of a percentage, as such results are printed."""
    if value is None:
        return None
    return f"{100 * value:.2f} %" if quantity(metric).form == "percent" else f"{value:.4g}"


def _difference(metric: str, value: float | None, sign: bool = True) -> str | None:
    if value is None:
        return None
    mark = "+" if sign else ""
    return f"{100 * value:{mark}.2f} points" if quantity(metric).form == "percent" else f"{value:{mark}.3g}"
