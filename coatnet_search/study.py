"""Study file -> checked Study; the RUN's folder; what may change between two runs of a study."""

import dataclasses
import functools
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

import coatnet_search
from coatnet_search import bundled, measurements, strategies
from coatnet_search.arch import Arch, Budget, digest
from coatnet_search.checks import safe_name
from coatnet_search.config import SpaceFile, StudyFile
from coatnet_search.datasets import DATASETS, Summary, summarize
from coatnet_search.document import dump
from coatnet_search.errors import InputError, unknown
from coatnet_search.guard import GIB, Allowance
from coatnet_search.halving import Halving, split
from coatnet_search.limits import limit_problems, tightest
from coatnet_search.measurements import load_measurement
from coatnet_search.peers import TIMM, Peer, check_name, label, make_peer
from coatnet_search.quantities import sense_of
from coatnet_search.recipe import Recipe, make_recipe, recipe_values
from coatnet_search.schema import Document, read_document
from coatnet_search.sections import SupernetSpec
from coatnet_search.space import COST_METRICS, Space, load_space
from coatnet_search.storage import Storage
from coatnet_search.strategies import Problem, make_strategy
from coatnet_search.supernets import FOLDER as SUPERNET
from coatnet_search.supernets import facts, facts_id, parts, supernet_folder, supernet_recipe, weights_digest

SCORES = ("val_top1", "val_top5", "val_loss", "error")
TRAINED_METRICS = (*SCORES, "train_loss", "train_top1")
RUNS = Path("runs")
# what a RUN's results follow from; the rest (trials, resources, tracking, choose, question) may change on resume
FIXED = ("space", "data", "evaluate", "supernet", "evaluator", "recipe", "objectives", "measure", "measure_when",
         "conditions", "limits", "equal_cost", "tune", "match", "data_digest")  # fmt: skip
AUDITED = ("epochs", "num_images", "recipe")  # of an audit: those that its results follow from
PLACES = ("layout", "size", "num_images")  # what a trial of a scaling study is known by, besides its dimensions
MEMORY_COSTS = ("activations", "params")  # what the memory of a training grows with, at one batch size
FREE_IN_DATA = ("path", "download", "workers")


