"""What a key of a space file may hold: stem, stages, head, limits -> checked choices, or Misplaced with its place."""

import dataclasses
import typing
from collections.abc import Iterator, Mapping

from coatnet_search.architecture.arch import Head, Stem
from coatnet_search.architecture.blocks import block_name, menu
from coatnet_search.core import checks
from coatnet_search.core.canonical import Scalar
from coatnet_search.core.checks import Choice, Misplaced, choices, mapping, parts, whole, wrong
from coatnet_search.core.errors import InputError, unknown
from coatnet_search.core.limits import Limit
from coatnet_search.core.yaml_text import KeyPath

EXACT_COSTS = ("params", "macs", "activations")
_STAGE: dict[str, Scalar] = {"block": "C", "depth": 1, "width": 1, "stride": 1}  # a value of each one's type
_LEAST = {"depth": 0, "width": 1, "stride": 1}  # depth 0: the stage is absent


def exact_limits(value: object) -> dict[str, Limit]:
    """Limits that follow from an architecture alone."""
    checked = {}
    for key, bound in mapping(value).items():
        if key not in EXACT_COSTS:
            raise Misplaced(unknown("exact cost", key[:60], EXACT_COSTS), (key,))
        try:
            checked[key] = checks.limit(bound)
        except Misplaced as error:
            raise Misplaced(str(error), (key, *error.at)) from None
    return checked


def stem(value: object) -> dict[str, Choice]:
    """Choices of ``arch.Stem``'s fields."""
    checked = choices(value, "a stem", _defaults(Stem))
    for at, key, part in _each(checked):
        try:
            Stem(**{"kind": "patch", key: part})  # type: ignore[arg-type]  # a patch takes any stride: one key at a time
        except InputError as error:
            raise Misplaced(str(error).removeprefix(f"stem {key}: "), at) from None
    return checked


def stage(value: object) -> dict[str, Choice]:
    """Choices for one stage: block, depth, width, stride, and whatever options its blocks have."""
    given = mapping(value)
    blocks = _blocks(choices({"block": given["block"]}, "a stage", _STAGE)["block"]) if "block" in given else [*menu()]
    options = {key: default for name in reversed(blocks) for key, default in menu()[name].options.items()}
    checked = choices(given, f"a stage of {' or '.join(blocks)}", {**_STAGE, **options})
    for key in ("block", "depth", "width"):
        if key not in checked:
            raise Misplaced("this key is missing; add it (a value, or a list to choose from)", (key,))
    for at, key, part in _each(checked):
        if key in _LEAST:
            whole(part, _LEAST[key], at)
        if key == "stride" and part not in (1, 2):
            raise Misplaced(wrong("1 or 2", part), at)
        allowed = [menu()[name].values[key] for name in blocks if key in menu()[name].values]
        if allowed and not any(part in values for values in allowed):
            raise Misplaced(wrong(f"one of {', '.join(map(str, allowed[0]))}", part), at)
    return checked


def head(value: object) -> dict[str, Scalar]:
    """Constants for ``arch.Head``'s fields."""
    for key, part in mapping(value).items():
        if isinstance(part, (list, tuple)):
            raise Misplaced("expected one value, got a list; the head is not searched", (key,))
    return choices(value, "a head", _defaults(Head))  # type: ignore[return-value]


def _blocks(chosen: Choice) -> list[str]:
    """The full names of the blocks that a stage chooses from."""
    names = []
    for at, part in parts(chosen):
        try:
            names.append(block_name(str(part)))
        except InputError as error:
            raise Misplaced(str(error), ("block", *at)) from None
        if names[-1] in names[:-1]:
            raise Misplaced(f"expected different blocks, got {part} a second time; remove it", ("block", *at))
    return names


def _each(checked: Mapping[str, Choice]) -> Iterator[tuple[KeyPath, str, Scalar]]:
    for key, chosen in checked.items():
        yield from (((key, *at), key, part) for at, part in parts(chosen))


def _defaults(cls: type[Stem | Head]) -> dict[str, Scalar]:
    return {found.name: typing.cast(Scalar, found.default) for found in dataclasses.fields(cls)}
