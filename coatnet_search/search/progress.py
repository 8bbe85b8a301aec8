"""Shows a running search on stderr: a live table on a terminal, a line a trial elsewhere."""

import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from types import TracebackType
from typing import Any

from coatnet_search.core.quantities import quantity, show
from coatnet_search.core.screen import LiveScreen, Screen, View
from coatnet_search.record.trial import TERMINAL, Trial
from coatnet_search.search.session import Session

SHOWN_DONE = 6
SHOWN_ROWS = 5  # the last epochs of a supernet, whose pace says how long the rest takes


class SupernetProgress:
    """A line for each epoch of a supernet's training, on stderr: loss, probes of each layout, time that is left."""

    def __init__(self, epochs: int) -> None:
        self._epochs, self._rows = epochs, list[Mapping[str, Any]]()
        Screen().note(f"supernet: training {epochs} epochs before the first trial ...")

    def saw(self, row: Mapping[str, Any]) -> None:
        self._rows.append(row)
        Screen().note(self._line(row))
        for text in row["restored"]:
            Screen().warn(f"went back to the last good state: {text}")

    def _line(self, row: Mapping[str, Any]) -> str:
        name = "supernets of a layout each" if row["partition"] == "layout" else "supernet"
        parts = [
            f"{name}: epoch {row['epoch']}/{self._epochs}",
            f"training loss {show('train_loss', row['train_loss'])}",
        ]
        for layout, probes in row.get("probes", {}).items():
            parts.append(f"{layout} " + "/".join(show("val_top1", probe["val_top1"]) for probe in probes.values()))
        seconds = [one["epoch_s"] for one in self._rows[-SHOWN_ROWS:]]
        left = sum(seconds) / len(seconds) * (self._epochs - row["epoch"])
        return "  ".join([*parts, *([f"ETA {timedelta(seconds=round(left))}"] if left else [])])


class Progress:
    """Shows a session: running trials, the best so far, how far, how long still. ``warning`` adds a line when it has
    one to say (the mirror's, for instance)."""

    def __init__(self, session: Session, workers: int, warning: Callable[[], str | None] = lambda: None) -> None:
        self._session, self._workers, self._warning = session, workers, warning
        self._start, self._done_before = time.monotonic(), len(session.finished)
        self._warned: str | None = None
        self._screen = LiveScreen(self._view)  # last: it looks at the view

    def __enter__(self) -> "Progress":
        for note in self._session.notes:
            self._screen.line(f"note: {note}")
        self._screen.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:  # fmt: skip
        self._screen.stop()

    def saw(self, number: int) -> None:
        """A trial reported; a finished one gets its line where there is no live table."""
        trial = self._session.trials[number]
        if trial.state in TERMINAL and not self._screen.is_live:
            self._screen.line(f"{self._counted()}  {self._line(trial)}")
        line = self._warning()
        if line and line != self._warned:
            self._warned = line
            self._screen.line(f"warning: {line}")

    def say(self, text: str) -> None:
        """A line of its own, such as for whom a trial waits."""
        self._screen.line(f"note: {text}")

    def _line(self, trial: Trial) -> str:
        if trial.failure:
            return f"#{trial.number} {self._name(trial)} {trial.state}: {trial.failure}"
        slow = trial.attributes.get("slow")
        late = [f"({slow:g} times as long as usual: a slow node, or a busy one?)"] if slow else []
        stopped = ["stopped"] if trial.state == "stopped" else []
        return f"#{trial.number} {self._name(trial)}  " + "  ".join([*stopped, *self._numbers(trial), *late])

    def _name(self, trial: Trial) -> str:
        """What is trained, and on how many images where that differs between trials."""
        count = trial.budget.num_images if trial.budget and self._session.study.file.equal_cost else None
        return f"{trial.label} on {count:,} images" if count else trial.label

    def _numbers(self, trial: Trial) -> list[str]:
        names = dict.fromkeys([*self._session.study.file.objectives, "val_top1", "throughput_images_per_s"])
        return [f"{quantity(name).title} {show(name, trial.metrics[name])}" for name in names if name in trial.metrics]

    def _counted(self) -> str:
        done, wanted = len(self._session.finished), self._session.wanted
        return f"[{done}/{wanted}] {self.eta()}"

    def eta(self) -> str:
        """The time that the trials left will take at the pace so far."""
        done = len(self._session.finished) - self._done_before
        left = self._session.wanted - len(self._session.finished)
        if done <= 0 or left <= 0:
            return "" if left <= 0 else "ETA ..."
        seconds = (time.monotonic() - self._start) / done * left
        return f"ETA {timedelta(seconds=round(seconds))}"

    def _view(self) -> View:
        session = self._session
        names = ("trial", "layout", "state", "epoch", *session.study.file.objectives, "val_top1")
        trials = [session.trials[number] for number in sorted(session.trials)]
        running = [trial for trial in trials if trial.state not in (*TERMINAL, "paused")]
        shown = [*session.finished[-SHOWN_DONE:], *running]
        return View(
            title=f"{session.study.name}: {session.study.file.question}",
            columns={name: name in ("layout", "state") for name in names},
            rows=[(self._row(trial), trial.state not in TERMINAL) for trial in shown],
            done=(len(session.finished), session.wanted), foot=f"{self._counted()}   {self._workers} at once",
        )  # fmt: skip

    def _row(self, trial: Trial) -> list[str]:
        last = dict(trial.curve[-1]) if trial.curve else {}
        if "val_top1" in last:
            last["error"] = 1 - last["val_top1"]
        known = {**last, **trial.metrics}
        budget = trial.budget or self._session.study.budget
        epoch = f"{int(last.get('epoch', 0))}/{budget.epochs}"
        names = [*self._session.study.file.objectives, "val_top1"]
        numbers = [show(name, known.get(name)) for name in names]
        return [str(trial.number), self._name(trial), trial.state, epoch, *numbers]
