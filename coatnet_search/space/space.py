"""A space file -> Space: flat candidates in, architectures out; legality as reasons, counting, sampling.

A scalar in a space file is a constant, a list is a dimension: ``s2_width`` is the width of the second stage. A depth of
0 leaves a stage out, its stride too. Dimensions without effect (a kernel where the stage is attention) stand at their
first value in the canonical form, so that equal networks are one candidate.
"""

import contextlib
import dataclasses
import functools
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path as FilePath
from types import MappingProxyType
from typing import Any

import numpy as np

from coatnet_search.architecture.arch import Arch, Candidate, Head, Stage, Stem
from coatnet_search.architecture.blocks import block_name, menu
from coatnet_search.architecture.cost import Cost, cost
from coatnet_search.core import bundled
from coatnet_search.core.canonical import Scalar
from coatnet_search.core.errors import InputError, unknown
from coatnet_search.core.limits import Limit, limit_problems
from coatnet_search.core.schema import Document, read_document
from coatnet_search.space.file import SpaceFile
from coatnet_search.space.survey import COLUMNS, Path, Root, Survey, listed, paths, surveyed, within

COST_METRICS = ("params", "macs", "activations")
COUNTED_EXACTLY = 4_000_000  # networks whose costs are held at once (64 MB)
LISTED = 300_000  # candidates that are worth listing one by one
ESTIMATED_FROM = 2_000  # random networks, where a space with limits is too large to count
TRIES = 20_000  # random candidates drawn before a space counts as having no legal one
_STRUCTURE = ("block", "depth", "width", "stride")


