"""What noise between trainings does to a front: who is on it with which probability, how large it is.

A network's losses (objectives, the less the better) are known up to a standard error each, 0 where a value is exact.
Draws of all networks' true losses give the rest. The best of many noisy values look better than they are, so means are
first drawn towards the mean of all networks, as far as their spread is noise (normal prior, estimated from the means).
The noise of one training is the spread between trainings of the same network that differ by seed, pooled over networks
(``between_seeds``).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import moocore
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
DRAWS = 1000
REFERENCE = 1.1  # of the range of each objective, from its best value


def between_seeds(networks: Sequence[Floats]) -> Floats | None:
    """(objectives,): one standard deviation between trainings of a network; each is (trainings, objectives). None where
    no network was trained twice."""
    twice = [found for found in networks if len(found) > 1]
    if not twice:
        return None
    squares = sum(((found - found.mean(axis=0)) ** 2).sum(axis=0) for found in twice)
    return np.asarray(np.sqrt(squares / sum(len(found) - 1 for found in twice)))


@dataclass(frozen=True)
class Noisy:
    """Networks with noise: ``means`` and ``errors`` (networks, objectives), errors are standard errors of the means."""

    means: Floats
    errors: Floats

    @classmethod
    def of(cls, networks: Sequence[Floats], deviation: Floats) -> "Noisy":
        """From trainings, each (trainings, objectives), and the noise of one training (``between_seeds``)."""
        means = np.array([found.mean(axis=0) for found in networks])
        return cls(means, np.array([deviation / np.sqrt(len(found)) for found in networks]))

    def _draws(self) -> Floats:
        """(draws, networks, objectives), the same each time."""
        noise = self.errors**2
        typical = noise.mean(axis=0)
        spread = np.maximum(self.means.var(axis=0) - typical, typical)  # never all of it noise: no certainty from that
        kept = np.where(noise > 0, spread / np.maximum(spread + noise, 1e-300), 1.0)  # (networks, objectives)
        centres = self.means.mean(axis=0) * (1 - kept) + self.means * kept
        rng = np.random.default_rng(0)
        return np.asarray(centres + self.errors * np.sqrt(kept) * rng.standard_normal((DRAWS, *self.means.shape)))

    def on_front(self) -> Floats:
        """(networks,): the probability that no other network is better in one objective and as good in all."""
        if not len(self.means):
            return np.zeros(0)
        found = np.array([moocore.is_nondominated(draw, keep_weakly=True) for draw in self._draws()])
        return np.asarray(found.mean(axis=0))

    def hypervolume(self) -> tuple[float, float, float]:
        """The share of the box from the best to 10 % beyond the worst means that the true front fills: the median, and
        the 90 % interval. What is better than the box counts as its edge, what is worse is left out."""
        low = self.means.min(axis=0)
        span = np.ptp(self.means, axis=0)
        unit = np.where(span > 0, span, 1.0) * REFERENCE
        indicator = moocore.Hypervolume(ref=np.ones(self.means.shape[1]))

        def share(losses: Floats) -> float:
            inside = np.maximum((losses - low) / unit, 0.0)
            inside = inside[(inside < 1).all(axis=1)]
            return float(indicator(inside)) if len(inside) else 0.0

        draws = [share(draw) for draw in self._draws()]
        low_end, middle, high_end = np.quantile(draws, (0.05, 0.5, 0.95))
        return float(middle), float(low_end), float(high_end)


def near_front(networks: Sequence[Floats], least: float) -> NDArray[np.bool_]:
    """Which networks are on the front with a probability of at least ``least``, given the noise that their trainings
    show; the front itself where no network was trained twice."""
    deviation = between_seeds(networks)
    exact = np.zeros(networks[0].shape[1]) if networks and deviation is None else deviation
    if exact is None:
        return np.zeros(0, dtype=bool)
    return np.asarray(Noisy.of(networks, exact).on_front() >= max(least, 1e-9))
