"""Picks the networks that an audit trains alone: equal numbers of each layout and band of cost.

The bands are thirds of the search's finished trials by multiply-adds. Within a cell (layout and band) first come
networks that other records have trained, then finished trials spread over their inherited scores, and where these are
too few, random networks of the space, which are scored with inherited weights first. What is audited already stays.
"""

import functools
import itertools
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from coatnet_search.analysis.audit import NUM_BANDS, audited_metric
from coatnet_search.architecture.arch import Arch, Candidate
from coatnet_search.core.errors import InputError
from coatnet_search.record.fold import read_trials, record_path, study_of
from coatnet_search.record.trial import AUDIT, DRAWN, PEER, TERMINAL, Trial
from coatnet_search.study.planned_trials import PlannedTrial
from coatnet_search.study.study import Study, yaml_values
from coatnet_search.training.recipe import recipe_values

POOL = 3000  # random networks among which those for cells are found that the search did not fill
_GOLDEN = (math.sqrt(5) - 1) / 2  # steps of this share of a range spread any number of picks over it

Place = tuple[str, int]  # layout and band


@dataclass(frozen=True, kw_only=True)
class Pick:
    """A network to audit; ``number``: its finished inherited trial, None where it has none yet."""

    place: Place
    arch: Arch
    candidate: Candidate
    number: int | None = None


@dataclass
class _Supply:
    """The networks of a cell in the order in which they are taken."""

    queue: list[Pick] = field(default_factory=list)
    taken: list[Pick] = field(default_factory=list)


