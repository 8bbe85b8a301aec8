"""Decides what an audit's scores may be used for: whether layouts compare, which scores are corrected."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pandas as pd

from coatnet_search.analysis.audit import Audit
from coatnet_search.analysis.frame import numbers, searched
from coatnet_search.analysis.front import join_words
from coatnet_search.analysis.intervals import Z95
from coatnet_search.analysis.networks import OFFSETS, SCATTER
from coatnet_search.analysis.rank_agreement import LEAST, Figure, Floats
from coatnet_search.core.quantities import quantity, show_difference

SIGNIFICANT = 0.05  # chance of offsets that differ so much without a cause, below which they are taken as real
COUNTERPARTS = {"error": ("val_top1",), "val_top1": ("error",)}  # move with a metric, the other way
UNAUDITED = "unaudited: no network of this search was trained alone, so nothing says how well inherited scores rank"

State = Literal["unaudited", "too few", "comparable", "corrected", "refused"]


@dataclass(frozen=True, kw_only=True)
class AuditDecision:
    """Whether inherited scores of several layouts compare: ``says`` is the sentence; ``offsets`` what is taken off
    each layout's scores (``corrected`` alone), ``offset_errors`` the standard errors of these, and ``scatter`` how much
    a network's corrected score scatters about what its training alone shows (one standard deviation)."""

    state: State
    says: str
    offsets: Mapping[str, float] = field(default_factory=dict)
    offset_errors: Mapping[str, float] = field(default_factory=dict)
    scatter: float = 0.0


def decide(found: Audit | None, layouts: Iterable[str]) -> AuditDecision:
    """Whether the inherited scores of these layouts may be compared, as they are or corrected."""
    names = sorted(set(layouts))
    if found is None:
        return AuditDecision(state="unaudited", says=UNAUDITED)
    if found.p_equal is None and len(names) > 1:
        count = len(found.networks)
        return AuditDecision(state="too few", says=f"as good as unaudited: {count} networks were trained alone, and at "
                       f"least {LEAST} of two layouts are needed to say how well inherited scores rank")  # fmt: skip
    if len(names) < 2:
        return AuditDecision(state="comparable", says="one layout: no offset between layouts can mislead the ranking")
    assert found.p_equal is not None
    if found.p_equal >= SIGNIFICANT:
        blind = f"; a difference below {show_difference(found.metric, found.unseen)} between two layouts would go " \
            "unseen" if found.unseen is not None else ""  # fmt: skip
        return AuditDecision(state="comparable", says="layouts compare as they are: the offsets of the supernet's "
                       f"{quantity(found.metric).title} do not differ between layouts by more than noise "
                       f"(p = {found.p_equal:.2f}){blind}")  # fmt: skip
    unknown = {name: found.layouts.get(name, 0) for name in names if found.layouts.get(name, 0) < LEAST}
    start = (f"the supernet favours layouts (its offset in {quantity(found.metric).title} differs between them by more "
             f"than noise, p = {_probability(found.p_equal)})")  # fmt: skip
    if unknown:
        parts = join_words([f"{name} ({count} of {LEAST})" for name, count in unknown.items()])
        return AuditDecision(state="refused", says=f"{start}, and the offset is not known of {parts}: layouts cannot "
                       "be compared")  # fmt: skip
    offsets = {name: value for name in names if (value := found.offsets[name].value) is not None}
    errors = {name: (one.high - one.low) / 2 / Z95 for name, one in found.offsets.items()
              if name in offsets and one.low is not None and one.high is not None}  # fmt: skip
    parts = join_words([f"{name} {signed(found.metric, -value)} (± {show_difference(found.metric, Z95 * errors[name])})"
                        for name, value in offsets.items()])  # fmt: skip
    return AuditDecision(
        state="corrected",
        offsets=offsets,
        offset_errors=errors,
        scatter=_scatter(found),
        says=f"{start}; scores are corrected by it: {parts}",
    )


def _scatter(found: Audit) -> float:
    """One standard deviation of networks' offsets about their layout's mean."""
    labels = np.unique([one.layout for one in found.networks], return_inverse=True)[1]
    offset = np.array([one.inherited - float(np.mean(one.alone)) for one in found.networks])
    means = np.bincount(labels, offset) / np.bincount(labels)
    return float(np.sqrt(((offset - means[labels]) ** 2).sum() / max(len(offset) - len(means), 1)))


def _probability(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else "0.001 or less"


def signed(metric: str, value: float) -> str:
    """``+1.2 points``."""
    return f"{'-' if value < 0 else '+'}{show_difference(metric, value)}"


def corrected(frame: pd.DataFrame, metric: str, decision: AuditDecision) -> pd.DataFrame:
    """The frame with the decision's offsets taken off the metric of the search's trials, and put onto its counterpart
    where there is one (accuracy of error); what was measured stays as ``inherited_METRIC``."""
    if decision.state != "corrected":
        return frame
    shift = frame["layout"].map(lambda name: decision.offsets.get(str(name), math.nan)).to_numpy(dtype=float)
    shift = np.where(frame.index.isin(searched(frame).index), shift, 0.0)
    columns: dict[str, Floats] = {}
    for name, way in ((metric, -1.0), *((other, 1.0) for other in COUNTERPARTS.get(metric, ()))):
        raw = numbers(frame, name)
        columns |= {f"inherited_{name}": raw, name: raw + way * shift}
        if name == "val_top1":
            columns[name] = np.clip(columns[name], 0.0, 1.0)
    out = frame.assign(**columns)
    names = (metric, *COUNTERPARTS.get(metric, ()))
    out.attrs = {**frame.attrs, OFFSETS: {name: dict(decision.offset_errors) for name in names},
                 SCATTER: dict.fromkeys(names, decision.scatter)}  # fmt: skip
    return out


def trusted(found: Audit | None) -> list[str]:
    """What a reader should know of the ranking before its numbers, as sentences."""
    if found is None:
        return []
    every, within = found.groups[0], found.groups[1]
    if every.tau.value is None:
        return [f"Audit: {every.tau.note}."]
    said = [f"Audit of {every.networks} networks trained alone: Kendall's tau {_span(every.tau)} overall and "
            f"{_span(within.tau)} between networks of like cost; over ranking by multiply-adds it gains "
            f"{_span(every.over_macs, sign=True)}"
            + ("" if every.over_macs.excludes_zero else ", which may be nothing") + "."]  # fmt: skip
    noise = found.noise
    if noise is not None and noise.corrected.value is not None:
        said.append(f"Rank correlation {_span(noise.plain)}, without the noise between seeds "
                    f"{_span(noise.corrected)} (reliability {_span(noise.reliability)}).")  # fmt: skip
    elif noise is not None:
        said.append(f"Rank correlation {_span(noise.plain)}, not corrected for noise: {noise.corrected.note}.")
    predicted = found.predicted
    if predicted.gain.value is not None:
        note = f" ({predicted.note})" if predicted.note else ""
        said.append(f"Over a predictor trained on {predicted.runs} stand-alone runs the supernet gains "
                    f"{_span(predicted.gain, sign=True)}{note}.")  # fmt: skip
    elif predicted.gain.note:
        said.append(f"No predictor to compare with: {predicted.gain.note}.")
    return said


def _span(found: Figure, *, sign: bool = False) -> str:
    if found.value is None or found.low is None or found.high is None:
        return found.note or "–"
    form = "+.2f" if sign else ".2f"
    return f"{found.value:{form}} ({found.low:{form}} to {found.high:{form}})"
