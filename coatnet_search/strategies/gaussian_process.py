"""Gaussian process regression of one metric on features: a linear part and one that falls with distance."""

import numpy as np
from scipy.linalg import cho_solve, cholesky, solve_triangular
from scipy.optimize import minimize

from coatnet_search.strategies.features import Array

_FITTED_ON = 250  # trials that rates and amplitudes are fitted on; the time grows with the cube
_STEPS = 40
_JITTER = 1e-6


def _square(one: Array, other: Array) -> Array:
    """Squared Euclidean distances, (len(one), len(other))."""
    cross = (one**2).sum(axis=1)[:, None] + (other**2).sum(axis=1) - 2 * one @ other.T
    return np.maximum(cross, 0.0)


class Process:
    """Kernel a F F' / p + b exp(-sum_k t_k d_k) + noise, with d_k the squared distance within dimension k.

    Log amplitudes a and b, log rates t_k and log noise maximise the likelihood under wide normal priors, which keep a
    dozen trials from fixing them. Without ``spatial`` coordinates it is ridge regression with a fitted penalty.
    """

    def __init__(self, linear: Array, spatial: Array, groups: Array, values: Array, rng: np.random.Generator) -> None:
        self.mean, self.spread = float(values.mean()), float(values.std()) or 1.0
        self.linear, self.spatial, self.groups = linear, spatial, groups
        self.num_groups = int(groups.max()) + 1 if len(groups) else 0
        self.values = (values - self.mean) / self.spread
        self.prior = np.array(
            [np.log(0.5), np.log(0.5), np.log(0.03), *[np.log(2 / max(1, self.num_groups))] * self.num_groups]
        )
        self.hyper = self._fit(rng.permutation(len(values))[:_FITTED_ON])
        kernel = self._kernel(linear, spatial, linear, spatial)
        kernel[np.diag_indices_from(kernel)] += self.noise + _JITTER
        self.factor = cholesky(kernel, lower=True)
        self.weights = cho_solve((self.factor, True), self.values)

    @property
    def noise(self) -> float:
        """Variance of standardised values that no feature explains."""
        return float(np.exp(self.hyper[2]))

    def _fit(self, subset: Array) -> Array:
        linear, spatial, values = self.linear[subset], self.spatial[subset], self.values[subset]
        product = linear @ linear.T / linear.shape[1]
        squares = np.array([_square(*[spatial[:, self.groups == group]] * 2) for group in range(self.num_groups)])
        squares = squares.reshape(self.num_groups, len(subset) ** 2)
        widths = np.array([1.0, 1.0, 1.5, *[1.5] * self.num_groups])

        def loss(hyper: Array) -> tuple[float, Array]:
            a, b, noise, rates = np.exp(hyper[0]), np.exp(hyper[1]), np.exp(hyper[2]), np.exp(hyper[3:])
            near = b * np.exp(-(rates @ squares)).reshape(product.shape) if self.num_groups else 0 * product
            kernel = a * product + near
            kernel[np.diag_indices_from(kernel)] += noise + _JITTER
            factor = cholesky(kernel, lower=True)
            inverse = cho_solve((factor, True), np.eye(len(values)))
            weights = inverse @ values
            slope = (inverse - np.outer(weights, weights)) / 2
            gradient = np.array([a * (slope * product).sum(), (slope * near).sum(), noise * np.trace(slope)])
            gradient = np.concatenate([gradient, -rates * (squares @ (slope * near).ravel())])
            away = (hyper - self.prior) / widths
            value = values @ weights / 2 + np.log(np.diag(factor)).sum() + (away**2).sum() / 2
            return float(value), gradient + away / widths

        limits = [(centre - 7, centre + 5) for centre in self.prior]
        found = minimize(loss, self.prior, jac=True, method="L-BFGS-B", bounds=limits, options={"maxiter": _STEPS})
        return np.asarray(found.x)

    def _kernel(self, linear: Array, spatial: Array, other_linear: Array, other_spatial: Array) -> Array:
        kernel = np.exp(self.hyper[0]) * (linear @ other_linear.T) / linear.shape[1]
        if self.num_groups:
            roots = np.exp(self.hyper[3:] / 2)[self.groups]
            kernel += np.exp(self.hyper[1] - _square(spatial * roots, other_spatial * roots))
        return np.asarray(kernel)

    def predict(self, linear: Array, spatial: Array) -> tuple[Array, Array]:
        """Mean and standard deviation, without noise, in the values' unit."""
        cross = self._kernel(linear, spatial, self.linear, self.spatial)
        solved = solve_triangular(self.factor, cross.T, lower=True)
        own = np.exp(self.hyper[0]) * (linear**2).sum(axis=1) / linear.shape[1]
        own = own + (np.exp(self.hyper[1]) if self.num_groups else 0.0)
        variance = np.maximum(own - (solved**2).sum(axis=0), 1e-10)
        return self.mean + self.spread * (cross @ self.weights), self.spread * np.sqrt(variance)

    def left_out(self) -> Array:
        """(trials,): each value predicted from all the others."""
        inverse = cho_solve((self.factor, True), np.eye(len(self.values)))
        return np.asarray(self.mean + self.spread * (self.values - self.weights / np.diag(inverse)))