class AuditPlan:
    """What an audit still has to run. Reads the other records once, when it is made.

    Raises InputError where a record of ``audit.records`` is not there or holds no training that counts.
    """

    def __init__(self, study: Study) -> None:
        assert study.file.audit is not None
        self.study, self.spec = study, study.file.audit
        self._elsewhere = [row for path in self.spec.records for row in _counting(study, Path(path))]
        self._picked: tuple[object, list[Pick]] = (None, [])  # for which trials, and what: asked for often

    def left(self, trials: Sequence[Trial]) -> list[PlannedTrial]:
        """The trials to run next, all searched ones being finished: inherited ones of networks that were drawn, and
        when these are done the trainings alone, a seed of every network before the next seed of any."""
        picks = self.picks(trials)
        drawn = [pick for pick in picks if pick.number is None]
        if drawn:
            known = {trial.key for trial in trials}
            cells = [PlannedTrial(arch=pick.arch, budget=self.study.budget, candidate=pick.candidate,
                          attributes={DRAWN: True}) for pick in drawn]  # fmt: skip
            return [cell for cell in cells if cell.key(self.study) not in known]
        return list(self._alone(picks, trials))

    def _alone(self, picks: Sequence[Pick], trials: Sequence[Trial]) -> Iterator[PlannedTrial]:
        seeds = _seeds(trials)
        wanted = {}
        for pick in picks:
            have = seeds.get(pick.arch.id, set())
            free = (seed for seed in itertools.count(self.study.file.search.seed) if seed not in have)
            wanted[pick.arch.id] = list(itertools.islice(free, max(0, self.spec.seeds - len(have))))
        for place in range(self.spec.seeds):
            for pick in picks:
                own = wanted[pick.arch.id]
                missing = self.spec.seeds - len(own)  # those that are there count as the first
                if missing <= place:
                    yield self._cell(pick, own[place - missing], place + 1)

    def _cell(self, pick: Pick, seed: int, place: int) -> PlannedTrial:
        budget = self.study.audit_budget(seed - self.study.file.search.seed)
        return PlannedTrial(arch=pick.arch, budget=budget, candidate=pick.candidate,
                    attributes={AUDIT: place, "of": pick.number})  # fmt: skip

    def elsewhere(self, trials: Sequence[Trial]) -> list[Trial]:
        """The trainings of other records that count for the picked networks and are not in this one yet."""
        picks = {pick.arch.id: pick for pick in self.picks(trials)}
        seeds, found = _seeds(trials), []
        for row in self._elsewhere:
            assert row.arch is not None and row.budget is not None
            pick = picks.get(row.arch.id)
            if pick is None or pick.number is None or row.budget.seed in seeds.get(row.arch.id, set()):
                continue
            own = seeds.setdefault(row.arch.id, set())
            own.add(row.budget.seed)
            found.append(_copied(row, pick, len(own), self.study))
        return found

    # --- the choice of networks ----------------------------------------------------------------------------------

    def picks(self, trials: Sequence[Trial]) -> list[Pick]:
        """The audited networks in the order in which they were and will be trained; fewer than asked for where the
        space has no more."""
        state = [(trial.number, trial.state) for trial in trials]
        if state != self._picked[0]:
            self._picked = state, self._pick(trials)
        return self._picked[1]

    def _pick(self, trials: Sequence[Trial]) -> list[Pick]:
        found = _inherited(trials)
        supplies = self._supplies(found, trials)
        audited = Counter(str(trial.arch.id) for trial in trials if trial.kind == AUDIT and trial.arch)
        picked: list[Pick] = []
        for supply in supplies.values():
            kept = [pick for pick in supply.queue if pick.arch.id in audited]
            supply.taken, supply.queue = kept, [pick for pick in supply.queue if pick.arch.id not in audited]
            picked += kept
        order = list(audited)  # by number: the trials are
        picked.sort(key=lambda pick: order.index(pick.arch.id))
        while len(picked) < self.spec.candidates:
            place = _emptiest(supplies)
            if place is None:
                break
            pick = supplies[place].queue.pop(0)
            supplies[place].taken.append(pick)
            picked.append(pick)
        return picked

    def _supplies(self, found: Sequence[Trial], trials: Sequence[Trial]) -> dict[Place, _Supply]:
        """What each cell can give, its drawn networks last; a cell that can give nothing is left out."""
        edges = _edges([trial for trial in found if DRAWN not in trial.attributes])
        supplies = {(layout, band): _Supply() for layout in sorted(self.study.space.survey.layouts)
                    for band in range(NUM_BANDS)}  # fmt: skip
        numbers = {trial.arch.id: trial for trial in found if trial.arch}
        lost = {trial.arch.id for trial in trials if trial.arch and trial.state in TERMINAL} - set(numbers)
        seen: set[str] = set()
        for candidate in self._candidates(found, edges, supplies):
            arch = self.study.space.decode(candidate)
            place = (arch.layout, _band(self.study.space.exact(candidate)["macs"], edges))
            if arch.id in seen or arch.id in lost or place not in supplies:
                continue
            seen.add(arch.id)
            own = numbers.get(arch.id)
            supplies[place].queue.append(Pick(place=place, arch=arch, candidate=dict(candidate),
                                              number=own.number if own else None))  # fmt: skip
        return {place: supply for place, supply in supplies.items() if supply.queue}

    def _candidates(self, found: Sequence[Trial], edges: Sequence[float],
                    supplies: Mapping[Place, _Supply]) -> Iterator[Candidate]:  # fmt: skip
        for row in self._elsewhere:
            if not self.study.space.problems(row.candidate):
                yield self.study.space.canonical(row.candidate)
        for number, place in enumerate(supplies):
            own = [trial for trial in found if trial.arch and place == (trial.arch.layout, _band_of(trial, edges))]
            rng = np.random.default_rng([self.study.file.search.seed, number])
            yield from (trial.candidate for trial in _spread(own, self._score, float(rng.uniform())))
        share = math.ceil(self.spec.candidates / len(supplies))
        if any(len(supply.queue) < share for supply in supplies.values()):
            yield from self._pool

    @functools.cached_property
    def _pool(self) -> list[Candidate]:
        """Random networks that keep the study's limits on costs; the same for every record of the study."""
        rng = np.random.default_rng([self.study.file.search.seed, POOL])
        drawn = (self.study.space.sample(rng) for _ in range(POOL))
        return [one for one in drawn if not self.study.refusals(self.study.space.exact(one))]

    def _score(self, trial: Trial) -> float:
        return float(trial.metrics.get(audited_metric(self.study.file.objectives)) or 0.0)


def _inherited(trials: Sequence[Trial]) -> list[Trial]:
    """The finished trials with inherited weights, in order of number."""
    return [trial for trial in trials
            if trial.state == "done" and trial.arch and trial.kind not in (AUDIT, PEER)]  # fmt: skip


def _edges(found: Sequence[Trial]) -> list[float]:
    macs = [float(trial.metrics["macs"] or 0) for trial in found]
    return [float(edge) for edge in np.quantile(macs, np.arange(1, NUM_BANDS) / NUM_BANDS)] if macs else []


def _band(macs: float, edges: Sequence[float]) -> int:
    return int(np.searchsorted(np.asarray(edges), macs, side="left"))


