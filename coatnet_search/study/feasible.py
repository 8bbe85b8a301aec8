"""Checks that some network of the space keeps a study's limits on costs; else names the nearest."""

import numpy as np

from coatnet_search.core.errors import InputError
from coatnet_search.core.limits import limit_pair
from coatnet_search.core.quantities import quantity, sense_of, show
from coatnet_search.space.space import COST_METRICS
from coatnet_search.study.study import Study

DRAWN = 2000  # random networks, of which one must keep the limits


def check_feasible(study: Study) -> None:
    """Raises InputError, with the nearest cost that a network of the space has, where none keeps the study's limits."""
    bounds = {name: limit_pair(limit, sense_of(name, study.file.objectives))
              for name, limit in study.file.limits.items() if name in COST_METRICS}  # fmt: skip
    if not bounds or study.file.equal_cost:
        return
    if _one_keeps(study):
        return
    survey = study.space.survey
    for name, have in (("macs", survey.macs), ("params", survey.params)):
        low, high = bounds.get(name, (None, None))
        if high is not None and high < have[0]:
            raise _error(study, name, f"at most {show(name, high)}", f"at least {show(name, have[0])}")
        if low is not None and low > have[1]:
            raise _error(study, name, f"at least {show(name, low)}", f"at most {show(name, have[1])}")
    raise InputError(f"study {study.name}: limits: none of {DRAWN} random networks keeps them all; the nearest misses "
                     f"by {_nearest(study)}; widen them")  # fmt: skip


def _error(study: Study, name: str, asked: str, have: str) -> InputError:
    return InputError(f"study {study.name}: limits.{name}: no network of {study.space.name} has {asked} "
                      f"{quantity(name).title}; all have {have}")  # fmt: skip


def _one_keeps(study: Study) -> bool:
    rng = np.random.default_rng(0)
    return any(not study.refusals(study.space.exact(study.space.sample(rng))) for _ in range(DRAWN))


def _nearest(study: Study) -> str:
    """The smallest sum of relative distances to the limits among random networks, in words."""
    rng, problem = np.random.default_rng(0), study.problem()
    excesses = [problem.excess(study.space.exact(study.space.sample(rng))) for _ in range(DRAWN)]
    best = min(excesses, key=lambda excess: sum(excess.values()))
    return " and ".join(f"{100 * part:.0f} % of {quantity(name).title}" for name, part in best.items() if part)
