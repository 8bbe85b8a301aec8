"""What to run next: runs ranked by how much they are expected to lower the regret of the choice, per GPU-hour.

The choice is a layout at a size (an arm), for a data size that is too dear to try. Curves of all arms are fitted at
once and drawn together; one draw is one state of the group. Over the draws, what a run would show and what each arm is
worth at the target go together or do not: the value of a run is the expected drop of the best arm's expected error once
the run is seen, by the linear-Gaussian regression of worth on result (knowledge gradient with correlated beliefs,
Frazier 2009; regression over draws, Strong 2015). Nothing is refitted for outcomes that did not happen.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coatnet_search.core.errors import InputError
from coatnet_search.curves.arm_runs import Arm, Run, curves_of, usable, with_logarithm
from coatnet_search.curves.compare import expected_regret, probability_best
from coatnet_search.curves.predict import REACH, Fits, fit_curves

Array = NDArray[np.float64]

MIN_SIZES = 3  # data sizes of an arm before anything is predicted: two say nothing about how a curve bends
PRIOR_FREEDOM = 4.0  # repeats that the first guess of the variances is worth
SURE = 4.0  # standard errors under which a correlation over the draws is taken for chance
CLIP = 0.005  # share of draws at each end that are moved to the edge: means of errors are not to hang on a few
BATCHES = (1, 2, 4)  # repeats that are valued together: one noisy run alone often changes no choice
_Z = np.linspace(-8.0, 8.0, 1601)
_WEIGHT = np.exp(-(_Z**2) / 2) / np.exp(-(_Z**2) / 2).sum()


@dataclass(frozen=True, kw_only=True)
class RankedRun:
    """``drop``: by how much the expected regret at the target falls after the run, in error; None: the arm cannot be
    predicted without it. ``per_hour`` is that of the best number of repeats."""

    run: Run
    hours: float
    drop: float | None
    per_hour: float


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The choice as it stands: for each arm P(best) and expected regret (in error) at the target; ``reason`` says why
    it is settled or why it is not."""

    best: Arm | None
    probability_best: Mapping[Arm, float]
    regret: Mapping[Arm, float]
    settled: bool
    reason: str


def rank_runs(observed: Sequence[Run], possible: Sequence[Run], target_images: float, hours: Callable[[Run], float],
              *, target_size: float | None = None, seed: int = 0,
              images: int | None = None) -> list[RankedRun]:  # fmt: skip
    """All possible runs, the most useful an hour first. Arms of fewer than ``MIN_SIZES`` data sizes come before all
    others, their cheapest runs first. ``target_size``: the choice is among the arms of this size (None: among all).

    Raises InputError for arms that cannot get enough data sizes, and for hours that are not positive.
    """
    beliefs = Beliefs(observed, possible, target_images, target_size=target_size, seed=seed, images=images)
    return beliefs.rank(possible, hours)


def settled(observed: Sequence[Run], possible: Sequence[Run], target_images: float, *, probability: float = 0.95,
            regret: float | None = None, target_size: float | None = None, seed: int = 0,
            beyond: bool = False, images: int | None = None) -> Answer:  # fmt: skip
    """Whether more runs are needed: P(best) has reached ``probability``, or the expected regret of the best is below
    ``regret`` (in error). Beyond the distance for which predictions are calibrated nothing is settled, unless
    ``beyond``. ``possible`` names arms that have no run yet."""
    beliefs = Beliefs(observed, possible, target_images, target_size=target_size, seed=seed, images=images)
    return beliefs.answer(probability=probability, regret=regret, beyond=beyond)


