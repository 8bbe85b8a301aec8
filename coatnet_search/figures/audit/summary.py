"""What the audit of a supernet says, as plain values: the page, the screen and ``report --json`` show these numbers."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from coatnet_search.analysis.audit import Audit
from coatnet_search.analysis.audit_decision import signed, trusted
from coatnet_search.analysis.rank_agreement import Figure
from coatnet_search.core.quantities import show_difference
from coatnet_search.study.audit_of_record import AuditedRecord, audited_record


@dataclass(frozen=True, kw_only=True)
class AuditSection:
    """The page's section: ``values`` ready for JSON; ``audited_record`` has the frame whose scores may be compared."""

    values: dict[str, Any]
    audited_record: AuditedRecord = field(repr=False)

    @property
    def refused(self) -> bool:
        """Whether layouts must not be compared."""
        return self.audited_record.decision.state == "refused"


def audit_section(frame: pd.DataFrame, study: Mapping[str, Any], run: Path | None = None) -> AuditSection | None:
    """The audit of a study with inherited scores, None of any other study; with its ``run`` a predictor is set beside
    the supernet too. Keys of ``values``: state (unaudited, too few, comparable, corrected, refused), says (the
    verdict), sentences, notes, metric, groups, offsets, p_equal, unseen, corrected (tau after correction), noise,
    predicted, networks."""
    found = audited_record(frame, study, run=run)
    if found is None:
        return None
    values = {"state": found.decision.state, "says": found.decision.says, "notes": list(found.notes),
              "sentences": trusted(found.found), **_figures(found.found)}  # fmt: skip
    return AuditSection(values=values, audited_record=found)


def _figures(found: Audit | None) -> dict[str, Any]:
    if found is None:
        return {"metric": None, "groups": [], "offsets": [], "networks": []}
    networks = [{**asdict(one), "alone": list(one.alone), "band": band, "mean_alone": sum(one.alone) / len(one.alone)}
                for one, band in zip(found.networks, found.bands, strict=True)]  # fmt: skip
    return {
        "metric": found.metric,
        "groups": [asdict(group) for group in found.groups],
        "offsets": [{"layout": "all layouts", **asdict(found.offset)},
                    *({"layout": name, **asdict(offset)} for name, offset in found.offsets.items())],
        "p_equal": found.p_equal,
        "unseen": found.unseen,
        "corrected": asdict(found.corrected),
        "noise": asdict(found.noise) if found.noise else None,
        "predicted": asdict(found.predicted),
        "networks": networks,
    }  # fmt: skip


def span(figure: Mapping[str, Any] | Figure, metric: str | None = None, *, sign: bool = False) -> str:
    """``0.53 (0.37 to 0.71)``, in the metric's unit where one is given; or why there is no number."""
    one = asdict(figure) if isinstance(figure, Figure) else figure
    if one["value"] is None:
        return one["note"] or "–"
    parts = [_number(one[name], metric, sign) for name in ("value", "low", "high")]
    return f"{parts[0]} ({parts[1]} to {parts[2]})"


def _number(value: float, metric: str | None, sign: bool) -> str:
    if metric is None:
        return f"{value:+.2f}" if sign else f"{value:.2f}"
    return signed(metric, value) if sign else show_difference(metric, value)
