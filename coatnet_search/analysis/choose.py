"""The study's written rule -> chosen architectures, each with its reason.

The rule: of the networks whose trials are done and had the fullest budget, those that keep every limit; of these the
front over the study's objectives; of the front the best in the first objective, ties by the next objectives, then by
trial number. Where the front holds fewer than asked for, the networks behind it follow: the front of what is left, and
so on. A network is one row, whatever the number of its trainings: its values are what they, its cost and the networks
like it say that it is worth (``networks``), so that the best of many is not merely the luckiest; its trial is its best.
Different networks with equal objectives are all on the front.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import moocore
import numpy as np
import pandas as pd
import yaml

from coatnet_search.analysis.frame import BUDGET, complete, metric_names, numbers, searched
from coatnet_search.analysis.front import as_costs, comparable, join_words, ranked
from coatnet_search.analysis.networks import MEASURED, is_disturbed, networks
from coatnet_search.analysis.scaling import Scaling
from coatnet_search.core.canonical import digest
from coatnet_search.core.errors import InputError, unknown
from coatnet_search.core.quantities import QUANTITIES, Sense, quality, quantity, sense_of, show, show_difference
from coatnet_search.core.whole_file import write_text

RULE = "keep the limits, take the front, best first objective first; then the next fronts"
RULE_AT = "smallest expected regret at the amount of data asked for"


@dataclass(frozen=True, kw_only=True)
class Choice:
    """``rank`` from 1; ``row`` is the network's row (``networks``), under its best trial's number; ``front`` 1 is on
    the front, 2 the one behind it; ``objective``: what was chosen by."""

    rank: int
    row: Mapping[str, Any]
    reason: str
    front: int
    metrics: Mapping[str, float]
    objective: str = "error"


def choose(
    frame: pd.DataFrame, objectives: Mapping[str, Sense], limit: Mapping[str, float] | None = None, top: int = 3
) -> list[Choice]:
    """At most ``top`` choices by the rule above. A limit bounds costs from above and maximised metrics from below.

    Raises InputError for unknown names, and where nothing can be chosen: no trial is comparable, or none keeps the
    limits (the message names the nearest one).
    """
    limits = dict(limit or {})
    rows = comparable(frame, objectives)
    _check(frame, limits, top)
    table = networks(rows, objectives).table if len(rows) else rows
    feasible = table[(_shortfall(table, objectives, limits) <= 0) & _inside(table)]
    if feasible.empty:
        raise InputError(_nothing_to_choose(table, frame, objectives, limits))
    ordered = ranked(feasible, objectives)
    fronts = 1 + np.asarray(moocore.pareto_rank(as_costs(ordered, objectives)), dtype=np.int64)
    order = np.argsort(fronts, kind="stable")[:top]
    names = [name for name in metric_names(ordered) if name != "runs"]
    best = ordered.iloc[order[0]]
    chosen = []
    for rank, place in enumerate(order, 1):
        row, front = ordered.iloc[place], int(fronts[place])
        others = int((fronts == 1).sum()), len(feasible)
        reason = _reason(rank, row, best, front, objectives, limits, others)
        reason = reason.removesuffix(".") + _own(row, table, objectives) if rank == 1 else reason
        reason += _doubts(row, objectives, limits)
        metrics = {name: _whole_as_int(row[name]) for name in names if _known(row[name])}
        chosen.append(Choice(rank=rank, row=row.to_dict(), reason=reason, front=front, metrics=metrics,
                             objective=quality(objectives)))  # fmt: skip
    return chosen


def choose_at(
    frame: pd.DataFrame,
    scaling: Scaling,
    num_images: float,
    *,
    compute: float | None = None,
    limit: Mapping[str, float] | None = None,
    top: int = 3,
    beyond: bool = False,
) -> list[Choice]:
    """At most ``top`` arms of a scaling study (layouts at a size, networks of timm) by expected regret at an amount of
    data; of each arm the instance with the smallest error so far, as its trial on the most images.

    ``compute``: only arms whose training there takes at most so many multiply-adds; ``limit`` as in ``choose``. Raises
    InputError beyond the calibrated distance (unless ``beyond``), and where no arm keeps the limits.
    """
    limits = dict(limit or {})
    _check(frame, limits, top)
    table, count = scaling.at(num_images, compute=compute, beyond=beyond), 0
    trials = complete(frame).set_index("number", drop=False)
    chosen: list[Choice] = []
    for place, line in enumerate(table.to_dict("records")):
        row: Any = trials.loc[_network(scaling, str(line["arm"]))]
        alone = pd.DataFrame([row])
        if _shortfall(alone, {}, limits)[0] > 0 or not _inside(alone)[0]:
            count += 1
            continue
        metrics = {name: _whole_as_int(row[name]) for name in metric_names(frame) if _known(row[name])}
        metrics |= {"predicted_error": line["error"], "predicted_low": line["low"], "predicted_high": line["high"],
                    "predicted_images": _whole_as_int(num_images), "p_best": line["p_best"],
                    "expected_regret": line["expected_regret"]}  # fmt: skip
        chosen.append(Choice(rank=len(chosen) + 1, row=row.to_dict(), front=place + 1, metrics=metrics,
                             reason=_reason_at(line, num_images, len(table), limits)))  # fmt: skip
    if not chosen:
        raise InputError(f"none of the {count} arms keeps {_limit_words({}, limits)}; widen the limit")
    return chosen[:top]


def _network(scaling: Scaling, arm: str) -> int:
    """The trial of an arm that stands for it: its best instance (mean log error over all amounts of data), on the most
    images, the first seed."""
    runs = scaling.runs[scaling.runs["arm"] == arm]
    logs = np.log(np.maximum(numbers(runs, "error"), 1e-6))
    best = pd.Series(logs).groupby(runs["instance"].to_numpy()).mean().idxmin()
    own = runs[runs["instance"] == best].sort_values(["num_images", "seed", "draw"], ascending=[False, True, True])
    return int(own["number"].iloc[0])


def _reason_at(line: Mapping[Any, Any], num_images: float, arms: int, limits: Mapping[str, float]) -> str:
    among = f"{arms} arms" + (f" with {_limit_words({}, limits)}" if limits else "")
    return (f"At {num_images:,.0f} images: predicted validation error {show('error', line['error'])} (90 % interval "
            f"{show('error', line['low'])} to {show('error', line['high'])}), best of {among} with probability "
            f"{line['p_best']:.2f}; choosing it costs {show_difference('error', line['expected_regret'])} on "
            "average.")  # fmt: skip


def _nothing_to_choose(
    rows: pd.DataFrame, frame: pd.DataFrame, objectives: Mapping[str, Sense], limits: Mapping[str, float]
) -> str:
    """Why ``choose`` finds nothing, as a sentence; where limits are the reason, the nearest network is named."""
    if rows.empty:
        counts = searched(complete(frame))["state"].value_counts()
        states = ", ".join(f"{count} {state}" for state, count in counts.items()) or "no trial"
        return f"nothing to choose from: no trial is done with {join_words(list(objectives))} known ({states})"
    shortfall = _shortfall(rows, objectives, limits)
    if not np.isfinite(shortfall).any():
        unmeasured = [name for name in limits if np.isnan(numbers(rows, name)).all()]
        return f"no trial has a value for every limit ({join_words(unmeasured or list(limits))})"
    row = rows.iloc[int(np.nanargmin(shortfall))]
    values = join_words([f"{name} {show(name, row[name])}" for name in limits])
    return (
        f"no trial keeps {_limit_words(objectives, limits)}; the nearest is trial {row['number']} "
        f"({row['layout']}, {values}), {100 * float(np.nanmin(shortfall)):.1f} % beyond; widen the limit"
    )


def _check(frame: pd.DataFrame, limits: Mapping[str, float], top: int) -> None:
    if top < 1:
        raise InputError(f"top: expected at least 1, got {top}")
    known = {*QUANTITIES, *metric_names(complete(frame))}
    for name, value in limits.items():
        if name not in known:
            raise InputError(unknown("metric", name, known))
        if not math.isfinite(value):
            raise InputError(f"limit {name}: expected a number, got {value!r}")
        if quantity(name).form == "percent" and abs(value) > 1:
            raise InputError(f"limit {name}: expected a fraction, as {value / 100:g} for {value:g} %, got {value:g}")


def _shortfall(rows: pd.DataFrame, objectives: Mapping[str, Sense], limits: Mapping[str, float]) -> np.ndarray:
    """By how much of the limit a row misses its worst limit: 0 or less keeps all, NaN is not measured."""
    worst = np.full(len(rows), -math.inf)
    rows = complete(rows, limits)
    for name, bound in limits.items():
        sign = 1.0 if sense_of(name, objectives) == "min" else -1.0
        worst = np.maximum(worst, sign * (numbers(rows, name) - bound) / (abs(bound) or 1.0))
    return worst


def _inside(rows: pd.DataFrame) -> np.ndarray:
    """False for a peer that breaks limits of the study itself: it is shown beside the candidates, never chosen."""
    values = complete(rows)["attributes"]
    return np.array([not (isinstance(one, Mapping) and one.get("outside_limits")) for one in values], dtype=bool)


def _peer(attributes: object) -> str | None:
    """The label of a network of timm; None for a candidate."""
    return attributes.get("peer") if isinstance(attributes, Mapping) else None


def peer_name(label: str) -> str:
    """timm's name in a peer's label: ``resnet18`` of ``timm:resnet18 fine-tuned``."""
    return label.removeprefix("timm:").split()[0]


def _limit_words(objectives: Mapping[str, Sense], limits: Mapping[str, float]) -> str:
    signs = {name: "<=" if sense_of(name, objectives) == "min" else ">=" for name in limits}
    return join_words([f"{name} {signs[name]} {show(name, bound)}" for name, bound in limits.items()])


def _reason(
    rank: int,
    row: pd.Series,
    best: pd.Series,
    front: int,
    objectives: Mapping[str, Sense],
    limits: Mapping[str, float],
    counts: tuple[int, int],
) -> str:
    """The numbers that put this network in its place; ``counts``: networks on the front, networks."""
    first = next(iter(objectives))
    values = join_words([f"{quantity(name).title} {show(name, row[name])}" for name in objectives])
    among = f"the {counts[1]:,} comparable networks" + (f" with {_limit_words(objectives, limits)}" if limits else "")
    if rank == 1:
        return f"Best {quantity(first).title} of {among}: {values}."
    versus = _versus(row, best, objectives)
    if front == 1:
        return f"Number {rank} of {counts[0]} on the front of {among}: {values}; against the first choice {versus}."
    return f"Behind the front (front {front}) of {among}, to fill up: {values}; against the first choice {versus}."


def _own(row: pd.Series, table: pd.DataFrame, objectives: Mapping[str, Sense]) -> str:
    """The quality's interval, and what the trial itself showed, as what it is: the best of so many."""
    main = quality(objectives)
    if MEASURED + main not in row:
        return "."
    runs, seen = int(row["runs"]), numbers(table, MEASURED + main)
    low, high, own = (show(main, row[name]) for name in (f"{main}_low", f"{main}_high", MEASURED + main))
    best = np.nanmin(seen) if objectives[main] == "min" else np.nanmax(seen)
    lucky = f", the best of {len(table):,}" if row[MEASURED + main] == best and len(table) > 1 else ""
    return (f" ({quantity(main).title}: 95 % interval {low} to {high}, from {runs} run{'s' if runs > 1 else ''} and "
            f"the networks like it; trial {row['number']} itself showed {own}{lucky}).")  # fmt: skip


