"""Makes of a record its tables: the front, hypervolume over trials, layouts side by side, whether data separates them.

Every answer uses trials that are done and had one and the same budget: the fullest in the record (most images, then
most epochs, then the largest images). Seeds and draws may differ. What was left out is counted in ``attrs``.
Answers are about networks: what the runs of each say that it is worth (``networks``), not what its luckiest run showed.
"""

import math
from collections.abc import Mapping, Sequence

import moocore
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from coatnet_search.analysis.frame import (
    REPEATS,
    TEXT,
    VALUES,
    Floats,
    accuracies,
    complete,
    numbers,
    of_kind,
    searched,
)
from coatnet_search.analysis.networks import NUM_VAL, networks
from coatnet_search.core.errors import InputError, unknown
from coatnet_search.core.quantities import QUANTITIES, Sense, show, sign
from coatnet_search.record.trial import TUNE

SEPARATE_FRONTS = (
    "layouts_apart"  # in a frame's ``attrs``: its layouts cannot be compared, and each has a front of its own
)
SURE = 0.95  # probability from which on one layout is called the better one
REFERENCE = 1.1  # of the range of each objective seen in the study, from its best value


def comparable(frame: pd.DataFrame, objectives: Mapping[str, Sense]) -> pd.DataFrame:
    """The rows that may be compared: done, of the fullest budget, no objective missing; in order of number.

    ``attrs``: ``excluded`` (an objective missing), ``other_budgets`` (done with less), ``not_done`` count the rest;
    ``budget`` is the one that was used, as {name: number or None}.
    Raises InputError for no objectives, an unknown name (with the known columns) or a sense that is not min or max.
    """
    _check(frame, objectives)
    frame = searched(complete(frame))
    done = frame[(frame["state"] == "done").to_numpy(dtype=bool)]
    full = _fullest(done)
    rows = done[full]
    present = np.ones(len(rows), dtype=bool)
    for name in objectives:
        present &= np.isfinite(numbers(rows, name))
    out = rows[present].reset_index(drop=True)
    budget = {name: _first(rows, name) for name in ("epochs", "num_images", "image_size")}
    out.attrs = {**frame.attrs, "excluded": int((~present).sum()), "other_budgets": int((~full).sum()),
                 "not_done": len(frame) - len(done), "budget": budget}  # fmt: skip
    return out


def _check(frame: pd.DataFrame, objectives: Mapping[str, Sense]) -> None:
    if not objectives:
        raise InputError("objectives: at least one is needed, such as {error: min, macs: min}")
    known = {*QUANTITIES, *(str(name) for name in frame.columns if name not in (*TEXT, *VALUES))}
    for name, sense in objectives.items():
        if name not in known:
            raise InputError(unknown("objective", name, known))
        if sense not in ("min", "max"):
            raise InputError(f"objective {name}: expected min or max, got {sense!r}")


def _fullest(done: pd.DataFrame) -> NDArray[np.bool_]:
    """Which rows had the fullest budget; ``num_images`` and ``image_size`` that are missing mean all of it. A network
    that was only measured had none, unless all were."""
    fills = {"num_images": math.inf, "epochs": -1.0, "image_size": math.inf}
    columns = {name: numbers(done, name) for name in fills}
    budgets = np.stack([np.where(np.isnan(column), fills[name], column) for name, column in columns.items()], axis=1)
    trained = ~(columns["epochs"] == 0)
    usual = trained | (not trained.any())
    usual &= ~of_kind(done, TUNE)
    usual &= np.array([not (value and isinstance(value, Mapping) and (value.get("doubled") or REPEATS in value))
                       for value in done["attributes"]], dtype=bool)  # fmt: skip
    if not usual.any():
        return usual
    own = budgets[usual]
    best = own[np.lexsort(own.T[::-1])[-1]]
    return np.asarray(usual & (budgets == best).all(axis=1))


def _first(rows: pd.DataFrame, name: str) -> float | None:
    values = numbers(rows, name)[:1]
    return float(values[0]) if values.size and np.isfinite(values[0]) else None


def as_costs(rows: pd.DataFrame, objectives: Mapping[str, Sense]) -> Floats:
    """(rows, objectives), signs turned so that smaller is better everywhere."""
    signed = [numbers(rows, name) * sign(sense) for name, sense in objectives.items()]
    return np.stack(signed, axis=1) + 0.0  # no -0.0


def ranked(rows: pd.DataFrame, objectives: Mapping[str, Sense]) -> pd.DataFrame:
    """Rows ordered by the first objective, best first; ties by the next objectives, then by trial number."""
    costs = as_costs(rows, objectives)
    order = np.lexsort((numbers(rows, "number"), *costs.T[::-1]))
    return rows.iloc[order].reset_index(drop=True)


def pareto_front(frame: pd.DataFrame, objectives: Mapping[str, Sense]) -> pd.DataFrame:
    """The comparable trials that no other dominates as measured, best first objective first; equal points once (lowest
    number). The best of many measured values is lucky: ``network_front`` takes that off.

    ``attrs`` as in ``comparable``. Raises InputError as it does.
    """
    rows = comparable(frame, objectives)
    return ranked(rows[non_dominated(rows, objectives)], objectives) if len(rows) else rows


