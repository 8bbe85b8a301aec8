"""How much wider a prediction must be at which distance, and how much curves of one group err together.

Both were measured on published learning curves (``calibration.json`` says which, by which command): at each distance of
extrapolation, the factor by which the draws' spread around their median has to be multiplied so that a 90 % interval
holds 90 % of what was measured there, and the correlation of two curves' errors of form.
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
    """Spread factors at ``distances`` (x_new / last x, ascending); ``agreement`` is the correlation of the errors of
    form of two curves of one group; ``provenance`` names the data set, its curves and the command."""

    distances: tuple[float, ...]
    factors: tuple[float, ...]
    agreement: float
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

    def text(self) -> str:
        """The file's text."""
        return json.dumps(asdict(self), indent=2) + "\n"


NONE = Calibration((2.0, 16.0), (1.0, 1.0), 0.0, "none: the model as it stands")


@functools.cache
def published_calibration() -> Calibration:
    """The one that ships with the package."""
    given = json.loads(importlib.resources.files("coatnet_search.curves").joinpath(FILE).read_text())
    return Calibration(tuple(given["distances"]), tuple(given["factors"]), given["agreement"], given["provenance"])
