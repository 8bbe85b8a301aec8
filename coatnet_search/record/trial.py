"""One trial of a study as a value: its candidate, state, metrics, failure. One row of the record."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from coatnet_search.architecture.arch import Arch, Candidate
from coatnet_search.training.budget import Budget

State = Literal["pending", "running", "paused", "stopped", "done", "failed", "refused"]
STATES: tuple[State, ...] = ("pending", "running", "paused", "stopped", "done", "failed", "refused")
TERMINAL: tuple[State, ...] = ("stopped", "done", "failed", "refused")


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why a trial failed: ``kind`` is a short word (nan, killed, out_of_memory, error, ...), ``message`` one line."""

    kind: str
    message: str
    traceback: str | None = None

    def __str__(self) -> str:
        return f"{self.kind}: {self.message}"


@dataclass(frozen=True)
class Trial:
    """One row of a study. A metric that is not known is absent or None, never a default."""

    candidate: Candidate
    metrics: Mapping[str, float | None] = field(default_factory=dict)
    state: State = "pending"
    number: int | None = None
    key: str | None = None
    arch: Arch | None = None
    budget: Budget | None = None
    curve: tuple[Mapping[str, float], ...] = ()
    attributes: Mapping[str, Any] = field(default_factory=dict)
    failure: Failure | None = None
    device: str | None = None
    timings: Mapping[str, float] = field(default_factory=dict)
    tries: int = 0  # how often its process was killed, a driver's own only since it last came to a further epoch

    @property
    def label(self) -> str:
        """What people call its network: the layout, or the name of a network that is not ours."""
        given = self.attributes.get("peer") or self.attributes.get("layout")
        return str(given or (self.arch.layout if self.arch else "?"))