def network_front(frame: pd.DataFrame, objectives: Mapping[str, Sense]) -> pd.DataFrame:
    """The networks that no other dominates by what their runs say that they are worth, best first objective first; a
    row as in ``networks``. Raises InputError as ``comparable`` does."""
    rows = comparable(frame, objectives)
    if rows.empty:
        return rows.assign(runs=0)
    table = networks(rows, objectives).table
    return ranked(table[non_dominated(table, objectives)], objectives)


def non_dominated(rows: pd.DataFrame, objectives: Mapping[str, Sense]) -> NDArray[np.bool_]:
    """Which rows are on the front of these rows; of equal points the first. No objective may be missing. Where layouts
    are ``SEPARATE_FRONTS`` it is each layout's own front."""
    if rows.empty:
        return np.zeros(0, dtype=bool)
    if rows.attrs.get(SEPARATE_FRONTS):
        labels, out = rows["layout"].astype(str).to_numpy(), np.zeros(len(rows), dtype=bool)
        for name in np.unique(labels):
            own = np.flatnonzero(labels == name)
            out[own] = moocore.is_nondominated(as_costs(rows.iloc[own], objectives))
        return out
    return np.asarray(moocore.is_nondominated(as_costs(rows, objectives)), dtype=bool)


def hypervolume_over_trials(
    frame: pd.DataFrame, objectives: Mapping[str, Sense], reference: Sequence[float] | None = None
) -> pd.DataFrame:
    """How the front grew: a row per comparable trial, ``trials`` (how many of the study up to it) and ``hypervolume``,
    of what all runs on record say that its network is worth.

    The volume is the share, from 0 to 1, of the box between the ideal point (the best value seen in each objective) and
    the reference point; scaling an objective leaves it as it is. ``reference`` is in the objectives' own units and
    order; by default it lies 10 % of each objective's range beyond the worst value on record, so that every trial
    counts. Raises InputError as ``comparable`` does, and where the reference point is not dominated by each point of
    the front: the part of the front beyond it would be left out in silence.
    """
    rows = comparable(frame, objectives)
    if rows.empty:
        return pd.DataFrame({"trials": np.zeros(0, dtype=np.int64), "hypervolume": np.zeros(0)})
    found = networks(rows, objectives)
    costs = as_costs(found.table, objectives)[found.place]
    ideal = costs.min(axis=0)
    span = costs.max(axis=0) - ideal
    corner = ideal + REFERENCE * np.where(span > 0, span, 1.0)
    if reference is not None:
        corner = _checked_reference(found.table, objectives, reference)
        span = corner - ideal
    unit = np.where(corner > ideal, corner - ideal, 1.0)
    places = {number: place for place, number in enumerate(searched(complete(frame))["number"], 1)}
    scaled = (costs - ideal) / unit
    volumes = running_volume(scaled)
    trials = np.array([places[number] for number in rows["number"]], dtype=np.int64)
    return pd.DataFrame({"trials": trials, "hypervolume": volumes})


def _checked_reference(rows: pd.DataFrame, objectives: Mapping[str, Sense], reference: Sequence[float]) -> Floats:
    if len(reference) != len(objectives):
        raise InputError(f"reference point: expected {len(objectives)} numbers ({', '.join(objectives)})")
    signs = np.array([sign(sense) for sense in objectives.values()])
    corner = np.asarray(reference, dtype=np.float64) * signs
    front = rows[non_dominated(rows, objectives)]
    costs = as_costs(front, objectives).T
    for (name, sense), cost, given, limit in zip(objectives.items(), costs, reference, corner, strict=True):
        worst = int(np.argmax(cost))
        if not cost[worst] < limit:
            number, value = front["number"].iloc[worst], front[name].iloc[worst]
            bound = "above" if sense == "min" else "below"
            raise InputError(
                f"reference point: {name} {given:g} is not worse than trial {number} on the front ({value:g}); "
                f"give a value {bound} {value:g}"
            )
    return corner


def in_box(losses: Floats) -> Floats:
    """(rows, objectives) in the box whose hypervolume is 1: 0 at the best value seen, 1 at 10 % of the range beyond the
    worst one."""
    span = np.ptp(losses, axis=0)
    return np.asarray((losses - losses.min(axis=0)) / (REFERENCE * np.where(span > 0, span, 1.0)))


def running_volume(scaled: Floats) -> Floats:
    """Hypervolume of the first 1, 2, ... rows against (1, ..., 1); computed anew only where the front moves."""
    indicator = moocore.Hypervolume(ref=np.ones(scaled.shape[1]))
    front, volume, volumes = np.empty((0, scaled.shape[1])), 0.0, []
    for point in scaled:
        if not (front <= point).all(axis=1).any():
            front = np.vstack([front[~(point <= front).all(axis=1)], point])
            volume = float(indicator(front))
        volumes.append(volume)
    return np.array(volumes)


