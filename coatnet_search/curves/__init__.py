"""PLUGIN forms of scaling law, one file and one line in ``FORMS`` each; the predictive distribution and its answers.

A form's class fills ``form.Form``. Third parties add lines by the entry point group ``coatnet_search.curves`` (name =
form, object = its class). ``fit_form`` gives one form's parameters, ``fit_curve`` and ``fit_curves`` the predictive
distribution, ``compare`` the answers that follow from its samples. numpy and scipy alone.
"""

import functools
import importlib
import importlib.metadata
from typing import Any

from coatnet_search.core.errors import InputError, unknown
from coatnet_search.curves.form import Form

FORMS: dict[str, str] = {
    "power": "coatnet_search.curves.power:PowerLaw",
    "floor": "coatnet_search.curves.floored:Floored",
    "shifted": "coatnet_search.curves.shifted:Shifted",
    "m4": "coatnet_search.curves.m4:M4",
    "broken": "coatnet_search.curves.broken:Broken",
    "saturating": "coatnet_search.curves.saturating:Saturating",
    "joint": "coatnet_search.curves.joint:Joint",
    "joint_repeated": "coatnet_search.curves.joint_repeated:JointRepeated",
}


@functools.cache
def menu() -> dict[str, str]:
    """The built-in forms and those that installed packages add, each as ``package.module:Class``."""
    added = {point.name: point.value for point in importlib.metadata.entry_points(group="coatnet_search.curves")}
    return {**added, **FORMS}


@functools.cache
def load_form(name: str) -> Form:
    """The form of this name. Raises InputError that names the known ones."""
    if name not in menu():
        raise InputError(unknown("form", name, menu()))
    module, _, attribute = menu()[name].partition(":")
    cls: Any = getattr(importlib.import_module(module), attribute)
    form: Form = cls()
    return form