def _band_of(trial: Trial, edges: Sequence[float]) -> int:
    return _band(float(trial.metrics["macs"] or 0), edges)


def _spread(trials: Sequence[Trial], score: Any, start: float) -> list[Trial]:
    """The trials in an order of which every beginning is spread over the scores."""
    waiting = sorted(trials, key=lambda trial: (score(trial), trial.number))
    out = []
    while waiting:
        out.append(waiting.pop(int(start * len(waiting))))
        start = (start + _GOLDEN) % 1.0
    return out


def _emptiest(supplies: Mapping[Place, _Supply]) -> Place | None:
    """The cell whose turn it is: with the fewest taken, then of the layout and the band with the fewest."""
    of_layout, of_band = Counter[str](), Counter[int]()
    for (layout, band), supply in supplies.items():
        of_layout[layout] += len(supply.taken)
        of_band[band] += len(supply.taken)
    free = [place for place, supply in supplies.items() if supply.queue]
    return min(free, default=None, key=lambda place: (len(supplies[place].taken), of_layout[place[0]],
                                                      of_band[place[1]], place))  # fmt: skip


def _seeds(trials: Sequence[Trial]) -> dict[str, set[int]]:
    """The seeds of each network's trainings alone, whatever became of them."""
    seeds: dict[str, set[int]] = {}
    for trial in trials:
        if trial.kind == AUDIT and trial.arch and trial.budget:
            seeds.setdefault(trial.arch.id, set()).add(trial.budget.seed)
    return seeds


# --- other records ----------------------------------------------------------------------------------------------------


def _counting(study: Study, path: Path) -> list[Trial]:
    """The finished trainings of another record that an audit of this study would repeat."""
    if not record_path(path).is_file():
        raise InputError(f"audit.records: {path}: there is no record")
    trials = [trial for trial in read_trials(path) if trial.state == "done" and trial.arch and trial.budget]
    alike = _alike(study, study_of(path))
    found = [trial for trial in trials if _counts(study, trial, alike)]
    if not found:
        raise InputError(f"audit.records: {path}: none of its {len(trials)} finished trials is a training of a network "
                         "of this space on the same data, with the same recipe, epochs and images")  # fmt: skip
    return found


def _alike(study: Study, other: Mapping[str, Any]) -> bool:
    """Whether trainings of the other study have the data and recipe of this one's audit."""
    mine, theirs = yaml_values(recipe_values(study.audit_recipe)), yaml_values(other.get("recipe") or {})
    same = study.summary is not None and other.get("data_digest") == study.summary.digest
    least = (other.get("data") or {}).get("min_per_class", 1) == study.file.data.min_per_class
    own = other.get("evaluate") == "trained" and not other.get("evaluator")
    return same and least and own and {**mine, "epochs": 0} == {**theirs, "epochs": 0}


def _counts(study: Study, trial: Trial, alike: bool) -> bool:
    assert trial.arch is not None and trial.budget is not None and study.summary is not None
    wanted, every = study.audit_budget(), study.summary.num_train
    same = ((trial.budget.epochs, trial.budget.num_images or every, trial.budget.draw, trial.budget.image_size)
            == (wanted.epochs, wanted.num_images or every, wanted.draw, wanted.image_size))  # fmt: skip
    return (alike and same) or trial.key == study.audit_key(trial.arch, trial.budget)


def _copied(row: Trial, pick: Pick, place: int, study: Study) -> Trial:
    """A training of another record as a trial of this one, without number."""
    assert row.budget is not None
    attributes = {AUDIT: place, "of": pick.number, "elsewhere": row.number}
    return Trial(dict(pick.candidate), row.metrics, "done", key=study.audit_key(pick.arch, row.budget), arch=pick.arch,
                 budget=row.budget, attributes=attributes, device=row.device, timings=row.timings)  # fmt: skip


def check_audit(study: Study) -> None:
    """Raises InputError for what the study's audit, if it has one, cannot be run with."""
    spec = study.file.audit
    if spec is None:
        return
    audited_metric(study.file.objectives)
    summary = study.summary
    least = study.file.data.min_per_class * (summary.num_classes if summary else 1)
    if summary and spec.num_images and not least <= spec.num_images <= summary.num_train:
        raise InputError(f"study {study.name}: audit.num_images: expected {least:,} to {summary.num_train:,} (all "
                         f"training images), got {spec.num_images:,}")  # fmt: skip
    if summary:
        AuditPlan(study)