@dataclass(frozen=True, kw_only=True)
class Study:
    """A study whose every name is known and every value checked. ``summary`` is None until the data was looked at."""

    name: str
    file: StudyFile
    space: Space
    recipe: Recipe
    evaluator: str | None = None
    summary: Summary | None = None

    @property
    def budget(self) -> Budget:
        """What each trial may spend; 0 epochs where candidates are only measured, or inherit their weights."""
        epochs = self.recipe.epochs if self.file.evaluate == "trained" else 0
        return Budget(epochs=epochs, num_images=self.file.data.num_images, seed=self.file.search.seed)

    @functools.cached_property
    def metrics(self) -> tuple[str, ...]:
        """The names that a finished trial of this study has."""
        scored = {"trained": TRAINED_METRICS, "inherited": SCORES, "measured": ()}[self.file.evaluate]
        return (*COST_METRICS, *scored, *self.measured)

    @functools.cached_property
    def measured(self) -> tuple[str, ...]:
        """The names of what is measured on the device."""
        return tuple(name for what in self.file.measure for name in load_measurement(what).METRICS)

    @functools.cached_property
    def allowance(self) -> Allowance:
        """What one of its trials may take."""
        faults = self.file.faults
        minutes = [None if limit is None else 60 * limit for limit in (faults.minutes, faults.silent_minutes)]
        memory = None if faults.memory_gib is None else faults.memory_gib * GIB
        return Allowance(wall_s=minutes[0], silent_s=minutes[1], memory_bytes=memory)

    def problem(self, too_large: Sequence[Mapping[str, float | None]] = ()) -> Problem:
        """What its strategy is asked. ``too_large``: costs of networks that ran out of memory; a larger one is not
        proposed."""
        limits = dict(self.space.limits)
        for name, limit in self.file.limits.items():
            limits[name] = tightest(limits[name], limit) if name in limits else limit

        def problems(candidate: Mapping[str, Any]) -> list[str]:
            reasons = self.space.build_problems(candidate)
            if reasons or not too_large:
                return reasons
            costs = self.space.exact(candidate)
            return ["a smaller network ran out of memory"] if any(larger(costs, one) for one in too_large) else []

        return Problem(choices=self.space.choices, objectives=self.file.objectives, exact=self.space.exact,
                       problems=problems, canonical=self.space.canonical, limits=limits)  # fmt: skip

    @functools.cached_property
    def halving(self) -> Halving | None:
        """How its trials are halved. Raises InputError where the epochs cannot be split."""
        asked = self.file.search.halving
        if asked is None:
            return None
        rungs = split(asked.first, asked.factor, self.recipe.epochs)
        return Halving(rungs=rungs, factor=asked.factor, objectives=self.file.objectives)

    def refusals(self, metrics: Mapping[str, float | None]) -> list[str]:
        """Which of the study's limits the metrics break."""
        senses = {name: sense_of(name, self.file.objectives) for name in self.file.limits}
        return limit_problems(self.file.limits, metrics, senses)

    def key(self, arch: Arch, budget: Budget | None = None, *, replaced: Mapping[str, Any] | None = None,
            tuned: bool = False) -> str:  # fmt: skip
        """The same work has the same key: network, weights, budget, data, recipe, evaluator. ``replaced``: the values
        of the recipe that a trial of a sweep has otherwise; ``tuned``: the recipe is the one that the sweep finds."""
        recipe = recipe_values(self.recipe_with(replaced or {}))
        if tuned and self.file.tune:
            recipe["tune"] = self.file.tune.values()
        return self._key(arch.id, self._weights, budget or self.budget, recipe, self.evaluator or self.file.evaluate)

    def recipe_with(self, replaced: Mapping[str, Any]) -> Recipe:
        """The study's recipe with other values of some keys."""
        return make_recipe({**dataclasses.asdict(self.recipe), **replaced}) if replaced else self.recipe

    def _key(self, network: str, weights: str, budget: Budget, recipe: Mapping[str, Any], evaluator: str) -> str:
        return digest({
            "arch": network, "weights": weights, "budget": dataclasses.asdict(budget),
            "data": self._data_digest(),
            "recipe": recipe, "evaluator": evaluator,
            "measure": self.file.measure, "conditions": dataclasses.asdict(self.file.conditions),
        }, 16)  # fmt: skip

    @functools.cached_property
    def _weights(self) -> str:
        """Where a candidate's weights come from: from nothing, or a supernet, by a digest of all that it is made from
        (of its weights, where it lies there already)."""
        spec = self.file.supernet
        if spec is None:
            return "scratch"
        if spec.path:
            made = weights_digest(supernet_folder(spec.path))
        else:
            made = facts_id(self.supernet_facts(parts(spec)[SUPERNET]))
        return f"supernet {made}, norms from {spec.recalibration_images} images"

    @property
    def supernet_recipe(self) -> Recipe:
        """How the study's supernet is trained."""
        assert self.file.supernet is not None
        return supernet_recipe(self.recipe, self.file.supernet)

    def supernet_facts(self, spec: SupernetSpec) -> dict[str, Any]:
        """What a supernet is that the study trains; ``spec``: one of ``supernets.parts``."""
        return facts(self.space, spec, self.supernet_recipe, self._data_digest(), self.file.data.num_images)

    def supernet_place(self, run: Path) -> Path:
        """The folder of the supernet: one that the study names, or the RUN's own. Raises SetupError."""
        assert self.file.supernet is not None
        path = self.file.supernet.path
        return supernet_folder(path) if path else run / SUPERNET

    def _data_digest(self) -> str | None:
        """That of the data, and of what else decides which images a regime has, where it is not the usual."""
        plain = self.summary.digest if self.summary else None
        least = self.file.data.min_per_class
        return plain if least == 1 else f"{plain} {least} a class"

    def checkpoint_storage(self) -> Storage | None:
        """Where its running trials keep checkpoints besides the RUN's folder. Raises InputError for no such URI."""
        if self.file.storage is None:
            return None
        place, mark, options = self.file.storage.partition("?")
        return Storage(f"{place.rstrip('/')}/{self.name}{mark}{options}")

    @property
    def audit_recipe(self) -> Recipe:
        """How an audit trains a network alone: the study's recipe with what the audit has otherwise."""
        audit = self.file.audit
        own = {**audit.recipe, **({"epochs": audit.epochs} if audit.epochs else {})} if audit else {}
        return make_recipe({**dataclasses.asdict(self.recipe), **own})

    def audit_budget(self, seed: int = 0) -> Budget:
        """What such a training may spend; ``seed`` counts from the study's."""
        images = self.file.audit.num_images if self.file.audit else None
        return Budget(epochs=self.audit_recipe.epochs, num_images=images, seed=self.file.search.seed + seed)

    def audit_key(self, arch: Arch, budget: Budget) -> str:
        """As ``key``, of a network trained alone."""
        return self._key(arch.id, "scratch", budget, recipe_values(self.audit_recipe), "trained")

    def peers(self) -> dict[str, Peer]:
        """The networks of timm beside the candidates, by label, for the study's data. Raises SetupError where weights
        that one starts from are not on this machine."""
        space = self.space.file
        sides = [space.image_size] if isinstance(space.image_size, int) else space.image_size
        made = [make_peer(spec, max(sides), space.in_channels, space.num_classes) for spec in self.file.peers]
        return {peer.label: peer for peer in made}

    def peer_recipe(self, peer: Peer) -> Recipe:
        """The study's recipe with what the peer has otherwise."""
        return self.recipe_with(dict(peer.recipe))

    def peer_budget(self, peer: Peer) -> Budget:
        """That of every trial; 0 epochs where the peer is measured alone."""
        return dataclasses.replace(self.budget, epochs=0) if peer.evaluate == "measured" else self.budget

    def peer_key(self, peer: Peer, budget: Budget) -> str:
        """As ``key``, of a peer."""
        network = f"{TIMM}{peer.name}@{peer.shape.image_size}"
        return self._key(network, peer.digest, budget, recipe_values(self.peer_recipe(peer)), peer.evaluate)

    def values(self) -> dict[str, Any]:
        """The resolved study as plain values: what RUN/study.yaml holds, and what workers are given."""
        file = dataclasses.asdict(self.file)
        extra = {"data_digest": self.summary.digest, "data_summary": dataclasses.asdict(self.summary)} if (
            self.summary) else {}  # fmt: skip
        space = dataclasses.asdict(self.space.file)
        if not space["only"]:  # the key came after the first records, which must not read as changed
            del space["only"]
        return plain({"name": self.name, **file, "space": space,
                      "space_name": self.space.name, "recipe": recipe_values(self.recipe),
                      "evaluator": self.evaluator, **extra})  # fmt: skip

    def with_data(self, whole: bool = True) -> "Study":
        """The study for its data: channels and classes are known, and the digest where all images are looked at
        (``whole``; of a large data set that takes long, once per machine). Raises InputError or SetupError."""
        summary = summarize(self.file.data, whole=whole)
        space = self.space.with_data(summary.in_channels, summary.num_classes)
        return dataclasses.replace(self, space=space, summary=summary)


