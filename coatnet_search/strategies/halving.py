"""Successive halving in epochs: every candidate trains to the first rung and pauses; the best of each rung go on.

A rung is a number of epochs. A trial has one training, whose learning-rate schedule is as long as the full budget: it
is read at the rungs, so that what goes on from its checkpoint to the end is the run that it would have been without
halving, and all results of a rung are equally far down the same schedule. Nothing waits for a rung to fill up: of the n
trials that are at a rung so far the best n / factor go on, by non-dominated rank, then by spacing. Low rungs must not
prune a layout that learns late: of each layout that may still turn out best (``chances``) at least one trial and half
of its share go on.

Everything here is a function of the trials. Sources: successive halving without waiting, Li et al., arXiv 1810.05934;
several objectives by rank and spacing, Schmucker et al., arXiv 2106.12639, Deb et al., NSGA-II (2002).
"""

import dataclasses
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import moocore
import numpy as np
from numpy.typing import NDArray

from coatnet_search.core.errors import InputError
from coatnet_search.core.quantities import Sense, quality, sign
from coatnet_search.record.trial import RUNG, Trial
from coatnet_search.strategies.breeding import crowding

Floats = NDArray[np.float64]

ALIVE = 0.05  # P(best) of a layout below which no place is kept for it
LEAST_FINISHED = 3  # trials with full training before anything is said of layouts
ENOUGH = 8  # trials at a rung before a strategy is shown that rung instead of a lower one
_DRAWS = 2000


