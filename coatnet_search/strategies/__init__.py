"""PLUGIN how the next candidates are chosen: one file and one line in ``STRATEGIES`` each.

A strategy is a dataclass, whose fields are its options, with a method ``suggest`` (see ``problem.Strategy``). It sees
candidates, costs and metrics, never a network, so that the same strategy runs on a published table of trained networks.
Third parties add lines by the entry point group ``coatnet_search.strategies`` (name = strategy, object = its class); a
class that serves only so many objectives says so as ``most_objectives: ClassVar[int]``.
"""

import dataclasses
import functools
import importlib
import importlib.metadata
import math
from typing import Any

from coatnet_search.core.canonical import Scalar
from coatnet_search.core.errors import InputError, unknown
from coatnet_search.strategies.problem import Known, Problem, Strategy, Suggestion, look_back

__all__ = [
    "STRATEGIES",
    "Known",
    "Problem",
    "Strategy",
    "Suggestion",
    "check_objectives",
    "look_back",
    "make_strategy",
    "menu",
]

STRATEGIES: dict[str, str] = {
    "evolution": "coatnet_search.strategies.evolution:Evolution",
    "gp": "coatnet_search.strategies.gp:GP",
    "grid": "coatnet_search.strategies.grid:Grid",
    "nsga2": "coatnet_search.strategies.nsga2:NSGA2",
    "predictor": "coatnet_search.strategies.predictor:Predictor",
    "random": "coatnet_search.strategies.random:Random",
    "tpe": "coatnet_search.strategies.tpe:TPE",
}


@functools.cache
def menu() -> dict[str, str]:
    """The built-in strategies and those that installed packages add, each as ``package.module:Class``."""
    added = {point.name: point.value for point in importlib.metadata.entry_points(group="coatnet_search.strategies")}
    return {**added, **STRATEGIES}


def make_strategy(name: str, **options: Scalar) -> Strategy:
    """The strategy of this name with these options. Raises InputError for what is unknown or out of range."""
    cls = _class(name)
    fields = {field.name: field.default for field in dataclasses.fields(cls)}
    for option, value in options.items():
        if option not in fields:
            known = unknown("option", option, fields) if fields else f"takes no options, got {option!r}"
            raise InputError(f"strategy {name}: {known}")
        _check(f"strategy {name}: {option}", value, fields[option])
    try:
        made: Strategy = cls(**options)
    except InputError as error:
        raise InputError(f"strategy {name}: {error}") from None
    return made


def check_objectives(name: str, count: int) -> None:
    """Raises InputError where this strategy serves fewer objectives than ``count``."""
    most = getattr(_class(name), "most_objectives", math.inf)
    if count > most:
        able = [other for other in menu() if getattr(_class(other), "most_objectives", math.inf) >= count]
        words = "one objective" if most == 1 else f"at most {most} objectives"
        raise InputError(f"strategy {name} serves {words}, and the study has {count}; take one of {', '.join(able)}, "
                         "or put what is left over under limits")  # fmt: skip


def _class(name: str) -> Any:
    if name not in menu():
        raise InputError(unknown("strategy", name, menu()))
    module, _, attribute = menu()[name].partition(":")
    return getattr(importlib.import_module(module), attribute)


def _check(place: str, value: Scalar, default: Any) -> None:
    """An option has the type of its default; a whole number will do for a fraction."""
    kind = type(default)
    if type(value) is not kind and not (kind is float and type(value) is int):
        words = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
        raise InputError(f"{place}: expected {words[kind]}, got {value!r}")