def _doubts(row: pd.Series, objectives: Mapping[str, Sense], limits: Mapping[str, float]) -> str:
    """What is unsure of measured quantities: disturbed, or nearer to a limit than their spread tells."""
    said = []
    for name in dict.fromkeys((*objectives, *limits)):
        spread: Any = row.get(f"{name}_spread")
        if not _known(spread):
            continue
        seen = f"{show(name, row[name])} with a spread of {show(f'{name}_spread', spread)}"
        if is_disturbed(row.get("attributes"), name):
            said.append(f" Its {quantity(name).title} was measured on a busy machine ({seen}): measure it again.")
        if name in limits and abs(float(row[name]) - limits[name]) < float(spread):
            said.append(f" Whether it keeps {_limit_words(objectives, {name: limits[name]})} is not sure: {seen}.")
    return "".join(said)


def _versus(row: pd.Series, best: pd.Series, objectives: Mapping[str, Sense]) -> str:
    """``validation error 0.8 points higher and multiply-adds 38 % lower``."""
    parts = []
    for name in objectives:
        change = float(row[name]) - float(best[name])
        word = "higher" if change > 0 else "lower"
        if change == 0:
            parts.append(f"equal {quantity(name).title}")
        elif quantity(name).form == "percent" or not best[name]:
            parts.append(f"{quantity(name).title} {show_difference(name, change)} {word}")
        else:
            parts.append(f"{quantity(name).title} {abs(100 * change / float(best[name])):.3g} % {word}")
    return join_words(parts)


