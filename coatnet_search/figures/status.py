"""Where a study stands, as plain values: what its record and the card of its driver say."""

import json
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from coatnet_search.analysis.frame import complete
from coatnet_search.analysis.front import comparable, ranked
from coatnet_search.analysis.networks import networks
from coatnet_search.core.quantities import quality
from coatnet_search.figures.search.summary import cost
from coatnet_search.record.journal import alive
from coatnet_search.record.trial import TERMINAL

PACE = 20  # the last trials that ended tell how fast it goes


def status(run: Path, frame: pd.DataFrame, study: Mapping[str, Any]) -> dict[str, Any]:
    """Keys: state (a sentence's beginning), running (a driver works), trials, ended, planned (None: not a number that
    the study writes down), progress (0 to 1 or None), eta_s, trials_s, elapsed_s, states, best (the best quality so far
    or None), layout (of the best)."""
    frame = complete(frame, study["objectives"])
    spent = cost(frame, study)
    ended, planned = int(frame["state"].isin(TERMINAL).sum()), spent["planned"]
    planned = max(planned, len(frame)) if planned else None
    driver, running = _driver(run)
    state = driver or ("imported" if study.get("imported") else "complete" if planned and ended >= planned else
                       "no trial yet" if frame.empty else "not running")  # fmt: skip
    rows = comparable(frame, study["objectives"])
    main = quality(study["objectives"])
    known = networks(rows, study["objectives"]).table if len(rows) else rows
    best = ranked(known, {main: study["objectives"][main]}).iloc[0] if len(known) else None
    return {
        "state": state, "running": running, "trials": len(frame), "ended": ended, "planned": planned,
        "progress": min(1.0, ended / planned) if planned else None,
        "eta_s": _left(frame, planned, ended) if running else None,
        "trials_s": spent["trials_s"], "elapsed_s": spent["elapsed_s"], "states": spent["states"],
        "best": None if best is None else float(best[main]), "layout": None if best is None else str(best["layout"]),
    }  # fmt: skip


def _driver(run: Path) -> tuple[str | None, bool]:
    """What the card of the driver says: who works on the study, or that its driver ended without a word."""
    try:
        card = json.loads((run / "driver.json").read_text(encoding="utf-8"))
        pid, host = int(card["pid"]), str(card["host"])
    except (OSError, ValueError, KeyError, TypeError):
        return None, False
    if host != socket.gethostname():
        return f"running on {host}", True
    if not alive(pid):
        return "interrupted (its driver is gone; the same command goes on)", False
    return "running", True


def _left(frame: pd.DataFrame, planned: int | None, ended: int) -> float | None:
    """Seconds that the planned trials which have not ended will take at the pace of the last ones."""
    times = pd.to_datetime(frame["ended_at"], utc=True, errors="coerce").dropna().sort_values()[-PACE:]
    if planned is None or len(times) < 2:
        return None
    pace = (times.iloc[-1] - times.iloc[0]).total_seconds() / (len(times) - 1)
    return pace * (planned - ended)
