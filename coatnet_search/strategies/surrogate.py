"""Models of one metric over candidates, stacked by how well each ranks trials that it was not shown."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from scipy.stats import spearmanr
from sklearn.ensemble import ExtraTreesRegressor

from coatnet_search.strategies.features import Array, Features
from coatnet_search.strategies.gaussian_process import Process
from coatnet_search.strategies.problem import Known

MODELS = ("ridge", "forest", "process")
_TREES = 60
_SHARPNESS = 5.0  # how fast a model's share falls with its rank correlation; found on published tables


class Model(Protocol):
    left_out: Array  # (trials,): each value predicted without its own trial

    def predict(self, known: Sequence[Known]) -> tuple[Array, Array]: ...  # mean and standard deviation


class _Kernel:
    """A Gaussian process on choices and costs; only linear in them (ridge regression) unless ``curved``."""

    curved = True

    def __init__(self, features: Features, known: Sequence[Known], values: Array, rng: np.random.Generator) -> None:
        self.features = features
        linear, spatial, groups = self._inputs(known)
        self.process = Process(linear, spatial, groups, values, rng)
        self.left_out = self.process.left_out()

    def _inputs(self, known: Sequence[Known]) -> tuple[Array, Array, Array]:
        linear = self.features.linear(known)
        if self.curved:
            return linear, *self.features.spatial(known)
        return linear, np.zeros((len(known), 0)), np.zeros(0, int)

    def predict(self, known: Sequence[Known]) -> tuple[Array, Array]:
        return self.process.predict(*self._inputs(known)[:2])


class _Ridge(_Kernel):
    curved = False


class _Forest:
    """Randomised trees; about a third of them have not seen a given trial."""

    def __init__(self, features: Features, known: Sequence[Known], values: Array, rng: np.random.Generator) -> None:
        self.features = features
        inputs = features.linear(known)
        seed = int(rng.integers(2**31))
        self.forest = ExtraTreesRegressor(
            _TREES, min_samples_leaf=2, max_features=0.5, bootstrap=True, random_state=seed
        ).fit(inputs, values)
        unseen = np.ones((_TREES, len(values)), bool)
        for tree, drawn in enumerate(self.forest.estimators_samples_):
            unseen[tree, drawn] = False
        total = (self._each(inputs) * unseen).sum(axis=0)
        count = unseen.sum(axis=0)
        self.left_out = np.where(count > 0, total / np.maximum(count, 1), values.mean())

    def _each(self, inputs: Array) -> Array:
        """(trees, candidates)."""
        narrow = inputs.astype(np.float32)  # what trees are grown on
        return np.array([tree.predict(narrow) for tree in self.forest.estimators_])

    def predict(self, known: Sequence[Known]) -> tuple[Array, Array]:
        each = self._each(self.features.linear(known))
        return each.mean(axis=0), each.std(axis=0)


_KINDS: dict[str, type[_Ridge] | type[_Forest] | type[_Kernel]] = {
    "ridge": _Ridge,
    "forest": _Forest,
    "process": _Kernel,
}


class Surrogate:
    """The models that ``names`` lists; where they disagree, the prediction is less certain."""

    def __init__(self, features: Features, known: Sequence[Known], values: Array, names: Sequence[str],
                 rng: np.random.Generator) -> None:  # fmt: skip
        self.models: list[Model] = [_KINDS[name](features, known, values, rng) for name in names]
        ranks = np.array([_correlation(model.left_out, values) for model in self.models])
        shares = np.exp(_SHARPNESS * (ranks - ranks.max()))
        self.shares = shares / shares.sum()

    def predict(self, known: Sequence[Known]) -> tuple[Array, Array]:
        """Mean and standard deviation, (candidates,) each."""
        both = np.array([model.predict(known) for model in self.models])  # (models, 2, candidates)
        mean = self.shares @ both[:, 0]
        variance = self.shares @ (both[:, 1] ** 2 + (both[:, 0] - mean) ** 2)
        return mean, np.maximum(np.sqrt(variance), 1e-9)


def _correlation(predicted: Array, values: Array) -> float:
    if np.ptp(predicted) == 0 or np.ptp(values) == 0:
        return 0.0
    return float(spearmanr(predicted, values).statistic)