def layouts_table(frame: pd.DataFrame, objectives: Mapping[str, Sense]) -> pd.DataFrame:
    """A row a layout: ``trials``, ``done`` (comparable), ``failed``, ``on_front``, each objective's best and median.

    Columns of an objective are ``best_NAME`` and ``median_NAME`` over its networks, missing where no trial is
    comparable. Ordered by the best first objective, then by name.
    """
    rows, front = comparable(frame, objectives), network_front(frame, objectives)
    known = networks(rows, objectives).table if len(rows) else rows
    whole = searched(complete(frame))
    table = []
    for layout, group in whole.groupby("layout", sort=True):
        own = rows[rows["layout"] == layout]
        line: dict[str, object] = {
            "layout": str(layout),
            "trials": len(group),
            "done": len(own),
            "failed": int((group["state"] == "failed").sum()),
            "on_front": int((front["layout"] == layout).sum()),
        }
        for name, sense in objectives.items():
            values = numbers(known[known["layout"] == layout], name)
            line[f"best_{name}"] = (values.min() if sense == "min" else values.max()) if len(own) else math.nan
            line[f"median_{name}"] = float(np.median(values)) if len(own) else math.nan
        table.append(line)
    columns = ["layout", "trials", "done", "failed", "on_front"]
    columns += [f"{part}_{name}" for name in objectives for part in ("best", "median")]
    first, sense = next(iter(objectives.items()))
    out = pd.DataFrame(table, columns=columns)
    return out.sort_values(f"best_{first}", ascending=sense == "min", kind="stable", ignore_index=True)


def _best_draws(frame: pd.DataFrame, objectives: Mapping[str, Sense]) -> dict[str, Floats]:
    """Of each layout the accuracies, (draws,), that its best network may have; best first."""
    rows = comparable(frame, objectives)
    rows = rows[np.isfinite(accuracies(rows))]
    if rows.empty:
        return {}
    found = networks(rows.assign(val_top1=accuracies(rows)), {"val_top1": "max"})
    draws, labels = -found.draws["val_top1"], found.table["layout"].astype(str).to_numpy()
    best = {name: draws[:, own][:, draws[:, own].mean(axis=0).argmax()] for name in np.unique(labels)
            if (own := labels == name).any()}  # fmt: skip
    return dict(sorted(best.items(), key=lambda item: (-item[1].mean(), item[0])))


def separability(frame: pd.DataFrame, objectives: Mapping[str, Sense], num_val: int | None) -> str | None:
    """A sentence where the data cannot tell layouts apart by accuracy, None where the best stands clear of the rest.

    Two reasons: the best networks of layouts were seen with the same accuracy, or that of the first is not the better
    one with a probability of 95 %, given ``num_val`` and the noise between seeds (``networks``). Without accuracies
    there is no sentence.
    """
    if num_val is not None:
        frame = with_num_val(frame, num_val)
    best = _best_draws(frame, objectives)
    if not best:
        return None
    if len(best) == 1:
        return f"Only the layout {next(iter(best))} has finished trials, so this study cannot compare layouts."
    first, *_ = best
    seen = _seen_best(frame, objectives)
    top = max(seen.values())
    tied = [name for name, value in seen.items() if math.isclose(value, top, abs_tol=1e-9)]
    chance = {name: float((best[first] > draws).mean()) for name, draws in best.items()}
    close = [name for name in best if name == first or name in tied or chance[name] < SURE]
    if len(close) == 1:
        return None
    which = "the layouts" if len(close) == len(best) else join_words(close)
    parts = []
    if len(tied) > 1:
        parts.append(f"{join_words(tied)} share the top accuracy of {show('val_top1', top)}")
    if unsure := [name for name in close if name != first and chance[name] < SURE]:
        low, high = (edge(float(best[name].mean()) for name in close) for edge in (min, max))
        images = f" on {num_val:,} validation images" if num_val else ""
        others = join_words([f"that of {name} with a probability of {chance[name]:.2f}" for name in unsure])
        parts.append(f"the best networks of each are expected to have between {show('val_top1', low)} and "
                     f"{show('val_top1', high)}{images}, and that of {first} is better than {others}")  # fmt: skip
    return f"This data cannot separate {which}: {'; '.join(parts)}."


def with_num_val(frame: pd.DataFrame, num_val: int | None) -> pd.DataFrame:
    """The frame, knowing of how many validation images its scores are."""
    out = frame.copy(deep=False)
    out.attrs = {**frame.attrs, **({NUM_VAL: num_val} if num_val else {})}
    return out


def _seen_best(frame: pd.DataFrame, objectives: Mapping[str, Sense]) -> dict[str, float]:
    """The best accuracy that a run of each layout showed."""
    rows = comparable(frame, objectives)
    table = pd.DataFrame({"layout": rows["layout"].astype(str), "accuracy": accuracies(rows)}).dropna()
    return {str(name): float(value) for name, value in table.groupby("layout")["accuracy"].max().items()}


def join_words(words: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
