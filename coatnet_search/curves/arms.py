"""What the curves of one study say together: a common curve, and how each arm departs from it.

A arms, m sizes, H nodes of a grid of hyper-parameters. The model of arm a's mean log error at u = log(x / last x):

    z_a(u) = common(u) + level_a + slope_a u + wander_a(u) + walk_a(u) + noise_a

The common curve is one of ``posterior.py``; levels are free. How far slopes differ between arms, how fast they change
(wander, an integrated Brownian motion) and how far arms depart in steps (walk, a Brownian motion) are unknowns of the
study, averaged by how likely its points are under each. With none of the three the order is that of smoothed levels,
with large ones that of each arm's own line: the study moves between both by what it shows. All but the common curve is
Gaussian, so arms, common noise and unknowns are averaged exactly. Beyond the last size a slope of its own fades.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import logsumexp

from coatnet_search.curves.form import Array
from coatnet_search.curves.posterior import COMMON, NOISE, Posterior, Seen, infer, trajectories, wander_covariance
from coatnet_search.curves.summary import Summary, alone, crude_slope

# sd between arms of slopes, of their change and of steps, each after one e-fold of x: even on this grid
SLOPES = (0.0, 0.01, 0.03, 0.1, 0.3)
WANDERS = (0.0, 0.03, 0.1, 0.3)
WALKS = (0.0, 0.03, 0.1, 0.3)
# e-folds of x over which a slope of its own fades beyond the last size, each as likely: from soon to hardly ever. An
# assumption; others were compared on the decisions of benchmarks/curve_fits.py, whose best ones were not taken
FADES = (1.0, 2.0, 5.0, 20.0)
LEVEL = 9.0  # variance of an arm's level: flat for all purposes
ABSENT = 1e6  # variance of what was not measured
LEAST_OWN = (
    0.003  # sd of log error by which two trainings differ at least, however alike the curves look: an assumption
)
LEAST = 12.0  # log weight below the heaviest node's at which nodes are left out


@dataclass(frozen=True)
class Departures:
    """Of each node: log weight (H,), normalised; ``nodes`` (H, 4): noise, slopes, wanders, walks; ``precision``
    (H, A, m, m) of z around the common curve. ``middle`` (m,) and ``error`` (m, m): the mean of the arms' curves, up to
    a level, and the covariance of that estimate."""

    summary: Summary
    log_weights: Array
    nodes: Array
    precision: Array
    middle: Array
    error: Array
    evidence: float


def prior(nodes: Array, u: Array, v: Array, fade: float = 1.0) -> Array:
    """Covariance (H, k, l) of departures at u and v without noise."""
    _, slopes, wanders, walks = (column[:, None, None] for column in np.atleast_2d(nodes).T)
    along = [np.where(each > 0, -fade * np.expm1(-each / fade), each) for each in (u, v)]
    same = np.sign(u)[:, None] == np.sign(v)[None]
    steps = np.where(same, np.minimum(np.abs(u)[:, None], np.abs(v)[None]), 0.0)
    together: Array = LEVEL + slopes**2 * np.outer(*along) + wanders**2 * wander_covariance(u, v) + walks**2 * steps
    return together


def depart(summary: Summary) -> Departures:
    """The unknowns of the study weighted by the likelihood of its points, the common curve left free at each size."""
    sizes = summary.z.shape[1]
    log_noise = summary.log_noise()
    log_noise = np.where(NOISE < LEAST_OWN, -np.inf, log_noise)
    kept = np.flatnonzero(log_noise > log_noise.max() - LEAST)
    nodes, chances = [], []
    for i in kept:
        for slopes in SLOPES:
            nodes += [(NOISE[i], slopes, wanders, walks) for wanders in WANDERS for walks in WALKS]
        chances += [log_noise[i] - log_noise.max()] * (len(SLOPES) * len(WANDERS) * len(WALKS))
    grid = np.array(nodes)
    alone = np.where(summary.present, summary.known, ABSENT)[:, :, None] * np.eye(sizes)
    base = prior(grid, summary.u, summary.u)
    covariance = base[:, None] + grid[:, 0, None, None, None] ** 2 * summary.noise + alone
    precision = np.linalg.inv(covariance).astype(np.float64)
    logs = -0.5 * np.linalg.slogdet(covariance)[1].sum(axis=1)
    total = precision.sum(axis=1)
    middles = np.linalg.solve(total, np.einsum("hamn,an->hm", precision, summary.z)[:, :, None])[:, :, 0]
    residual = summary.z - middles[:, None]
    residual = np.where(summary.present, residual, 0.0)
    squares = np.einsum("ham,hamn,han->h", residual, precision, residual)
    logs = np.array(chances) + logs - 0.5 * np.linalg.slogdet(total)[1] - 0.5 * squares
    evidence = float(logsumexp(logs))
    use = np.flatnonzero(logs > logs.max() - LEAST)
    weights = np.exp(logs[use] - logsumexp(logs[use]))
    centre = np.eye(sizes) - 1 / sizes
    middles = middles[use] @ centre
    middle: Array = weights @ middles
    error = np.einsum("h,hmn->mn", weights, centre @ np.linalg.inv(total[use]) @ centre)
    error += (middles - middle).T @ ((middles - middle) * weights[:, None])
    return Departures(summary, np.log(weights), grid[use], precision[use], middle, error, evidence)


@dataclass(frozen=True)
class Group:
    """The joint fit of a group's curves."""

    summary: Summary
    common: Posterior
    departures: Departures | None  # None: one arm alone

    @property
    def noise_variance(self) -> float:
        """Of a run's log error beyond its binomial part: posterior mean."""
        if self.departures is None:
            return self.common.noise_variance
        own = float(np.exp(self.departures.log_weights) @ self.departures.nodes[:, 0] ** 2)
        return own / max(1 - self.summary.paired, 1e-3) if self.summary.paired else own

    def draw(self, u_new: Array, draws: int, rng: np.random.Generator) -> Array:
        """Draws of the log of every arm's expected error, the mean over its runs, at u_new (ascending), (draws, A,
        k)."""
        ahead, at_points, variance = trajectories(self.common, u_new, draws, rng)
        if self.departures is None:
            return ahead[:, None] + self.summary.excess[:, None]
        middle = self._middle(at_points, variance, rng)
        weights = np.exp(self.departures.log_weights)
        node_of = np.sort(rng.choice(len(weights), size=draws, p=weights / weights.sum()))
        fade_of = rng.integers(len(FADES), size=draws)
        out = np.empty((draws, len(self.summary.z), len(u_new)))
        for node in np.unique(node_of):
            for fade in np.unique(fade_of[node_of == node]):
                mine = np.flatnonzero((node_of == node) & (fade_of == fade))
                out[mine] = ahead[mine, None] + self._departed(node, FADES[fade], u_new, middle[mine], rng)
        return out + self.summary.excess[:, None]

    def _middle(self, at_points: Array, variance: Array, rng: np.random.Generator) -> Array:
        """What the arms' curves have in common at the sizes, with common noise, for each draw of the common curve."""
        assert self.departures is not None
        noise, error, target = self.summary.common, self.departures.error, self.departures.middle
        centred = at_points - at_points.mean(axis=1, keepdims=True)
        out = np.empty_like(at_points)
        for value in np.unique(variance):
            mine = np.flatnonzero(variance == value)
            own = value * np.diag(noise)
            gain = own @ np.linalg.pinv(own + error, hermitian=True)
            left = own - gain @ own
            values, vectors = np.linalg.eigh((left + left.T) / 2)
            root = vectors * np.sqrt(np.maximum(values, 0.0))
            out[mine] = (
                at_points[mine]
                + (target - centred[mine]) @ gain.T
                + rng.standard_normal((len(mine), len(own))) @ root.T
            )
        return out

    def _departed(self, node: int, fade: float, u_new: Array, middle: Array, rng: np.random.Generator) -> Array:
        """Departures at u_new (draws, A, k): drawn from the prior and corrected by what was measured (Matheron)."""
        assert self.departures is not None
        summary, departures = self.summary, self.departures
        both = np.concatenate([summary.u, u_new])
        hyper = departures.nodes[node : node + 1]
        joint = prior(hyper, both, both, fade)[0]
        values, vectors = np.linalg.eigh(joint)
        root = vectors * np.sqrt(np.maximum(values, 0.0))
        arms, sizes = summary.z.shape
        drawn = rng.standard_normal((len(middle), arms, len(both))) @ root.T
        noise = hyper[0, 0] ** 2 * summary.noise + summary.known[:, :, None] * np.eye(sizes)
        noise_root = np.linalg.cholesky(noise + 1e-12 * np.eye(sizes))
        seen = drawn[:, :, :sizes] + np.einsum(
            "amn,dan->dam", noise_root, rng.standard_normal((len(middle), arms, sizes))
        )
        missing = np.where(summary.present, summary.z - middle[:, None] - seen, 0.0)
        correction = np.einsum("amn,dan->dam", departures.precision[node], missing)
        across = prior(hyper, u_new, summary.u, fade)[0]
        moved: Array = drawn[:, :, sizes:] + correction @ across.T
        return moved


def fit_group(summary: Summary, form: str | None = None, seed: int = 0) -> Group:
    """The joint fit of the curves of one group."""
    if len(summary.z) == 1:
        return Group(summary, infer(alone(summary, 0), form, seed), None)
    departures = depart(summary)
    seen = Seen(summary.u, departures.middle, np.diag(summary.common), departures.error, summary.log_common(),
                crude_slope(summary.u, departures.middle))  # fmt: skip
    return Group(summary, infer(seen, form, seed, COMMON), departures)