def _known(value: object) -> bool:
    return isinstance(value, (int, float, np.number)) and math.isfinite(float(value))


def _whole_as_int(value: float) -> float | int:
    return int(value) if float(value).is_integer() else float(value)


def write_choices(choices: Sequence[Choice], folder: Path, *, study: str | None = None, rule: str = RULE) -> list[Path]:
    """Write ``RANK-LAYOUT-ARCHID.yaml`` files and return their paths; files of an earlier choice there are removed.

    Each file is a mapping whose key ``arch`` is an architecture that ``load_arch`` reads (of a network of timm there is
    ``timm`` instead, its name); the other keys say where it comes from. Raises InputError, before anything is written,
    where a record holds no architecture.
    """
    for choice in choices:
        if not isinstance(choice.row.get("arch"), Mapping) and not _peer(choice.row.get("attributes")):
            raise InputError(f"trial {choice.row['number']} has no architecture in the record; choose another trial")
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for choice in choices:
        path = folder / file_name(choice)
        write_text(path, document(choice, study, rule))
        paths.append(path)
    for stale in folder.glob("*.yaml"):
        if re.fullmatch(r"\d+-.*-[0-9a-f]{10}\.yaml", stale.name) and stale not in paths:
            stale.unlink()
    return paths


def file_name(choice: Choice) -> str:
    """``RANK-LAYOUT-ARCHID.yaml``, safe in any folder."""
    layout = re.sub(r"[^A-Za-z0-9]+", "-", str(choice.row["layout"])).strip("-")
    arch_id = re.sub(r"[^0-9a-zA-Z]", "", str(choice.row["arch_id"] or digest(layout)))
    return f"{choice.rank}-{layout}-{arch_id}.yaml"


def document(choice: Choice, study: str | None, rule: str) -> str:
    """The text of a choice's file; see ``write_choices``."""
    row = choice.row
    budget = {name: int(row[name]) for name in BUDGET if _known(row.get(name))}
    peer = _peer(row.get("attributes"))
    arch = json.loads(json.dumps(row["arch"]))  # plain values, none of them shared: no YAML anchors
    network: dict[str, Any] = {"timm": peer_name(peer), "peer": peer} if peer else {"arch": arch}
    content = {
        **network,
        "study": study,
        "trial": int(row["number"]),
        "arch_id": row["arch_id"],
        "layout": row["layout"],
        "rank": choice.rank,
        "objective": choice.objective,
        "reason": choice.reason,
        "rule": rule,
        "budget": budget,
        "metrics": dict(choice.metrics),
    }
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=120)
