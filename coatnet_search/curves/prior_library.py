"""The forms as one prior: a library of plausible curves, in units of the last x and of y there. K members."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coatnet_search.core.errors import InputError
from coatnet_search.curves import load_form
from coatnet_search.curves.form import Array, Form

MEMBERS = 4000
SEED = 20211019  # of the library, which is part of the model: the same for every fit

SHARES: Mapping[str, float] = {  # the broken form can imitate the others and has the most shapes to fill
    "power": 0.04,
    "floor": 0.14,
    "shifted": 0.1,
    "m4": 0.16,
    "broken": 0.4,
    "saturating": 0.16,
}


@dataclass(frozen=True)
class Library:
    """Members by form: ``parts`` holds (form, linear (k, L), shape (k, S)); ``names`` (K,) the form of each."""

    parts: tuple[tuple[Form, Array, Array], ...]
    names: NDArray[np.str_]

    def log_value(self, u: Array, members: NDArray[np.intp] | None = None) -> Array:
        """log y, up to the curve's own level, at u = log(x / last x), (m,): (K, m), or of these members alone."""
        first = 0
        x = np.exp(np.minimum(u, 60.0))
        wanted = np.arange(len(self.names)) if members is None else members
        out = np.empty((len(wanted), len(u)))
        for form, linear, shape in self.parts:
            mine = np.flatnonzero((wanted >= first) & (wanted < first + len(linear)))
            at = wanted[mine] - first
            if len(mine):
                out[mine] = np.log(np.maximum(form.value(x, linear[at], shape[at]), 1e-12))
            first += len(linear)
        return out


@functools.lru_cache(maxsize=16)
def library(form: str | None = None, members: int = MEMBERS) -> Library:
    """The library of all forms, or of one. Raises InputError for a form that takes no part in it (two inputs)."""
    shares = SHARES if form is None else {form: 1.0}
    rng = np.random.default_rng(SEED)
    parts, names = [], []
    for name, share in shares.items():
        law = load_form(name)
        count = round(members * share)
        drawn = law.prior(rng, count) if len(law.columns) == 1 else None
        if drawn is None:
            raise InputError(f"form {name}: has no predictive distribution of one variable; fit_form fits it")
        parts.append((law, *drawn))
        names += [name] * count
    return Library(tuple(parts), np.array(names))
