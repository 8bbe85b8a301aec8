"""How much wider a prediction must be at which distance, and how much curves of one group err together.

Both were measured on published learning curves (``calibration.json`` says which, by which command): at each distance of
extrapolation, the factor by which the draws' spread around their median has to be multiplied so that a 90 % interval
holds 90 % of what was measured there, and the correlation of two curves' places in their own intervals.
"""

import functools
import importlib.resources
import json
from dataclasses import asdict, dataclass

import numpy as np

from coatnet_search.curves.form import Array

FILE = "calibration.json"


@dataclass(frozen=True)
class Calibration:
    """Tables over ``distances`` (x_new / last x, ascending): spread factors and correlations. ``provenance`` names the
    data set, its curves and the command."""

    distances: tuple[float, ...]
    factors: tuple[float, ...]
    correlations: tuple[float, ...]
    provenance: str = ""

    @property
    def reach(self) -> float:
        """The farthest distance for which it is calibrated."""
        return self.distances[-1]

    def widening(self, u: Array) -> Array:
        """The factor at u = log(x_new / last x): 1 inside the measured range, the last one beyond the table."""
        places = np.log([1.0, *self.distances])
        factors: Array = np.interp(u, places, [1.0, *self.factors])
        return factors

    def agreement(self, u: float) -> float:
        """The correlation of curves of one group at u; within the measured range their errors are their own."""
        places = np.log([1.0, *self.distances])
        return float(np.interp(u, places, [0.0, *self.correlations]))

    def text(self) -> str:
        """The file's text."""
        return json.dumps(asdict(self), indent=2) + "\n"


NONE = Calibration((2.0, 16.0), (1.0, 1.0), (0.0, 0.0), "none: the model as it stands")


@functools.cache
def published_calibration() -> Calibration:
    """The one that ships with the package."""
    given = json.loads(importlib.resources.files("coatnet_search.curves").joinpath(FILE).read_text())
    distances, factors, correlations = (tuple(given[key]) for key in ("distances", "factors", "correlations"))
    return Calibration(distances, factors, correlations, given["provenance"])