def larger(costs: Mapping[str, float | None], other: Mapping[str, float | None]) -> bool:
    """Whether a training needs more memory than the other: activations and parameters are no fewer, one is more."""
    pairs = [(costs.get(name) or 0, other.get(name) or 0) for name in MEMORY_COSTS]
    return all(one >= two for one, two in pairs) and any(one > two for one, two in pairs)


def plain(value: Any) -> Any:
    """Mappings as dicts, sequences as lists, paths as text: what YAML and JSON hold."""
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    return str(value) if isinstance(value, Path) else value


def load_study(name: str | Path, sets: Sequence[str] = (), evaluator: str | None = None) -> Study:
    """A bundled study by name, or a study file by path, with ``a.b=c`` settings laid over it.

    Raises InputError that names file, line and key.
    """
    path = bundled.find("studies", name)
    source = read_document(path)
    resolved = isinstance(source.value, dict) and source.value.get("data_summary") is not None  # RUN/study.yaml
    for assignment in sets:
        source.set(assignment)
    if resolved:
        return study_of_values({**source.value, **({"evaluator": evaluator} if evaluator else {})})
    file = source.parse(StudyFile)
    space = _space(file, source, path)
    study = Study(name=safe_name(path.stem), file=file, space=space, recipe=_recipe(file, source), evaluator=evaluator)
    _check_names(study, source)
    return study


def study_files(name: str | Path) -> list[Path]:
    """The files that make a study elsewhere what it is here: its own and its space's; none where both are bundled."""
    path = bundled.find("studies", name)
    if path.parent == bundled.folder("studies"):
        return []
    value = read_document(path).value
    named = value.get("space") if isinstance(value, dict) else None
    beside = path.parent / str(named)
    spaces = [beside] if isinstance(named, str) and beside.is_file() else []
    return [path, *spaces]


def _space(file: StudyFile, source: Document, path: Path) -> Space:
    if isinstance(file.space, SpaceFile):
        try:
            return Space(file.space, path.stem)
        except InputError as error:
            raise source.error(("space",), str(error)) from None
    beside = path.parent / f"{file.space}"
    try:
        found = beside if beside.is_file() else bundled.find("search_spaces", file.space)
    except InputError as error:
        raise source.error(("space",), str(error)) from None
    return load_space(found)  # its mistakes have the space's own file and line