def split(first: int, factor: int, epochs: int) -> tuple[int, ...]:
    """The epochs of the rungs, ascending; the last is the full budget. Raises InputError where they do not meet."""
    found = [first]
    while found[-1] < epochs:
        found.append(found[-1] * factor)
    if found[-1] != epochs or len(found) < 2:
        fits = " or ".join(map(str, found[-2:] if len(found) > 2 else [first * factor]))
        raise InputError(
            f"{epochs} epochs cannot be split into rungs that begin at {first} and grow {factor} times "
            f"({', '.join(map(str, found))}); set recipe.epochs to {fits}, or change first or factor"
        )
    return tuple(found)


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What to do now: the trial that goes on (None: none), why (``rank`` or ``quota``), its layout's P(best) where it
    is known, and the paused trials that nothing can bring further."""

    go_on: Trial | None = None
    reason: Literal["rank", "quota"] = "rank"
    chance: float | None = None
    stop: tuple[Trial, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Halving:
    """``rungs``: epochs, ascending, the last the full budget; of a rung's trials 1 / ``factor`` go on."""

    rungs: tuple[int, ...]
    factor: int
    objectives: Mapping[str, Sense]

    def decide(self, trials: Sequence[Trial], *, all_started: bool) -> Decision:
        """The highest promotion that is open; ``all_started``: no candidate will join these trials any more."""
        closed, stop = all_started, []
        best = Decision()
        chances = self.chances(trials)
        for rung in range(len(self.rungs) - 1):
            closed = closed and not any(
                trial.state in ("pending", "running") and trial.attributes.get(RUNG) == rung for trial in trials
            )
            waiting = self._waiting(trials, rung, chances, closed=closed)
            if waiting:
                trial, reason = waiting[0]
                best = Decision(go_on=trial, reason=reason, chance=chances.get(trial.label))
                closed = False
            elif closed:
                stop += [trial for trial in trials if _paused_at(trial, rung)]
        return dataclasses.replace(best, stop=tuple(stop))

    def _waiting(self, trials: Sequence[Trial], rung: int, chances: Mapping[str, float | None], *,
                 closed: bool) -> list[tuple[Trial, Literal["rank", "quota"]]]:  # fmt: skip
        """Who is paused at a rung and may leave it. ``closed``: no more trials will come to it."""
        ordered = self.ordered(trials, self.rungs[rung])
        places = max(len(ordered) // self.factor, 1 if closed else 0)
        best = ordered[:places]
        gone = {trial.number for trial in [*best, *(one for one in ordered if one.attributes.get(RUNG, 0) > rung)]}
        own: dict[str, list[Trial]] = defaultdict(list)
        for trial in ordered:
            own[trial.label].append(trial)
        kept: list[Trial] = []
        for label, its in own.items():
            if _alive(chances.get(label)) and (closed or len(its) >= self.factor):
                short = max(1, len(its) // (2 * self.factor)) - sum(trial.number in gone for trial in its)
                kept += [one for one in its if one.number not in gone and _paused_at(one, rung)][: max(0, short)]
        by_rank = [trial for trial in best if _paused_at(trial, rung)]
        return [*((trial, "rank") for trial in by_rank), *((trial, "quota") for trial in kept)]

    def ordered(self, trials: Sequence[Trial], epochs: int) -> list[Trial]:
        """The trials with a result after so many epochs, best first: by rank, then by spacing, then by number."""
        found = [(trial, losses) for trial in trials if (losses := self.losses(trial, epochs)) is not None]
        if not found:
            return []
        values = np.array([losses for _, losses in found])
        ranks = np.asarray(moocore.pareto_rank(values))
        spacing = np.zeros(len(found))
        for rank in set(ranks.tolist()):
            spacing[ranks == rank] = crowding(values[ranks == rank])
        numbers = np.array([trial.number or 0 for trial, _ in found])
        return [found[place][0] for place in np.lexsort((numbers, -spacing, ranks))]

    def losses(self, trial: Trial, epochs: int) -> Floats | None:
        """Its objectives after so many epochs, the less the better; None where one is not known."""
        metrics = metrics_at(trial, epochs)
        values = [metrics.get(name) for name in self.objectives] if metrics else [None]
        if any(value is None for value in values):
            return None
        signs = [sign(sense) for sense in self.objectives.values()]
        return np.array(values, dtype=float) * signs

    def chances(self, trials: Sequence[Trial]) -> dict[str, float | None]:
        """P(best) of each layout: that the network of best quality, were all trials trained in full, is one of its.

        Trials at lower rungs are given what trials of their layout that went all the way gained from there on: mean,
        its standard error and the spread within layouts, as normal draws. None: not known, as no trial of the layout
        has been trained in full, or hardly any of the study.
        """
        name = quality(self.objectives)
        one = Halving(rungs=self.rungs, factor=self.factor, objectives={name: self.objectives[name]})
        heights: dict[str, list[list[float]]] = defaultdict(list)  # by layout: a trial's losses at the rungs it reached
        for trial in trials:
            losses = [found[0] for epochs in self.rungs if (found := one.losses(trial, epochs)) is not None]
            if losses:
                heights[trial.label].append(losses)
        full = {label: [found for found in each if len(found) == len(self.rungs)] for label, each in heights.items()}
        if sum(len(each) for each in full.values()) < LEAST_FINISHED:
            return dict.fromkeys(heights)
        rng = np.random.default_rng(0)
        known = [label for label in heights if full[label]]
        gains = [_Gains(full, rung) for rung in range(len(self.rungs))]
        best = np.array(
            [
                np.min(
                    [gains[len(found) - 1].finals(label, found[-1], centres, rng) for found in heights[label]], axis=0
                )
                for label in known
                for centres in [rng.standard_normal(_DRAWS)]
            ]
        )  # (layouts, draws)
        shares = np.bincount(best.argmin(axis=0), minlength=len(known)) / _DRAWS
        return dict.fromkeys(heights) | {label: float(part) for label, part in zip(known, shares, strict=True)}

    def shown(self, trials: Sequence[Trial]) -> list[Trial]:
        """The trials as a strategy may see them: done after one and the same number of epochs, that of the highest rung
        with enough results; the others are running, or stopped, which says that they have been tried."""
        counts = [sum(self.losses(trial, epochs) is not None for trial in trials) for epochs in self.rungs]
        enough = [epochs for epochs, count in zip(self.rungs, counts, strict=True) if count >= ENOUGH]
        return [self._shown(trial, enough[-1] if enough else self.rungs[0]) for trial in trials]

    def _shown(self, trial: Trial, epochs: int) -> Trial:
        if trial.state in ("failed", "refused"):
            return trial
        if self.losses(trial, epochs) is not None:
            budget = dataclasses.replace(trial.budget, epochs=epochs) if trial.budget else None
            return dataclasses.replace(trial, state="done", metrics=metrics_at(trial, epochs) or {}, budget=budget)
        return trial if trial.state in ("pending", "running") else dataclasses.replace(trial, state="stopped")

    def epochs_expected(self, trials: int) -> float:
        """Epochs that so many trials take together, without places that are kept for layouts."""
        steps = np.diff([0, *self.rungs])
        return float(sum(max(1.0, trials / self.factor**rung) * step for rung, step in enumerate(steps)))


class _Gains:
    """How losses change from a rung to the end, by layout; ``full``: losses at all rungs, by layout."""

    def __init__(self, full: Mapping[str, Sequence[Sequence[float]]], rung: int) -> None:
        self.own = {label: np.array([found[-1] - found[rung] for found in each]) for label, each in full.items()}
        within = np.concatenate([gains - gains.mean() for gains in self.own.values() if len(gains)])
        free = len(within) - sum(len(gains) > 0 for gains in self.own.values())
        pooled = np.concatenate(list(self.own.values()))
        self.spread = float(np.sqrt((within**2).sum() / free)) if free > 0 else float(pooled.std())

    def finals(self, label: str, loss: float, centres: Floats, rng: np.random.Generator) -> Floats:
        """(draws,): the loss after full training of a trial that has this one here; ``centres`` are standard normal
        draws that its layout's trials share."""
        gains = self.own[label]
        around = gains.mean() + self.spread / np.sqrt(len(gains)) * centres
        return np.asarray(loss + around + self.spread * rng.standard_normal(len(centres)))


def metrics_at(trial: Trial, epochs: int) -> dict[str, float | None] | None:
    """What a trial showed after so many epochs, with its costs; None where it has no such report."""
    row = next((row for row in trial.curve if row.get("epoch") == epochs), None)
    if row is None:
        return None
    error = {"error": 1.0 - row["val_top1"]} if "val_top1" in row and "error" not in row else {}
    return {**trial.metrics, **{name: value for name, value in row.items() if name != "epoch"}, **error}


def _paused_at(trial: Trial, rung: int) -> bool:
    return trial.state == "paused" and trial.attributes.get(RUNG) == rung


def _alive(chance: float | None) -> bool:
    return chance is None or chance >= ALIVE