class Beliefs:
    """What is believed after the observed runs; the fit behind ``rank_runs`` and ``settled``."""

    def __init__(self, observed: Sequence[Run], possible: Sequence[Run], target_images: float, *,
                 target_size: float | None = None, seed: int = 0, images: int | None = None) -> None:  # fmt: skip
        if not (math.isfinite(target_images) and target_images > 0):
            raise InputError(f"target_images: expected a number above 0, got {target_images!r}")
        self.target = float(target_images)
        self.known = [with_logarithm(run, images) for run in observed if usable(run, images)]
        self._done = {run.key for run in observed}  # failed ones too: they are not run again
        self.arms = sorted({run.arm for run in (*observed, *possible)})
        self.choices = [arm for arm in self.arms if target_size is None or arm[1] == target_size]
        if not self.choices:
            raise InputError(f"target_size: no run has the size {target_size:g}; sizes: {_sizes(self.arms)}")
        self.sizes = {arm: {run.num_images for run in self.known if run.arm == arm} for arm in self.arms}
        self.fitted = [arm for arm in self.arms if len(self.sizes[arm]) >= MIN_SIZES]
        self.lacking = [arm for arm in self.arms if len(self.sizes[arm]) < MIN_SIZES]
        self._images = images
        self._fit = self._fits(seed) if self.fitted else None
        if self._fit is not None:
            self._draw(self._fit, possible)

    # --- the fit ------------------------------------------------------------------------------------------------------

    def _fits(self, seed: int) -> Fits:
        return fit_curves(curves_of([run for run in self.known if run.arm in self.fitted], self._images), seed=seed)

    def _draw(self, fits: Fits, possible: Sequence[Run]) -> None:
        """Draws at every data size that is asked for, (draws, arms, sizes); worths at the target, (draws, choices)."""
        sizes = sorted({float(run.num_images) for run in (*self.known, *possible)} | {self.target})
        self._place = {size: place for place, size in enumerate(sizes)}
        self._samples = fits.predict(sizes, beyond=True)
        self._log = np.log(self._samples)
        self.choices_fitted = [arm for arm in self.choices if arm in self.fitted]
        chosen = [self.fitted.index(arm) for arm in self.choices_fitted]
        self._worth = self._samples[:, chosen, self._place[self.target]]
        self.seed_variance, self.instance_variance = _variances(self.known, fits.noise_sd)

    # --- answers ------------------------------------------------------------------------------------------------------

    def answer(self, *, probability: float = 0.95, regret: float | None = None, beyond: bool = False) -> Answer:
        """See ``settled``."""
        missing = [arm for arm in self.choices if arm in self.lacking]
        known = [arm for arm in self.choices if arm not in self.lacking]
        if not known:
            return Answer(best=None, probability_best={}, regret={}, settled=False, reason=_lacking(missing))
        chances = dict(zip(known, probability_best(self._worth[:, :, None])[:, 0].tolist(), strict=True))
        regrets = dict(zip(known, expected_regret(self._worth[:, :, None])[:, 0].tolist(), strict=True))
        best = min(known, key=regrets.__getitem__)
        done, reason = self._verdict(best, chances[best], regrets[best], probability, regret)
        far = max(self.target / max(self.sizes[arm]) for arm in known)
        if missing:
            done, reason = False, _lacking(missing)
        elif far > REACH * (1 + 1e-9) and not beyond:
            done, reason = False, f"the target is {far:.3g} times the data of an arm; calibrated up to {REACH:g} times"
        return Answer(best=best, probability_best=chances, regret=regrets, settled=done, reason=reason)

    def _verdict(self, best: Arm, chance: float, loss: float, wanted: float, least: float | None) -> tuple[bool, str]:
        name = f"{best[0]} (size {best[1]:g})"
        if chance >= wanted:
            return True, f"{name} is best with probability {chance:.3f}"
        if least is not None and loss < least:
            return True, f"choosing {name} costs an expected {100 * loss:.3g} points of error, less than asked for"
        return False, f"{name} is best with probability {chance:.3f}; its expected regret is {100 * loss:.3g} points"

    # --- what next ----------------------------------------------------------------------------------------------------

    def rank(self, possible: Sequence[Run], hours: Callable[[Run], float]) -> list[RankedRun]:
        """See ``rank_runs``."""
        left = [run for run in dict.fromkeys(possible) if run.key not in self._done]
        costs = {run: _positive(hours(run), run) for run in left}
        if self.lacking:
            return self._needed(left, costs)
        kinds = {run: self._kind(run) for run in left}
        distinct = list(dict.fromkeys(kinds.values()))
        drops = dict(zip(distinct, self._drops(distinct), strict=True)) if distinct else {}
        paired = {(run.num_images, run.seed) for run in self.known}
        ranked = []
        for run in left:
            found = drops[kinds[run]]
            per_hour = max(drop / (count * costs[run]) for drop, count in zip(found, BATCHES, strict=True))
            ranked.append(RankedRun(run=run, hours=costs[run], drop=found[0], per_hour=per_hour))
        ranked.sort(key=lambda each: (-each.per_hour, (each.run.num_images, each.run.seed) not in paired))
        return ranked

    def _needed(self, left: Sequence[Run], costs: Mapping[Run, float]) -> list[RankedRun]:
        """For each arm that lacks data sizes its cheapest run at each of the sizes that it does not have, those first
        that are cheap for all arms, so that they can be compared; all arms have one size before any has its second."""
        sizes = {run.num_images for run in left}
        usual = {size: float(np.mean([costs[run] for run in left if run.num_images == size])) for size in sizes}
        found: list[tuple[int, Run]] = []
        for arm in self.lacking:
            seen = set(self.sizes[arm])
            for run in sorted((run for run in left if run.arm == arm), key=lambda r: (usual[r.num_images], costs[r])):
                if len(seen) < MIN_SIZES and run.num_images not in seen:
                    seen.add(run.num_images)
                    found.append((len(seen), run))
            if len(seen) < MIN_SIZES:
                raise InputError(f"{_lacking([arm])}, and only {len(seen)} can be run; add data sizes or leave it out")
        found.sort(key=lambda one: (one[0], costs[one[1]]))
        return [RankedRun(run=run, hours=costs[run], drop=None, per_hour=math.inf) for _, run in found]

    def _kind(self, run: Run) -> tuple[Arm, int, str | int | None]:
        """Runs that tell the same: arm, data size, and the instance where it is known already."""
        seen = any(other.arm == run.arm and other.instance == run.instance for other in self.known)
        return run.arm, run.num_images, run.instance if seen else None

    def _drops(self, kinds: Sequence[tuple[Arm, int, str | int | None]]) -> list[tuple[float, ...]]:
        """The expected drop of regret after 1, 2, 4 runs of each kind: by themselves, or as their half of what
        they tell together with as many of the strongest other arm at the same data size, where what both arms have in
        common drops out. Worths are taken beside the best arm's: only differences change a choice."""
        worth = np.clip(self._worth, *np.quantile(self._worth, [CLIP, 1 - CLIP], axis=0))
        means = worth.mean(axis=0)
        order = [self.choices_fitted[i] for i in np.argsort(means)]
        gaps = worth - means - (worth - means)[:, [int(means.argmin())]]
        found = []
        for arm, num_images, instance in kinds:
            effect, variance = self._instance(arm, instance)
            shown = self._log_at(arm, num_images) + effect
            values = [_after(means, gaps, shown, variance / count) for count in BATCHES]
            rival = next((other for other in order if other != arm), None)
            if rival is not None:
                apart = shown - self._log_at(rival, num_images)
                more = variance + self.seed_variance + self.instance_variance
                both = [_after(means, gaps, apart, more / count) for count in BATCHES]
                alone = [_after(means, gaps, self._log_at(rival, num_images), (more - variance) / count)
                         for count in BATCHES]  # fmt: skip
                values = [max(one, min(two / 2, two - other))
                          for one, two, other in zip(values, both, alone, strict=True)]  # fmt: skip
            found.append(tuple(values))
        return found

    def _log_at(self, arm: Arm, num_images: int) -> Array:
        values: Array = self._log[:, self.fitted.index(arm), self._place[float(num_images)]]
        return values

    def _instance(self, arm: Arm, instance: str | int | None) -> tuple[Array | float, float]:
        """What is believed of an instance's own effect on log error: its mean in each draw, (draws,), and the variance
        of one run's result around draw and mean. None: an instance that has not been run."""
        if instance is None:
            return 0.0, self.instance_variance + self.seed_variance
        runs = [run for run in self.known if run.arm == arm and run.instance == instance]
        places = [self._place[float(run.num_images)] for run in runs]
        logs = np.log(_errors(runs))
        residuals = (logs - self._log[:, self.fitted.index(arm)][:, places]).sum(axis=1)
        precision = len(runs) / self.seed_variance + 1 / self.instance_variance
        return residuals / self.seed_variance / precision, 1 / precision + self.seed_variance