def _recipe(file: StudyFile, source: Document) -> Recipe:
    try:
        return make_recipe(file.recipe)
    except InputError as error:
        where, _, message = str(error).partition(": ")  # recipe.KEY: what is wrong with it
        key = where.removeprefix("recipe.")
        raise source.error(("recipe", key) if key in file.recipe else ("recipe",), message) from None


def _check_names(study: Study, source: Document) -> None:
    """Every name a study mentions is one that exists, and what it asks for can be measured."""
    file = study.file
    if file.equal_cost is None:
        _check_strategy(file, source)
        _check_halving(study, source)
    _check_peers(study, source)
    _check_supernet(study, source)
    if file.data.name not in DATASETS:
        raise source.error(("data", "name"), unknown("data set", file.data.name, DATASETS))
    for place, name in enumerate(file.measure):
        if name not in measurements.menu():
            raise source.error(("measure", place), unknown("measurement", name, measurements.menu()))
    _check_audit(study, source)
    _check_end(study, source)
    _check_tune(study, source)
    _check_published(study, source)
    if study.evaluator:  # a trainer of the user's may yield further names
        return
    for block, names in (("objectives", file.objectives), ("limits", file.limits), ("choose", file.choose.limit)):
        for name in names:
            if name not in study.metrics:
                where = (block, "limit", name) if block == "choose" else (block, name)
                raise source.error(where, _no_metric(name, study))


def _check_strategy(file: StudyFile, source: Document) -> None:
    if file.search.strategy not in strategies.menu():
        raise source.error(("search", "strategy"), unknown("strategy", file.search.strategy, strategies.menu()))
    try:
        make_strategy(file.search.strategy, **file.search.options)
    except InputError as error:
        raise source.error(("search", "options"), str(error)) from None


def _check_halving(study: Study, source: Document) -> None:
    """The epochs can be split, there are enough trials to choose among, and rungs show what is to be chosen by."""
    asked, where = study.file.search.halving, ("search", "halving")
    if asked is None:
        return
    try:
        assert study.halving is not None
    except InputError as error:
        raise source.error(where, str(error)) from None
    if (study.file.search.trials or 0) < asked.factor:
        raise source.error((*where, "factor"), f"of {asked.factor} trials one goes on, and search.trials is "
                           f"{study.file.search.trials}; ask for more trials or write a smaller factor")  # fmt: skip
    known = (*COST_METRICS, *study.measured)
    if all(name in known for name in study.file.objectives):
        raise source.error(where, "no objective is learned in training, so epochs tell nothing about it; remove it")


def _check_peers(study: Study, source: Document) -> None:
    labels: list[str] = []
    for place, spec in enumerate(study.file.peers):
        try:
            check_name(spec.timm)
            make_recipe({**dataclasses.asdict(study.recipe), **spec.recipe})
        except InputError as error:
            key, _, message = str(error).partition(": ")  # recipe.KEY: what is wrong with it
            at = ("recipe", key.removeprefix("recipe.")) if key.startswith("recipe.") else ("timm",)
            raise source.error(("peers", place, *at), message if len(at) > 1 else str(error)) from None
        if label(spec) in labels:
            raise source.error(("peers", place), f"{label(spec)} a second time; remove it")
        if study.evaluator and spec.evaluate != "measured":
            raise source.error(("peers", place), "a trainer of your own trains architectures, not networks of timm; "
                               "write evaluate: measured, or remove the peer")  # fmt: skip
        labels.append(label(spec))


def _check_supernet(study: Study, source: Document) -> None:
    if study.file.supernet is None:
        return
    if study.evaluator:
        raise source.error(("evaluate",), "a trainer of your own gives its own weights; write evaluate: trained")
    try:
        assert study.supernet_recipe.epochs
    except InputError as error:
        key, _, message = str(error).partition(": ")  # recipe.KEY: what is wrong with it
        own = key.removeprefix("recipe.") in study.file.supernet.recipe
        at = ("supernet", "recipe") if own else ("recipe",)
        raise source.error((*at, key.removeprefix("recipe.")), message) from None


def _check_audit(study: Study, source: Document) -> None:
    if study.file.audit is None:
        return
    try:
        _ = study.audit_recipe
    except InputError as error:
        key, _, message = str(error).partition(": ")  # recipe.KEY: what is wrong with it
        raise source.error(("audit", "recipe", key.removeprefix("recipe.")), message) from None


def _check_published(study: Study, source: Document) -> None:
    """A printed result is of a choice that the study has."""
    for place, one in enumerate(study.file.published):
        for name, value in one.where.items():
            at = ("published", place, "where", name)
            known = study.file.layouts if name == "layout" else study.space.choices.get(name, ())
            if name not in (*PLACES, *study.space.choices):
                raise source.error(at, unknown("dimension", name, [*study.space.choices, *PLACES]))
            if known and value not in known:
                raise source.error(at, f"{value!r} is not among {list(known)}")


