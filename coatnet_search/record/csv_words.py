"""The words that other tools (Optuna, MLflow, Weights & Biases, Ray, spreadsheets) write in a table of runs."""

import re
from collections.abc import Mapping, Sequence

# By what a run has become: its result counts; it has none to count; it was ended early; it has not ended.
STATES: Mapping[str, tuple[str, ...]] = {
    "done": ("done", "complete", "completed", "finished", "terminated", "success", "succeeded", "ok"),
    "failed": ("failed", "fail", "failure", "error", "errored", "crashed", "crash"),
    "stopped": ("stopped", "pruned", "killed", "canceled", "cancelled", "preempted", "aborted", "interrupted"),
    "unfinished": ("running", "waiting", "pending", "scheduled", "queued", "paused", "preempting", "active"),
}
_STATE_OF = {word: state for state, words in STATES.items() for word in words}
MISSING = ("", "nan", "na", "n/a", "null", "none", "-")
_PERCENT = re.compile(r"%|(?<![a-z])(?:pct|percent|percents|percentage|per cent)(?![a-z])")


def state_of(text: str) -> str | None:
    """One of ``STATES``, for ``COMPLETE``, ``TrialState.PRUNED`` or ``crashed``; None for a word that is none."""
    return _STATE_OF.get(text.strip().rpartition(".")[2].lower())


def says_percent(title: str) -> bool:
    """Whether a column's name says that its numbers are percents: ``accuracy (%)``, ``err_pct``."""
    return _PERCENT.search(title.lower()) is not None


def is_blank(cells: Sequence[str]) -> bool:
    return not any(cell.strip() for cell in cells)
