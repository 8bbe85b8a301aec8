"""One trial of a study as a value: its candidate, state, metrics, failure. One row of the record."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from coatnet_search.architecture.arch import Arch, Candidate
from coatnet_search.training.budget import Budget

State = Literal["pending", "running", "paused", "stopped", "done", "failed", "refused"]
STATES: tuple[State, ...] = ("pending", "running", "paused", "stopped", "done", "failed", "refused")
TERMINAL: tuple[State, ...] = ("stopped", "done", "failed", "refused")

Kind = Literal["candidate", "peer", "audit", "drawn", "baseline", "replicate", "tune", "rung"]
# what a trial is for, by the attribute that says so; where a trial has several, the first of these counts
AUDIT: Final = "audit"  # of a network's training alone, after a search with inherited weights; also its origin
DRAWN: Final = "drawn"  # of an inherited trial that the audit asked for; the search did not propose it
BASELINE: Final = "baseline"  # of a random candidate beside the search, for comparison; also its origin
REPLICATE: Final = "replicate"  # of another trial's network and budget with another seed; also its origin
PEER: Final = "peer"  # of a network of timm: its name
TUNE: Final = "tune"  # of a trial of the sweep before a scaling study's runs: the values that it tries
RUNG: Final = "rung"  # of a candidate under halving: the rung, from 0, that it trains to, waits or was stopped at
MARKS: tuple[Kind, ...] = (AUDIT, DRAWN, BASELINE, REPLICATE, PEER, TUNE, RUNG)
SEARCHED: tuple[Kind, ...] = ("candidate", RUNG)  # what the strategy of a search proposed


def kind_of(attributes: object) -> Kind:
    """What a trial with these attributes is for; ``candidate`` where none of them says otherwise."""
    known = attributes if isinstance(attributes, Mapping) else {}
    return next((mark for mark in MARKS if not (known.get(mark) is None or known[mark] is False)), "candidate")


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
    def kind(self) -> Kind:
        """What the trial is for."""
        return kind_of(self.attributes)

    @property
    def label(self) -> str:
        """What people call its network: the layout, or the name of a network that is not ours."""
        given = self.attributes.get("peer") or self.attributes.get("layout")
        return str(given or (self.arch.layout if self.arch else "?"))
