"""What one curve's points say: weights on the library's members and the curve's deviation from them.

m sizes, K members, H pairs of hyper-parameters. The model of the mean log error z at u = log(x / last x):

    z(u) = level + member(u) + deviation(u) + noise

The level is free. The deviation has a local slope that wanders from the member's: an integrated Brownian motion from
the last x in both directions, measured in units of the curve's own slope, so that it means the same for losses that
fall by 5 % and errors that fall by half. Behind the last x it discounts far points, beyond it it widens the prediction.
The size of noise and deviation is averaged over a small grid.
"""

from dataclasses import dataclass, replace

import numpy as np
from scipy.linalg import cho_factor, cho_solve, solve_triangular
from scipy.special import logsumexp

from coatnet_search.curves.form import Array
from coatnet_search.curves.prior_library import Library
from coatnet_search.curves.summary import Summary

NOISE = np.array([0.001, 0.002, 0.004, 0.007, 0.012, 0.02, 0.04, 0.08])  # sd of log error of one run
WANDER = np.array([0.03, 0.1, 0.3, 0.8])  # sd of the deviation's slope after one e-fold of x, in the curve's slopes
FLAT = 100.0  # variance of the level: flat for all purposes


@dataclass(frozen=True)
class Posterior:
    """``log_weights`` (H, K), normalised; ``residual`` (K, m) = z - member; per pair the noise, the wander and the
    Cholesky factor of the covariance of z."""

    summary: Summary
    library: Library
    log_weights: Array
    residual: Array
    pairs: tuple[tuple[float, float], ...]

    @property
    def member_weights(self) -> Array:
        weights: Array = np.exp(logsumexp(self.log_weights, axis=0))
        return weights

    def with_prior(self, log_prior: Array) -> "Posterior":
        """The same, had the members had this prior, (K,)."""
        log_weights = self.log_weights + log_prior
        return replace(self, log_weights=log_weights - logsumexp(log_weights))


def noise_prior(square: float, freedom: int) -> Array:
    """Log weights of ``NOISE`` given repeats' squares: their chi-square likelihood on an even prior."""
    weights: Array = -freedom * np.log(NOISE) - square / (2 * NOISE**2)
    return weights - logsumexp(weights)


def wander_covariance(u: Array, v: Array) -> Array:
    """Covariance of an integrated Brownian motion of unit rate that starts at 0 in both directions."""
    near = np.minimum(np.abs(u)[:, None], np.abs(v)[None])
    far = np.maximum(np.abs(u)[:, None], np.abs(v)[None])
    same: Array = np.sign(u)[:, None] == np.sign(v)[None]
    return np.where(same, near**2 * (3 * far - near) / 6, 0.0)


def infer(summary: Summary, library: Library, log_noise: Array) -> Posterior:
    """Weights of members and of pairs of noise and wander, all members alike before the points are seen."""
    residual = summary.z - library.log_value(summary.u)
    pairs = tuple((float(noise), float(wander)) for noise in NOISE for wander in WANDER)
    rows = []
    for i, (noise, wander) in enumerate(pairs):
        lower = np.linalg.cholesky(covariance(summary, noise, wander))
        inverse = solve_triangular(lower, np.eye(len(lower)), lower=True, check_finite=False)
        white = residual @ inverse.T  # (K, m)
        rows.append(
            -0.5 * np.einsum("km,km->k", white, white) - np.log(np.diag(lower)).sum() + log_noise[i // len(WANDER)]
        )
    log_weights = np.stack(rows)
    return Posterior(summary, library, log_weights - logsumexp(log_weights), residual, pairs)


def covariance(summary: Summary, noise: float, wander: float) -> Array:
    """Covariance (m, m) of z around a member."""
    wandered = (wander * summary.slope) ** 2 * wander_covariance(summary.u, summary.u)
    together: Array = FLAT + noise**2 * summary.noise + wandered
    return together


def trajectories(posterior: Posterior, u_new: Array, draws: int, rng: np.random.Generator) -> Array:
    """Curves drawn from the posterior at u_new, each a whole curve: log error (draws, len(u_new))."""
    flat = np.exp(posterior.log_weights).ravel()
    chosen = np.sort(rng.choice(len(flat), size=draws, p=flat / flat.sum()))
    pair, member = np.unravel_index(chosen, posterior.log_weights.shape)
    drawn = posterior.library.log_value(u_new, member)
    normal = rng.standard_normal((draws, len(u_new)))
    u, slope = posterior.summary.u, posterior.summary.slope
    for i in np.unique(pair):
        mine = pair == i
        noise, wander = posterior.pairs[i]
        factor = cho_factor(covariance(posterior.summary, noise, wander), lower=True)
        rate = (wander * slope) ** 2
        across = FLAT + rate * wander_covariance(u_new, u)  # (new, m)
        gain = cho_solve(factor, across.T).T
        spread = FLAT + rate * wander_covariance(u_new, u_new) - gain @ across.T
        values, vectors = np.linalg.eigh((spread + spread.T) / 2)
        root = vectors * np.sqrt(np.maximum(values, 0.0))
        drawn[mine] += posterior.residual[member[mine]] @ gain.T + normal[mine] @ root.T
    return drawn[rng.permutation(draws)]