class Space:
    """A space file as an object. ``choices`` maps each dimension to its values, in the order of the network."""

    def __init__(self, file: SpaceFile, name: str = "space") -> None:
        self.file, self.name = file, name
        self.limits: Mapping[str, Limit] = dict(file.limits)
        self.choices: Mapping[str, tuple[Scalar, ...]] = MappingProxyType(dict(self._dimensions()))
        self._check_only()
        self._stages: dict[tuple[Any, ...], Stage | None] = {}
        self._tables: dict[tuple[int, int | None], dict[Stage | None, dict[str, Scalar]]] = {}
        self._stage_keys = [self._keys_of(place) for place in range(1, len(file.stages) + 1)]
        self._last: tuple[Candidate, Arch] | None = None  # searches ask for problems, then for costs of the same one
        self._stem_names = tuple(file.stem)
        self._stem_keys = [(f"stem_{name}", value) for name, value in file.stem.items()]

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy is made of the file again; nothing else is its own."""
        return Space, (self.file, self.name)

    # --- what the file says ---------------------------------------------------------------------------------------

    def _dimensions(self) -> Iterator[tuple[str, tuple[Scalar, ...]]]:
        if isinstance(self.file.image_size, tuple):
            yield "image_size", self.file.image_size
        for key, value in self.file.stem.items():
            if isinstance(value, tuple):
                yield f"stem_{key}", value
        if isinstance(self.file.head_size, tuple):
            yield "head_size", self.file.head_size
        for place, row in enumerate(self.file.stages, 1):
            for key, value in row.items():
                if isinstance(value, tuple):
                    letters = tuple(menu()[block_name(str(v))].letter for v in value) if key == "block" else value
                    if len(set(letters)) < len(letters):
                        raise InputError(f"stages[{place}].{key}: a value is listed twice: {list(value)}")
                    yield f"s{place}_{key}", letters

    def _check_only(self) -> None:
        for combination in self.file.only:
            for name, value in combination.items():
                if name not in self.choices:
                    raise InputError(f"only: {unknown('dimension', name, self.choices)}")
                if value not in self.choices[name]:
                    raise InputError(f"only: {name}: {value!r} is not among {list(self.choices[name])}")

    def _keys_of(self, place: int) -> list[tuple[str, str | None, Scalar | None]]:
        """(key, dimension or None, constant) for each key of a stage's row."""
        row = self.file.stages[place - 1]
        return [(key, f"s{place}_{key}" if isinstance(value, tuple) else None,
                 None if isinstance(value, tuple) else value) for key, value in row.items()]  # fmt: skip

    def with_data(self, in_channels: int, num_classes: int) -> "Space":
        """The same space for images with so many channels and classes."""
        return Space(dataclasses.replace(self.file, in_channels=in_channels, num_classes=num_classes), self.name)

    def combinations(self) -> Iterator["Space"]:
        """The space without ``only``, narrowed to each combination that is allowed; without any, the space itself."""
        if not self.file.only:
            yield self
        for one in self.file.only:
            yield Space(self._narrowed(one), self.name)

    def _narrowed(self, values: Mapping[str, Scalar]) -> SpaceFile:
        def row(prefix: str, given: Mapping[str, Any]) -> dict[str, Any]:
            return {key: (values[f"{prefix}_{key}"],) if f"{prefix}_{key}" in values else value
                    for key, value in given.items()}  # fmt: skip

        alone: dict[str, Any] = {key: (values[key],) for key in ("image_size", "head_size") if key in values}
        stages = tuple(row(f"s{place}", stage) for place, stage in enumerate(self.file.stages, 1))
        return dataclasses.replace(self.file, only=(), stem=row("stem", self.file.stem), stages=stages, **alone)

    # --- a candidate ----------------------------------------------------------------------------------------------

    def decode(self, candidate: Candidate) -> Arch:
        """The architecture of a candidate. Raises InputError for a missing or unknown dimension or value."""
        last = self._last
        if last is not None and candidate == last[0]:
            return last[1]
        return self._arch(candidate, self.stages_of(candidate))

    def _arch(self, candidate: Candidate, stages: Sequence[Stage | None]) -> Arch:
        arch = Arch(
            image_size=candidate.get("image_size", self.file.image_size),  # type: ignore[arg-type]
            in_channels=self.file.in_channels,
            num_classes=self.file.num_classes,
            stem=self._stem(candidate),
            stages=tuple([stage for stage in stages if stage is not None]),
            head=self.head,
        )
        self._last = dict(candidate), arch
        return arch

    def stages_of(self, candidate: Candidate) -> list[Stage | None]:
        """What a candidate has at each place of the space; None: the stage is left out. Raises as ``decode`` does."""
        self.check(candidate)
        head_size = candidate.get("head_size", self.file.head_size)
        return [self._stage(place, keys, candidate, head_size)  # type: ignore[arg-type]
                for place, keys in enumerate(self._stage_keys)]  # fmt: skip

    @functools.cached_property
    def head(self) -> Head:
        return Head(**self.file.head)  # type: ignore[arg-type]

    def check(self, candidate: Candidate) -> None:
        """Raises InputError where the candidate's dimensions or values are not this space's."""
        if len(candidate) != len(self.choices):
            for name in candidate:
                if name not in self.choices:
                    raise InputError(f"candidate: {unknown('dimension', name, self.choices)}")
        for name, values in self.choices.items():
            if name not in candidate:
                raise InputError(f"candidate: dimension {name} is missing; its values: {list(values)}")
            if candidate[name] not in values:
                raise InputError(f"candidate: {name}: {candidate[name]!r} is not among {list(values)}")

    def _stem(self, candidate: Candidate) -> Stem:
        return _make_stem(self._stem_names, tuple([candidate.get(dim, own) for dim, own in self._stem_keys]))

    def _stage(self, place: int, keys: list[Any], candidate: Candidate, head_size: int | None) -> Stage | None:
        values = (place, head_size, *[candidate[dim] if dim else constant for _, dim, constant in keys])
        try:
            return self._stages[values]
        except KeyError:
            stage = self._stages[values] = self._make_stage([key for key, _, _ in keys], values[2:], head_size)
            return stage

    @staticmethod
    def _make_stage(keys: list[str], values: tuple[Any, ...], head_size: int | None) -> Stage | None:
        row = dict(zip(keys, values, strict=True))
        if row["depth"] == 0:
            return None
        known = menu()[block_name(row["block"])].options
        options = {key: value for key, value in row.items() if key in known}
        if head_size is not None and "head_size" in known:
            options.setdefault("head_size", head_size)
        return Stage(options=options, **{key: row[key] for key in _STRUCTURE if key in row})

    def cost(self, candidate: Candidate) -> Cost:
        return cost(self.decode(candidate))

    def exact(self, candidate: Candidate) -> dict[str, float]:
        """What is known of a candidate before any trial: params, macs, activations."""
        return self.cost(candidate).as_metrics()

    def problems(self, candidate: Candidate) -> list[str]:
        """Why a candidate is not legal, as sentences; empty means that it is."""
        reasons = self.build_problems(candidate)
        if not reasons and self.limits:
            reasons += limit_problems(self.limits, self.exact(candidate))
        return reasons

    def build_problems(self, candidate: Candidate) -> list[str]:
        """Why a candidate cannot be built, or is no combination of the space, whatever it costs."""
        if self.file.only and not any(
            all(candidate.get(name) == value for name, value in one.items()) for one in self.file.only
        ):
            return ["only: not one of the combinations that are allowed"]
        try:
            stages = self.stages_of(candidate)
            return self._order_problems(stages) or self._arch(candidate, stages).problems()
        except InputError as error:
            return [str(error)]

    def _order_problems(self, stages: Sequence[Stage | None]) -> list[str]:
        if not any(stages):
            return ["every stage is left out"]
        if not self.file.convolution_first:
            return []
        kinds = [menu()[stage.block].kind for stage in stages if stage]
        return ["convolution_first: a convolution stage comes after attention"] if kinds != sorted(
            kinds, key=("convolution", "attention").index) else []  # fmt: skip

    def canonical(self, candidate: Candidate) -> dict[str, Scalar]:
        """The one spelling of the candidate's network: the first, in the order of the choices, of those that decode to
        it. A candidate that decodes to nothing stays as it is."""
        self.check(candidate)
        head_size: Any = candidate.get("head_size", self.file.head_size)
        fixed = {name: candidate[name] for name in self.choices}
        try:
            fixed.update(self._stems.get(self._stem(candidate), {}))
            stages = [self._stage(place, keys, candidate, head_size) for place, keys in enumerate(self._stage_keys)]
        except InputError:
            return fixed
        return self._spelling(fixed, stages)

    def spelling(self, image_size: int, stem: Stem, stages: Sequence[Stage | None]) -> dict[str, Scalar]:
        """The canonical candidate of a network of this space, given by a stage (None: left out) for each place."""
        fixed = {name: values[0] for name, values in self.choices.items()} | self._stems[stem]
        return self._spelling({**fixed, **({"image_size": image_size} if "image_size" in fixed else {})}, stages)

    def _spelling(self, fixed: dict[str, Scalar], stages: Sequence[Stage | None]) -> dict[str, Scalar]:
        for first in _values(self.file.head_size):
            spelled = self._spelled(stages, first)
            if spelled is not None:
                return {**fixed, **spelled, **({"head_size": first} if "head_size" in fixed else {})}
        raise AssertionError(f"no spelling for {[*stages]}")

    @functools.cached_property
    def _stems(self) -> dict[Stem, dict[str, Scalar]]:
        """The distinct stems, each with its first spelling."""
        dims = {f"stem_{key}": _values(value) for key, value in self.file.stem.items() if f"stem_{key}" in self.choices}
        found: dict[Stem, dict[str, Scalar]] = {}
        for values in itertools.product(*dims.values()):
            spelling = dict(zip(dims, values, strict=True))
            with contextlib.suppress(InputError):
                found.setdefault(self._stem(spelling), spelling)
        return found

    def _spellings(self, place: int, head_size: int | None) -> dict[Stage | None, dict[str, Scalar]]:
        """The distinct stages that may stand at a place (None: left out), each with its first spelling."""
        if (place, head_size) not in self._tables:
            found: dict[Stage | None, dict[str, Scalar]] = {}
            keys = self._stage_keys[place]
            dims = {dim: self.choices[dim] for _, dim, _ in keys if dim}
            for values in itertools.product(*dims.values()):
                spelling = dict(zip(dims, values, strict=True))
                with contextlib.suppress(InputError):  # a value that another block of the same place has
                    found.setdefault(self._stage(place, keys, spelling, head_size), spelling)
            self._tables[place, head_size] = found
        return self._tables[place, head_size]

    def _spelled(self, stages: Sequence[Stage | None], head_size: int | None) -> dict[str, Scalar] | None:
        """The first dimensions of all stages that give the same network with this head size; None: there are none."""
        if self.ambiguous:
            return self._split(tuple(itertools.chain(*map(_blocks, stages))), 0, head_size)
        found: dict[str, Scalar] = {}
        for place, stage in enumerate(stages):
            table = self._spellings(place, head_size)
            if stage not in table:
                return None
            found.update(table[stage])
        return found

    # --- neighbouring stages that only go on with the same blocks: depths (2, 1) and (1, 2) are one network --------

    @functools.cached_property
    def ambiguous(self) -> bool:
        """Whether different stages may be one network: where one only goes on with another's blocks, or where one that
        is left out has a twin."""
        tables = [set().union(*(self._spellings(place, size) for size in _values(self.file.head_size)))
                  for place in range(len(self._stage_keys))]  # fmt: skip
        optional = any(None in table for table in tables)
        blocks = [{stage.inner_blocks for stage in table if stage} for table in tables]
        if optional:
            return any(a & b for a, b in itertools.combinations(blocks, 2))
        continues = [{stage.inner_blocks for stage in table if stage and stage.stride == 1} for table in tables]
        return any(a & b for a, b in zip(blocks, continues[1:], strict=False))

    def _split(self, blocks: tuple[Stage, ...], place: int, head_size: int | None) -> dict[str, Scalar] | None:
        """The first dimensions, from a place on, that give these blocks; None: there are none."""
        if place == len(self._stage_keys):
            return None if blocks else {}
        for stage, spelling in self._spellings(place, head_size).items():
            own = _blocks(stage)
            if blocks[: len(own)] == own:
                rest = self._split(blocks[len(own) :], place + 1, head_size)
                if rest is not None:
                    return {**spelling, **rest}
        return None

    # --- drawing --------------------------------------------------------------------------------------------------

    def sample(self, rng: np.random.Generator) -> dict[str, Scalar]:
        """A legal candidate: each dimension drawn evenly, illegal ones drawn again. Raises InputError where none of
        many draws is legal, with the commonest reason."""
        reasons: dict[str, int] = {}
        for _ in range(TRIES):
            candidate = self.canonical(self._draw(rng))
            found = self.problems(candidate)
            if not found:
                return candidate
            reasons[found[0]] = reasons.get(found[0], 0) + 1
        common = max(reasons, key=lambda reason: reasons[reason])
        raise InputError(f"space {self.name}: none of {TRIES} random candidates is legal; for example: {common}")

    def _draw(self, rng: np.random.Generator) -> dict[str, Scalar]:
        return {name: values[int(rng.integers(len(values)))] for name, values in self.choices.items()}

    def enumerate(self) -> Iterator[dict[str, Scalar]]:
        """Every legal candidate once, in the order of the choices."""
        for values in itertools.product(*self.choices.values()):
            candidate = dict(zip(self.choices, values, strict=True))
            if self.canonical(candidate) == candidate and not self.problems(candidate):
                yield candidate

    # --- counting -------------------------------------------------------------------------------------------------

    def size(self) -> int:
        """The number of distinct legal networks; exact where ``survey.exact``."""
        return self.survey.size

    @functools.cached_property
    def survey(self) -> Survey:
        """The size of the space, its layouts and the range of its costs; counts all its blocks on the way."""
        if self.file.only or (self.ambiguous and math.prod(map(len, self.choices.values())) <= LISTED):
            return listed(self.decode(candidate) for candidate in self.enumerate())
        found = self._paths(with_costs=False)
        if not self.limits:
            return surveyed(found, exact=not self.ambiguous)
        if set(self.limits) <= set(COLUMNS) and sum(path.count for path in found) <= COUNTED_EXACTLY:
            inside = [within(path, self.limits) for path in self._paths(with_costs=True)]
            return surveyed(inside, exact=not self.ambiguous)
        return self._estimated(surveyed(found, exact=False))

    def _paths(self, with_costs: bool) -> list[Path]:
        return paths(self.roots(), self.file.num_classes, self.head.hidden, self.file.convolution_first, with_costs)

    def roots(self) -> list[Root]:
        """Each image size, stem and head size, with the distinct stages that may stand at each place."""
        sizes, heads = _values(self.file.image_size), _values(self.file.head_size)
        roots = []
        for image_size, stem, head_size in itertools.product(sizes, self._stems, heads):
            tables = [self._spellings(place, head_size) for place in range(len(self._stage_keys))]
            others = [self._spellings(place, heads[0]) if head_size != heads[0] else {} for place in range(len(tables))]
            stages = [{stage: stage not in other for stage in table}
                      for table, other in zip(tables, others, strict=True)]  # fmt: skip
            roots.append(Root(image_size=image_size, stem=stem, in_channels=self.file.in_channels, stages=stages))
        return roots

    def _estimated(self, whole: Survey) -> Survey:
        """The share of random legal networks that keep the limits; the limits clip the ranges."""
        free = Space(dataclasses.replace(self.file, limits={}), self.name)
        rng = np.random.default_rng(0)
        drawn = (free._draw(rng) for _ in range(TRIES))
        legal = (free.decode(one) for one in drawn if free.canonical(one) == one and not free.problems(one))
        archs = list(itertools.islice(legal, ESTIMATED_FROM))
        kept = listed(arch for arch in archs if not limit_problems(self.limits, cost(arch).as_metrics()))
        scale = whole.size / max(1, len(archs))
        layouts = {name: round(scale * count) for name, count in kept.layouts.items()}
        return Survey(sum(layouts.values()), False, layouts, kept.params, kept.macs)


