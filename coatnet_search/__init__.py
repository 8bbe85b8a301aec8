"""CoAtNet Search: which CoAtNet layout to train in full, at which size, for the data that you will have.

Names are resolved on first use (PEP 562), so that ``coatnet-search --help`` imports neither torch nor Ray.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_HOME = {
    # one network
    "Arch": "architecture.arch",
    "Stage": "architecture.arch",
    "Stem": "architecture.arch",
    "Head": "architecture.arch",
    "load_arch": "study.lookup",
    "build": "architecture.build",
    "cost": "architecture.cost",
    "fold_norms": "architecture.fold_norms",
    "from_timm": "architecture.timm_bridge",
    "load_weights": "architecture.weights",
    "save_weights": "architecture.weights",
    # many networks
    "load_space": "space.space",
    "match": "space.match",
    "family_spaces": "space.family_grid",
    "Supernet": "supernet.network",
    # a study and its record
    "load_study": "study.load",
    "run_study": "search.run",
    "read_record": "record.fold",
    "Trial": "record.trial",
    "Budget": "training.budget",
    "Problem": "strategies.problem",
    "make_strategy": "strategies",
    # answers
    "network_front": "analysis.front",
    "pareto_front": "analysis.front",
    "choose": "analysis.choose",
    "fit_curve": "curves.predict",
    "fit_curves": "curves.predict",
    "fit_form": "curves.fitting",
    "Curve": "curves.summary",
    "Run": "curves.arm_runs",
    "rank_runs": "curves.next_run",
    "settled": "curves.next_run",
}

__all__ = [*_HOME, "__version__"]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'coatnet_search' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"coatnet_search.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
