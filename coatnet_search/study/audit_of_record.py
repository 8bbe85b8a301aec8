"""Reads the audit that a record holds: pairs of scores -> decision, and the table with corrected scores."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from coatnet_search.analysis.audit import NUM_BANDS, Audit, Network, audit, audited_metric, band_of
from coatnet_search.analysis.audit_decision import AuditDecision, corrected, decide
from coatnet_search.analysis.frame import complete, numbers, searched
from coatnet_search.analysis.front import SEPARATE_FRONTS, comparable, join_words
from coatnet_search.core.errors import InputError
from coatnet_search.core.quantities import sense_of
from coatnet_search.record.trial import AUDIT, kind_of
from coatnet_search.strategies.problem import Problem
from coatnet_search.supernet.rows import FOLDER, read_supernet_rows

Row = dict[str, Any]
LEAST_SEEDS = 2  # finished trainings of a network that counts


@dataclass(frozen=True, kw_only=True)
class AuditedRecord:
    """A record with inherited scores as an audit lets it be read. ``frame``: with corrected scores where they are, with
    layouts ``SEPARATE_FRONTS`` (see ``analysis.front``) where they cannot be compared; ``found`` is None where nothing
    was audited; ``notes``: what is unequal or missing in the audit, as sentences."""

    frame: pd.DataFrame
    found: Audit | None
    decision: AuditDecision
    notes: Sequence[str] = ()


def is_inherited(study: Mapping[str, Any]) -> bool:
    return study.get("evaluate") == "inherited"


def audited_record(
    frame: pd.DataFrame,
    study: Mapping[str, Any],
    *,
    layouts: Sequence[str] = (),
    run: Path | None = None,
) -> AuditedRecord | None:
    """What the audit in a record says of the scores of these layouts (none: all that finished); None for a study
    without inherited scores. With its ``run`` a predictor is set beside the supernet too, which takes seconds.

    Raises InputError for a layout without finished trials, and where no objective is a quality.
    """
    if not is_inherited(study):
        return None
    frame = complete(frame, study["objectives"])
    metric = audited_metric(study["objectives"])
    finished = sorted(set(comparable(frame, study["objectives"])["layout"].dropna().astype(str)))
    for name in layouts:
        if name not in finished:
            known = join_words(finished) if finished else "none"
            raise InputError(f"--layout {name}: no finished trial has it; layouts with finished trials: {known}")
    networks = pairs(frame, metric)  # of all layouts: whether offsets differ is asked of the whole audit
    begun = len(searched(frame)) < len(frame)
    notes = [*_lost(frame, networks), *_unequal(networks)] if begun else []
    if layouts:
        frame = frame[frame["layout"].isin(list(layouts))]
    sense = sense_of(metric, study["objectives"])
    hours, problem = (supernet_hours(run, study), _problem(study)) if run and begun else (None, None)
    found = audit(networks, metric, sense, problem=problem, supernet_hours=hours) if begun else None
    decision = decide(found, layouts or finished)
    out = corrected(frame, metric, decision)
    out.attrs = {**frame.attrs, **out.attrs, SEPARATE_FRONTS: decision.state == "refused"}
    return AuditedRecord(frame=out, found=found, decision=decision, notes=notes)


def _problem(study: Mapping[str, Any]) -> Problem:
    from coatnet_search.study.load import study_of_values  # noqa: PLC0415  # torch: slow, and only an audit needs it

    return study_of_values(study).problem()


def supernet_hours(run: Path, study: Mapping[str, Any]) -> float | None:
    """Device-hours of the training of a run's supernet; None where it was trained elsewhere: another device's hours do
    not compare."""
    rows = read_supernet_rows(run / FOLDER)
    spec = study.get("supernet") or {}
    seconds = [float(row["epoch_s"]) for row in rows]
    return sum(seconds) * int(spec.get("workers") or 1) / 3600 if seconds and not spec.get("path") else None


def pairs(frame: pd.DataFrame, metric: str) -> list[Network]:
    """The networks that have an inherited score and at least two trained alone, in order of their inherited trial."""
    frame = complete(frame, [metric])
    frame = frame[(frame["state"] == "done").to_numpy(dtype=bool) & np.isfinite(numbers(frame, metric))]
    rows = [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")]
    alone: dict[str, list[Row]] = {}
    for row in rows:
        if kind_of(row["attributes"]) == AUDIT:
            alone.setdefault(row["arch_id"], []).append(row)
    networks = []
    for row in rows:
        own = sorted(alone.get(row["arch_id"], []), key=lambda one: one["seed"])
        if kind_of(row["attributes"]) != AUDIT and len(own) >= LEAST_SEEDS:
            del alone[row["arch_id"]]
            networks.append(_network(row, own, metric))
    return networks


def _network(row: Row, own: Sequence[Row], metric: str) -> Network:
    seconds = [float(one["wall_s"]) for one in own if np.isfinite(one["wall_s"])]
    return Network(
        number=int(row["number"]), arch_id=str(row["arch_id"]), layout=str(row["layout"]), macs=float(row["macs"]),
        params=float(row["params"]), inherited=float(row[metric]), alone=tuple(float(one[metric]) for one in own),
        candidate=dict(row["candidate"]), wall_s=float(np.mean(seconds)) if seconds else None,
    )  # fmt: skip


def _lost(frame: pd.DataFrame, networks: Sequence[Network]) -> list[str]:
    """Networks that were to be audited and have too few finished trainings."""
    rows = frame[~frame.index.isin(searched(frame).index)]
    lost = sorted(set(rows["arch_id"].astype(str)) - {one.arch_id for one in networks})
    if not lost:
        return []
    states = rows[rows["arch_id"].isin(lost)]["state"].value_counts().sort_index()
    counts = join_words([f"{count} {state}" for state, count in states.items()])
    return [f"{len(lost)} of {len(lost) + len(networks)} networks of the audit do not count yet: fewer than "
            f"{LEAST_SEEDS} trainings of each are done ({counts})."]  # fmt: skip


def _unequal(networks: Sequence[Network]) -> list[str]:
    """A sentence where layouts or bands do not have equal numbers of networks, up to one."""
    bands, layouts = band_of([one.macs for one in networks]), sorted({one.layout for one in networks})
    cells = Counter((one.layout, int(band)) for one, band in zip(networks, bands, strict=True))
    counts = {(name, band): cells[name, band] for name in layouts for band in range(NUM_BANDS)}
    if not counts or max(counts.values()) - min(counts.values()) <= 1:
        return []
    parts = [f"{name} {'/'.join(str(counts[name, band]) for band in range(NUM_BANDS))}" for name in layouts]
    return [f"Unequal numbers of networks, by layout and from the cheapest to the dearest third: {join_words(parts)}."]
