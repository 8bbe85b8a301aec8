"""A layout and a wanted cost -> depths and widths that give it: ranked by closeness, picked for diversity.

Equal cost has many solutions, and their spread is part of a layout's effect: a study takes several instances of each.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np

from coatnet_search.architecture.arch import Arch
from coatnet_search.core.canonical import Scalar
from coatnet_search.core.errors import InputError, unknown
from coatnet_search.core.limits import limit_pair
from coatnet_search.core.quantities import show
from coatnet_search.space.layout_costs import Joint, joints
from coatnet_search.space.space import Space
from coatnet_search.space.survey import COLUMNS

LISTED = 100_000  # of more networks within the tolerances the nearest are kept; all are counted
CHECKED = 3_000  # of those that must be looked at one by one (two spellings of one network, limits on activations)
WIDEST = 2.0**40  # times the tolerance: nothing is farther
SHORT_OF_SHAPE = 0.5  # a network on the edge of the tolerances counts as half as different in shape as it is
ASKED = 50  # networks that ``accept`` is asked about at most: it measures
VIT_REL = "vit-rel"  # one stage of attention blocks


@dataclass(frozen=True, kw_only=True)
class Match:
    """A network near the budget. ``deviation`` and ``params_deviation``: (its own - wanted) / wanted in macs and in
    params (None: any will do); ``solutions``: how many networks are within the tolerances, exactly or at most."""

    candidate: dict[str, Scalar]
    arch: Arch
    params: int
    macs: int
    deviation: float
    params_deviation: float | None
    solutions: int
    exact: bool = True

    @property
    def shape(self) -> str:
        """Depth x width of the stem and of each stage, as ``2x64 2x96 3x192 5x384 2x768``."""
        parts = [(self.arch.stem.depth, self.arch.stem.width), *((s.depth, s.width) for s in self.arch.stages)]
        return " ".join(f"{depth}x{width}" for depth, width in parts)


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A budget: multiply-adds and, where given, parameters, each with a relative tolerance."""

    macs: float
    params: float | None = None
    tolerance: float = 0.05
    params_tolerance: float = 0.05

    def __post_init__(self) -> None:
        for name in ("macs", "params", "tolerance", "params_tolerance"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise InputError(f"{name} of a budget: expected a number above 0, got {value!r}")

    def widened(self, factor: float) -> "Wanted":
        """The same budget with so many times the tolerances."""
        return dataclasses.replace(self, tolerance=self.tolerance * factor,
                                   params_tolerance=self.params_tolerance * factor)  # fmt: skip

    def bounds(self, space: Space) -> tuple[np.ndarray, np.ndarray]:
        """The least and the most params and macs, (2,) each, that the budget and the space's limits allow."""
        centres = {"params": (self.params, self.params_tolerance), "macs": (self.macs, self.tolerance)}
        low, high = np.zeros(2), np.full(2, np.inf)
        for column, name in enumerate(COLUMNS):
            centre, tolerance = centres[name]
            if centre is not None:
                low[column], high[column] = centre * (1 - tolerance), centre * (1 + tolerance)
            least, most = limit_pair(space.limits[name]) if name in space.limits else (None, None)
            low[column] = max(low[column], -math.inf if least is None else least)
            high[column] = min(high[column], math.inf if most is None else most)
        return low, high

    def distance(self, costs: np.ndarray) -> np.ndarray:
        """Of params and macs (n, 2): the larger deviation as a share of its tolerance, (n,); at most 1 is within."""
        off: np.ndarray = np.abs(costs[:, 1] / self.macs - 1) / self.tolerance
        if self.params is None:
            return off
        return np.maximum(off, np.abs(costs[:, 0] / self.params - 1) / self.params_tolerance)

    def __str__(self) -> str:
        macs = f"{show('macs', self.macs)} multiply-adds (within {100 * self.tolerance:g} %)"
        if self.params is None:
            return macs
        return f"{macs} and {show('params', self.params)} parameters (within {100 * self.params_tolerance:g} %)"


def match(
    space: Space | Sequence[Space],
    layout: str,
    *,
    macs: float,
    params: float | None = None,
    tolerance: float = 0.05,
    params_tolerance: float | None = None,
    instances: int = 1,
    accept: Callable[[Match], bool] | None = None,
) -> list[Match]:
    """``instances`` networks of a layout (as ``C-C-T-T``) at a wanted cost: the closest, then those that differ most in
    depths and widths from the ones before, closer ones preferred; the same on every machine.

    ``tolerance`` is relative, ``params_tolerance`` (None: the same) that of params. ``accept`` may refuse a network for
    what has to be measured, as its throughput; it is asked about at most ``ASKED`` that are about to be taken. Raises
    InputError that names the nearest network where too few are within.
    """
    wanted = Wanted(macs=macs, params=params, tolerance=tolerance,
                    params_tolerance=tolerance if params_tolerance is None else params_tolerance)  # fmt: skip
    if instances < 1:
        raise InputError(f"instances: expected at least 1, got {instances}")
    parts = _joints(space, layout)
    found = _search(parts, wanted)
    if len(found) < instances:
        raise InputError(_too_few(parts, layout, wanted, len(found), instances))
    taken = found.pick(instances, accept)
    if len(taken) < instances:
        raise InputError(
            f"{layout} at {wanted}: {len(taken)} of {len(found)} networks are accepted, {instances} asked for"
        )
    return taken


def solutions(space: Space | Sequence[Space], layout: str, wanted: Wanted) -> "Solutions":
    """All networks of a layout within a budget and the limits of their space, the closest first. Raises InputError for
    a layout that the space does not have."""
    return _search(_joints(space, layout), wanted)


class Solutions(Sequence[Match]):
    """Networks within a budget, the closest first. ``total``: how many there are, at most, of which the nearest are
    listed; ``exact``: not fewer, so none is counted twice, and all keep limits that are not on sums."""

    def __init__(self, wanted: Wanted, listed: "_Listed", total: int, exact: bool) -> None:
        self.wanted, self.total, self.exact, self._listed = wanted, total, exact, listed

    def __len__(self) -> int:
        return len(self._listed.distance)

    @overload
    def __getitem__(self, place: int) -> Match: ...

    @overload
    def __getitem__(self, place: slice) -> list[Match]: ...

    def __getitem__(self, place: int | slice) -> Match | list[Match]:
        if isinstance(place, slice):
            return [self[one] for one in range(*place.indices(len(self)))]
        space, candidate = self._listed.candidate(place)
        params, macs = self._listed.costs[place].tolist()
        wanted = self.wanted
        return Match(
            candidate=candidate,
            arch=space.decode(candidate),
            params=params,
            macs=macs,
            deviation=macs / wanted.macs - 1,
            params_deviation=None if wanted.params is None else params / wanted.params - 1,
            solutions=self.total,
            exact=self.exact,
        )

    def shapes(self) -> int:
        """How many different profiles of depths and widths the listed networks have."""
        return len(np.unique(self._listed.shapes(), axis=0))

    def pick(self, instances: int, accept: Callable[[Match], bool] | None = None) -> list[Match]:
        """At most so many: the closest, then always the one farthest in shape from those before; see ``match``."""
        shapes = self._listed.shapes()
        near = 1 - SHORT_OF_SHAPE * self._listed.distance
        far = np.full(len(self), np.inf)
        taken: list[Match] = []
        for _ in range(min(len(self), ASKED) if accept else min(len(self), instances)):
            place = int(np.argmax(far * near if taken else far))
            one = self[place]
            if accept is None or accept(one):
                taken.append(one)
                far = np.minimum(far, np.sqrt(np.mean((shapes - shapes[place]) ** 2, axis=1)))  # octaves
            far[place] = -np.inf  # never again
            if len(taken) == instances:
                break
        return taken


# --- the search ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Listed:
    """Networks as arrays: (n, 2) params and macs, (n,) distances, the joint and the picks (n, most places) of each."""

    parts: Sequence[Joint]
    part: np.ndarray
    picks: np.ndarray
    costs: np.ndarray
    distance: np.ndarray

    def nearest(self, most: int) -> "_Listed":
        """In the order of distance, then of the space."""
        return self.at(np.lexsort((*self.picks.T[::-1], self.part, self.distance))[:most])

    def at(self, rows: np.ndarray) -> "_Listed":
        return _Listed(self.parts, self.part[rows], self.picks[rows], self.costs[rows], self.distance[rows])

    def candidate(self, row: int) -> tuple[Space, dict[str, Scalar]]:
        joint = self.parts[self.part[row]]
        picks = self.picks[row, : len(joint.stages)]
        return joint.space, joint.space.spelling(joint.root.image_size, joint.root.stem, joint.chosen(picks))

    def shapes(self) -> np.ndarray:
        """Log2 of depths and widths, (n, 2 x places + 2); a stage that is left out has half a block of the width
        before it."""
        shapes = np.zeros((len(self.part), 2 * self.picks.shape[1] + 2))
        for number in np.unique(self.part):
            rows = np.flatnonzero(self.part == number)
            shapes[rows] = self.parts[number].shapes(self.picks[rows])
        return shapes


def _joints(space: Space | Sequence[Space], layout: str) -> list[Joint]:
    spaces = [space] if isinstance(space, Space) else list(space)
    plain = layout.strip().lower().replace("_", "-")
    letters = "T" if plain == VIT_REL else plain.upper()
    found = [joint for one in spaces for joint in joints(one, letters)]
    if not found:
        known = sorted({name for one in spaces for name in one.survey.layouts})
        raise InputError(f"space {spaces[0].name}: {unknown('layout', layout, known)}")
    return found


def _search(parts: Sequence[Joint], wanted: Wanted) -> Solutions:
    total, held, pieces = 0, 0, [_none(parts)]
    for number, joint in enumerate(parts):
        for picks, costs in joint.within(*wanted.bounds(joint.space)):
            total, held = total + len(costs), held + len(costs)
            pieces.append(_piece(parts, number, picks, costs, wanted))
            if held > 4 * LISTED:
                pieces, held = [_joined(pieces).nearest(LISTED)], LISTED
    listed = _joined(pieces).nearest(LISTED)
    if not any(joint.space.ambiguous or joint.space.file.only or set(joint.space.limits) - set(COLUMNS)
               for joint in parts):  # fmt: skip
        return Solutions(wanted, listed, total, exact=True)
    nearest = listed.nearest(CHECKED)
    legal = nearest.at(np.fromiter(_legal(nearest, parts[0].layout), dtype=np.int64))
    exact = total <= CHECKED
    return Solutions(wanted, legal, len(legal.part) if exact else total, exact)


def _legal(listed: _Listed, layout: str) -> Iterator[int]:
    """The rows that keep all limits of their space, are no other spelling of a row before, and whose canonical spelling
    has the layout too."""
    seen = set()
    for row in range(len(listed.part)):
        space, candidate = listed.candidate(row)
        key = (id(space), *candidate.values())
        if key not in seen and not space.problems(candidate) and space.decode(candidate).layout == layout:
            yield row
        seen.add(key)


def _piece(parts: Sequence[Joint], number: int, picks: np.ndarray, costs: np.ndarray, wanted: Wanted) -> _Listed:
    places = max(len(joint.stages) for joint in parts)
    wide = np.pad(picks, ((0, 0), (0, places - picks.shape[1])))
    return _Listed(parts, np.full(len(costs), number), wide, costs, wanted.distance(costs))


def _none(parts: Sequence[Joint]) -> _Listed:
    places = max(len(joint.stages) for joint in parts)
    return _Listed(parts, np.zeros(0, dtype=np.int64), np.zeros((0, places), dtype=np.int16),
                   np.zeros((0, 2), dtype=np.int64), np.zeros(0))  # fmt: skip


def _joined(pieces: Sequence[_Listed]) -> _Listed:
    columns = ([getattr(piece, name) for piece in pieces] for name in ("part", "picks", "costs", "distance"))
    return _Listed(pieces[0].parts, *map(np.concatenate, columns))


def _too_few(parts: Sequence[Joint], layout: str, wanted: Wanted, count: int, instances: int) -> str:
    """Why there are not enough networks, with the next nearest one."""
    factor = 2.0
    while len(found := _search(parts, wanted.widened(factor))) < instances and factor < WIDEST:
        factor *= 2
    begin = f"{layout} at {wanted}: {f'{count} networks' if count else 'no network'}"
    if count and instances > 1:
        begin += f", {instances} asked for"
    if len(found) <= count:
        return f"{begin}, and the space has no more within its limits"
    near = found[min(instances, len(found)) - 1]
    params = "" if wanted.params is None else f" and {show('params', near.params)} parameters"
    off = [near.deviation] + ([] if near.params_deviation is None else [near.params_deviation])
    return (f"{begin}; the nearest{' other' if count else ''} has {show('macs', near.macs)} multiply-adds{params} "
            f"({' and '.join(f'{100 * value:+.1f} %' for value in off)}): {near.shape}")  # fmt: skip
