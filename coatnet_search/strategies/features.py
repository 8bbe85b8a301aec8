"""Candidates as numbers, for models that predict metrics."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from coatnet_search.strategies.problem import Known, Problem

Array = np.ndarray[Any, np.dtype[Any]]


def rising(values: Sequence[Any]) -> bool:
    """Whether the values are numbers in order, so that neighbours are more alike than others."""
    numbers = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values)
    return numbers and list(values) == sorted(values)


class Features:
    """Columns of numbers for candidates; scales come from ``given``, so only columns of one object compare.

    Exact metrics are columns too; those that are positive and span more than a factor of three by their logarithm.
    """

    def __init__(self, problem: Problem, given: Sequence[Known]) -> None:
        self.num_dimensions = len(problem.sizes)
        self.dimensions = [place for place, size in enumerate(problem.sizes) if size > 1]
        self.sizes = [problem.sizes[place] for place in self.dimensions]
        choices = list(problem.choices.values())
        self.ordered = [problem.sizes[place] > 2 and rising(choices[place]) for place in self.dimensions]
        self.metrics = sorted({name for known in given for name in known.exact})
        raw = self._exact(given)
        self.metrics = [name for name, span in zip(self.metrics, np.ptp(raw, axis=0), strict=True) if span > 0]
        raw = self._exact(given)
        self.logarithmic = (raw.min(axis=0) > 0) & (raw.max(axis=0) > 3 * raw.min(axis=0))
        self.floor = raw.min(axis=0) / 10
        scaled = self._scaled(raw)
        self.centre, self.spread = scaled.mean(axis=0), scaled.std(axis=0)

    def _exact(self, candidates: Sequence[Known]) -> Array:
        values = [[known.exact.get(name, np.nan) for name in self.metrics] for known in candidates]
        return np.array(values, dtype=float).reshape(len(candidates), len(self.metrics))

    def _scaled(self, raw: Array) -> Array:
        return np.where(self.logarithmic, np.log(np.where(self.logarithmic, np.maximum(raw, self.floor), 1.0)), raw)

    def costs(self, candidates: Sequence[Known]) -> Array:
        """(candidates, exact metrics that vary), standardised."""
        return (self._scaled(self._exact(candidates)) - self.centre) / self.spread

    def _columns(self, candidates: Sequence[Known]) -> Array:
        """(candidates, dimensions that vary): positions among the choices."""
        rows = np.array([known.row for known in candidates], dtype=int).reshape(len(candidates), self.num_dimensions)
        return rows[:, self.dimensions]

    def linear(self, candidates: Sequence[Known]) -> Array:
        """One-hot positions, for ordered dimensions also the position in [-1, 1], and costs."""
        parts = [self.costs(candidates)]
        for column, size, ordered in zip(self._columns(candidates).T, self.sizes, self.ordered, strict=True):
            parts.append((column[:, None] == np.arange(1 if size == 2 else 0, size)).astype(float))
            if ordered:
                parts.append(2.0 * column[:, None] / (size - 1) - 1)
        return np.hstack(parts)

    def spatial(self, candidates: Sequence[Known]) -> tuple[Array, Array]:
        """Coordinates, and for each the dimension (or cost) that it belongs to.

        The squared distance within a dimension is 1 between different unordered values, in ordered ones the square of
        the difference in position as a share of the whole range.
        """
        costs = self.costs(candidates)
        parts, groups = [costs], list(range(costs.shape[1]))
        for column, size, ordered in zip(self._columns(candidates).T, self.sizes, self.ordered, strict=True):
            if ordered:
                parts.append(column[:, None] / (size - 1))
            else:
                parts.append((column[:, None] == np.arange(size)) / np.sqrt(2))
            groups += [max(groups, default=-1) + 1] * parts[-1].shape[1]
        return np.hstack(parts), np.array(groups, dtype=int)
