"""How much wider a prediction must be at which distance, and how much curves of one group err together.

Both were measured on published learning curves (``calibration.json`` says which, by which command): at each distance of
extrapolation, the factors by which the draws' distance from their median has to be multiplied so that a 90 % interval
holds 90 % and a 50 % interval 50 % of what was measured there, and the correlation of two curves' errors of form.
Errors have heavier tails than the draws: one factor for all would make the order of curves less sure than it is.
"""

import functools
import importlib.resources
import json
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import norm, rankdata

from coatnet_search.curves.form import Array

FILE = "calibration.json"
CORE_SCORE, BOUND_SCORE = 0.6745, 1.6449  # normal scores of the bounds of a 50 % and of a 90 % interval


@dataclass(frozen=True)
class Calibration:
    """Spread factors at ``distances`` (x_new / last x, ascending): ``factors`` of the bounds of the 90 % interval and
    what lies beyond them, ``cores`` of the 50 % interval and what lies inside, none larger than its factor;
    ``agreement`` is the correlation of the errors of form of two curves of one group; ``provenance`` names the data
    set, its curves and the command."""

    distances: tuple[float, ...]
    factors: tuple[float, ...]
    cores: tuple[float, ...]
    agreement: float
    provenance: str = ""

    @property
    def reach(self) -> float:
        """The farthest distance for which it is calibrated."""
        return self.distances[-1]

    def widening(self, u: Array, score: ArrayLike) -> Array:
        """The factor at u = log(x_new / last x) of a draw with this normal score: 1 inside the measured range, that of
        the last distance beyond the table; between the two intervals it changes evenly with the score."""
        places = np.log([1.0, *self.distances])
        core, bound = (np.interp(u, places, [1.0, *each]) for each in (self.cores, self.factors))
        share = np.clip((np.abs(score) - CORE_SCORE) / (BOUND_SCORE - CORE_SCORE), 0.0, 1.0)
        factors: Array = core + (bound - core) * share
        return factors

    def widened(self, u: Array, drawn: Array) -> Array:
        """Draws (draws, k) at u (k,), each as far from the median as its factor says."""
        middle = np.median(drawn, axis=0)
        scores = norm.ppf((rankdata(drawn, method="ordinal", axis=0) - 0.5) / len(drawn))
        moved: Array = middle + (drawn - middle) * self.widening(u, scores)
        return moved

    def text(self) -> str:
        """The file's text."""
        return json.dumps(asdict(self), indent=2) + "\n"


NONE = Calibration((2.0, 16.0), (1.0, 1.0), (1.0, 1.0), 0.0, "none: the model as it stands")


@functools.cache
def published_calibration() -> Calibration:
    """The one that ships with the package."""
    given = json.loads(importlib.resources.files("coatnet_search.curves").joinpath(FILE).read_text())
    fields: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in given.items()}
    return Calibration(**fields)
