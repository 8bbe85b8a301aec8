"""CoAtNet Search: which CoAtNet layout to train in full, at which size, for the data that you will have.

Names are resolved on first use (PEP 562), so that ``coatnet-search --help`` imports neither torch nor Ray.
"""

import importlib
import sys
from types import ModuleType
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "Arch": "arch",
    "Stage": "arch",
    "Stem": "arch",
    "Head": "arch",
    "Budget": "arch",
    "Trial": "arch",
    "load_arch": "lookup",
    "build": "build",
    "cost": "cost",
    "fold_norms": "fold",
    "from_timm": "timm_bridge",
    "load_weights": "weights",
    "save_weights": "weights",
    "load_space": "space",
    "match": "match",
    "family_spaces": "family_grid",
    "Supernet": "supernet.supernet",
    "load_study": "study_file",
    "run_study": "run",
    "read_record": "record",
    "pareto_front": "analyse",
    "fit_curve": "curves.predict",
    "fit_curves": "curves.predict",
    "fit_form": "curves.fitting",
    "Curve": "curves.summary",
    "Run": "settle",
    "rank_runs": "settle",
    "settled": "settle",
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


class _Package(ModuleType):
    """Importing the module ``coatnet_search.build`` would hide the function of the same name; the function stays."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOME and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