def _check_end(study: Study, source: Document) -> None:
    """What is measured after the search can neither steer it nor rule a candidate out."""
    if study.file.measure_when == "end":
        for block, names in (("objectives", study.file.objectives), ("limits", study.file.limits)):
            for name in names:
                if name in study.measured:
                    raise source.error(("measure_when",), f"{name} is measured after the search, and {block} need it "
                                       "during the search; write measure_when: start")  # fmt: skip


def _check_tune(study: Study, source: Document) -> None:
    if study.file.tune is None:
        return
    if study.evaluator:
        raise source.error(("tune",), "a trainer of your own has a recipe of its own; remove tune")
    for key, values in study.file.tune.values().items():
        for place, value in enumerate(values):
            try:
                study.recipe_with({key: value})
            except InputError as error:
                raise source.error(("tune", key, place), str(error)) from None


def _no_metric(name: str, study: Study) -> str:
    if name in TRAINED_METRICS:
        return f"{name} is known only of trained networks; this study has evaluate: {study.file.evaluate}"
    for what in measurements.menu():
        if name in load_measurement(what).METRICS:
            return f"{name} is not measured; add {what} to measure:"
    return unknown("metric of this study", name, study.metrics)


# --- the RUN -------------------------------------------------------------------------------------------------------


def prepare_run(study: Study, runs: Path = RUNS) -> Path:
    """The study's folder with its study.yaml; one that is there already must hold the same study.

    Raises InputError with the differences where space, data, recipe, objectives, strategy or seed changed.
    """
    run = runs / study.name
    path, values = run / "study.yaml", study.values()
    if path.is_file():
        changes = list(differences(read_values(path), values))
        if changes:
            raise InputError(f"{run} holds another study: {'; '.join(changes[:5])}. Give the same file and --set as "
                             f"before, or --fork NAME for a new study that starts with what still holds")  # fmt: skip
    run.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".tmp{os.getpid()}")
    temporary.write_text(dump(values), encoding="utf-8")
    temporary.replace(path)
    return run


def read_values(path: Path) -> dict[str, Any]:
    """The resolved study of a RUN. Raises InputError where there is none."""
    if not path.is_file():
        raise InputError(f"{path}: no such file; is {path.parent} the folder of a run?")
    return dict(yaml.safe_load(path.read_text(encoding="utf-8")))


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    """What changed of that which a RUN's results follow from, as ``recipe.epochs: 5 -> 6``."""
    for name in FIXED:
        if name in before:  # a key that came with a later version stood at its default
            yield from _changed(name, before[name], after.get(name))
    audits = before.get("audit"), after.get("audit")
    for name in AUDITED if all(audits) else ():
        yield from _changed(f"audit.{name}", *(audit.get(name) for audit in audits if audit))
    for name in ("strategy", "seed", "options", "halving"):
        yield from _changed(f"search.{name}", before.get("search", {}).get(name), after.get("search", {}).get(name))


def _changed(name: str, before: Any, after: Any) -> Iterator[str]:
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in dict.fromkeys([*before, *after]):
            if not (name == "data" and key in FREE_IN_DATA):
                yield from _changed(f"{name}.{key}", before.get(key), after.get(key))
    elif before != after:
        yield f"{name}: {before!r} -> {after!r}"


@functools.cache
def code_version() -> str:
    """The package's version and a digest of its source files: what a record says it was made with."""
    files = sorted(Path(coatnet_search.__file__).parent.rglob("*.py"))
    content = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:8]
    return f"{coatnet_search.__version__}+{content}"


def study_of_values(values: Mapping[str, Any]) -> Study:
    """The study that a RUN's study.yaml holds, checked again. Inverse of ``Study.values``."""
    inner = dict(values)
    summary, evaluator = inner.pop("data_summary", None), inner.pop("evaluator", None)
    name, space_name = inner.pop("name"), inner.pop("space_name", "space")
    inner.pop("data_digest", None)
    source = read_document(f"{name}.yaml", dump(inner))
    file = source.parse(StudyFile)
    assert isinstance(file.space, SpaceFile)
    known = Summary(**{**summary, "class_names": tuple(summary["class_names"])}) if summary else None
    return Study(name=name, file=file, space=Space(file.space, space_name), recipe=make_recipe(file.recipe),
                 evaluator=evaluator, summary=known)  # fmt: skip
