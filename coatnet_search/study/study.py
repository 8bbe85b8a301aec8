"""A checked study -> its trials' keys, budgets, recipes, costs and limits."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coatnet_search.architecture.arch import Arch
from coatnet_search.architecture.peers import TIMM, Peer, make_peer
from coatnet_search.core.canonical import digest
from coatnet_search.core.limits import limit_problems, tightest
from coatnet_search.core.quantities import sense_of
from coatnet_search.core.storage import Storage
from coatnet_search.data.load import Summary, summarize
from coatnet_search.space.space import COST_METRICS, Space
from coatnet_search.strategies import Problem
from coatnet_search.strategies.halving import Halving, split
from coatnet_search.study.file import StudyFile
from coatnet_search.supernet.folder import facts, facts_id, parts, supernet_folder, supernet_recipe, weights_digest
from coatnet_search.supernet.rows import FOLDER as SUPERNET
from coatnet_search.supernet.spec import SupernetSpec
from coatnet_search.training.budget import Budget
from coatnet_search.training.guard import GIB, Allowance
from coatnet_search.training.measurements import load_measurement
from coatnet_search.training.recipe import Recipe, make_recipe, recipe_values

SCORES = ("val_top1", "val_top5", "val_balanced_accuracy", "val_loss", "error")
TRAINED_METRICS = (*SCORES, "train_loss", "train_top1")
PLACES = ("layout", "size", "num_images")  # what a trial of a scaling study is known by, besides its dimensions
MEMORY_COSTS = ("activations", "params")  # what the memory of a training grows with, at one batch size


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
        file = dataclasses.asdict(self.file) | {"data": self.file.data.to_dict()}
        extra = {"data_digest": self.summary.digest, "data_summary": dataclasses.asdict(self.summary)} if (
            self.summary) else {}  # fmt: skip
        space = dataclasses.asdict(self.space.file)
        if not space["only"]:  # the key came after the first records, which must not read as changed
            del space["only"]
        return yaml_values({"name": self.name, **file, "space": space,
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


def yaml_values(value: Any) -> Any:
    """Mappings as dicts, sequences as lists, paths as text: what YAML and JSON hold."""
    if isinstance(value, Mapping):
        return {str(key): yaml_values(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [yaml_values(inner) for inner in value]
    return str(value) if isinstance(value, Path) else value