@functools.lru_cache(maxsize=4096)
def _make_stem(names: tuple[str, ...], values: tuple[Any, ...]) -> Stem:
    try:
        return Stem(**dict(zip(names, values, strict=True)))
    except TypeError:
        wrong = next(name for name in names if name not in Stem.__dataclass_fields__)
        raise InputError(f"stem: {unknown('key', wrong, Stem.__dataclass_fields__)}") from None


def _values(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


@functools.lru_cache(maxsize=1 << 14)
def _blocks(stage: Stage | None) -> tuple[Stage, ...]:
    """The blocks of a stage as stages of one block each."""
    if stage is None:
        return ()
    first = dataclasses.replace(stage, depth=1)
    return first, *[dataclasses.replace(first, stride=1)] * (stage.depth - 1)


def load_space(name: str | FilePath) -> Space:
    """A bundled space by name, or a space file by path. Raises InputError that names file, line and key."""
    path = bundled.find("search_spaces", name)
    return space_of(read_document(path), path.stem)


def space_of(document: Document, name: str) -> Space:
    """A document as a space, its mistakes told with file and line."""
    file = document.parse(SpaceFile)
    try:
        return Space(file, name)
    except InputError as error:
        raise document.error(_place(str(error)), str(error)) from None


def _place(message: str) -> tuple[str | int, ...]:
    """Where in a space file a message such as ``stages[2].width: ...`` points."""
    where = message.split(":", 1)[0]
    if where.startswith("stages["):
        number, _, key = where.removeprefix("stages[").partition("]")
        return ("stages", int(number) - 1, *([key.removeprefix(".")] if key else []))
    return (where,) if where in ("stem", "limits", "only") else ()