def _after(means: Array, gaps: Array, shown: Array, variance: float) -> float:
    """What a result is worth that is ``shown`` (draws,) but for noise of this variance."""
    shown = np.clip(shown, *np.quantile(shown, [CLIP, 1 - CLIP]))
    shown = shown - shown.mean()
    together = shown @ gaps / len(shown)  # (choices,)
    chance = np.abs(together) < SURE / math.sqrt(len(shown)) * gaps.std(axis=0) * shown.std()
    together = np.where(chance, 0.0, together)
    return _drop(means, together / math.sqrt(float(shown.var()) + variance))


def _drop(means: Array, slopes: Array) -> float:
    """E[min of means] now less E[min of (means + slopes z)], z standard normal: what seeing z is worth."""
    later = (means + _Z[:, None] * slopes).min(axis=1) @ _WEIGHT
    return max(0.0, float(means.min() - later))


def _variances(runs: Sequence[Run], noise_sd: float) -> tuple[float, float]:
    """Variances of log error between seeds of a network and between networks of an arm, from the repeats that there
    are; the first guess, worth ``PRIOR_FREEDOM`` of them, is half of the fit's noise each."""
    guess = max(noise_sd, 1e-3) ** 2 / 2
    within, w_freedom, between, b_freedom, shares = 0.0, 0, 0.0, 0, 0.0
    cells: dict[tuple[object, ...], dict[object, list[float]]] = {}
    for run in runs:
        assert run.error is not None
        cells.setdefault((run.arm, run.num_images), {}).setdefault(run.instance, []).append(math.log(run.error))
    for instances in cells.values():
        means = np.array([np.mean(logs) for logs in instances.values()])
        within += sum(float(((np.array(logs) - np.mean(logs)) ** 2).sum()) for logs in instances.values())
        w_freedom += sum(len(logs) - 1 for logs in instances.values())
        between += float(((means - means.mean()) ** 2).sum())
        b_freedom += len(means) - 1
        shares += (len(means) - 1) * float(np.mean([1 / len(logs) for logs in instances.values()]))
    seeds = (within + PRIOR_FREEDOM * guess) / (w_freedom + PRIOR_FREEDOM)
    rest = max(between - shares * seeds, 0.0)  # what is between instances beyond their seeds
    return seeds, (rest + PRIOR_FREEDOM * guess) / (b_freedom + PRIOR_FREEDOM)


def _errors(runs: Sequence[Run]) -> list[float]:
    return [run.error for run in runs if run.error is not None]


def _positive(hours: float, run: Run) -> float:
    if not (math.isfinite(hours) and hours > 0):
        raise InputError(f"hours of {run.layout} on {run.num_images} images: expected a number above 0, got {hours!r}")
    return hours


def _lacking(arms: Sequence[Arm]) -> str:
    names = ", ".join(f"{layout} (size {size:g})" for layout, size in arms)
    return f"fewer than {MIN_SIZES} data sizes were run of {names}"


def _sizes(arms: Sequence[Arm]) -> str:
    return ", ".join(f"{size:g}" for size in sorted({size for _, size in arms}))
