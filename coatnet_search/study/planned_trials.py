"""Lists the trials that a study plans by itself, in order: its peers, and all runs of a scaling study.

A scaling study has a run for each layout, size, instance, regime, draw and seed. Runs that differ in the network alone
share subset and seed, so that differences between layouts are paired; the order finishes one seed of everything
before the next one begins, small regimes first.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from coatnet_search.analysis.tuning import sweep
from coatnet_search.architecture.arch import Arch, Candidate
from coatnet_search.architecture.cost import cost
from coatnet_search.architecture.peers import Peer
from coatnet_search.core.errors import InputError
from coatnet_search.record.trial import AUDIT, PEER, TUNE, kind_of
from coatnet_search.space.family_grid import family_spaces
from coatnet_search.space.match import VIT_REL, match
from coatnet_search.space.space import Space
from coatnet_search.study.study import Study
from coatnet_search.training.budget import Budget


@dataclass(frozen=True, kw_only=True)
class PlannedTrial:
    """One planned trial. ``attributes`` say its place: ``instance`` (from 1), ``size`` (multiple of the study's cost),
    ``doubled`` (true: twice the epochs), ``peer``, ``tune`` (values of the recipe that a trial of a sweep replaces).
    ``tuned``: its recipe is the one that its layout's and regime's sweep finds."""

    arch: Arch
    budget: Budget
    candidate: Candidate = field(default_factory=dict)
    attributes: Mapping[str, Any] = field(default_factory=dict)
    peer: Peer | None = None
    tuned: bool = False

    @property
    def layout(self) -> str:
        return self.peer.label if self.peer else str(self.attributes.get("layout", self.arch.layout))

    @property
    def macs(self) -> int:
        """Multiply-adds of one image."""
        return self.peer.count.macs if self.peer else cost(self.arch).macs

    def metrics(self) -> dict[str, float]:
        """Its exact costs."""
        return dict(self.peer.count._asdict() if self.peer else cost(self.arch).as_metrics())

    def key(self, study: Study) -> str:
        if kind_of(self.attributes) == AUDIT:
            return study.audit_key(self.arch, self.budget)
        if self.peer:
            return study.peer_key(self.peer, self.budget)
        return study.key(self.arch, self.budget, replaced=self.attributes.get(TUNE), tuned=self.tuned)


def planned(study: Study) -> list[PlannedTrial]:
    """Every trial that does not depend on another's result. Needs the study's data (``with_data``).

    Raises InputError for a regime that the data cannot give and for a cost that no network of a layout has, SetupError
    where weights of a peer are not here.
    """
    peers = list(study.peers().values())
    if study.file.equal_cost is None:
        return [PlannedTrial(arch=peer.shape, budget=study.peer_budget(peer), peer=peer,
                             attributes={PEER: peer.label}) for peer in peers]  # fmt: skip
    return list(_scaling(study, peers))


def _scaling(study: Study, peers: list[Peer]) -> Iterator[PlannedTrial]:
    regimes, file = study.file.regimes, study.file
    counts = regime_sizes(study)
    networks = list(_networks(study))
    if file.tune:
        yield from _sweeps(study, networks, counts)
    last = max(instance for _, attributes in networks for instance in [attributes["instance"]])
    for seed, draw in itertools.product(range(regimes.seeds), range(regimes.draws)):
        for instance, size in itertools.product(range(1, last + 1), file.sizes):
            for count in counts:
                budget = regime_budget(study, count, seed, draw)
                for cell, attributes in networks:
                    if (attributes["instance"], attributes["size"]) == (instance, size):
                        yield dataclasses.replace(cell, budget=budget, attributes=attributes, tuned=bool(file.tune))
                if (instance, size) == (1, file.sizes[0]):
                    yield from (_peer(peer, budget) for peer in peers if peer.evaluate != "measured" or
                                (seed, draw, count) == (0, 0, counts[-1]))  # fmt: skip
        if regimes.doubled and (seed, draw) == (0, 0):
            yield from _doubled(study, networks, counts)


def _peer(peer: Peer, budget: Budget) -> PlannedTrial:
    spent = Budget(epochs=0) if peer.evaluate == "measured" else budget
    return PlannedTrial(arch=peer.shape, budget=spent, peer=peer, attributes={PEER: peer.label})


def _doubled(
    study: Study, networks: list[tuple[PlannedTrial, dict[str, Any]]], counts: list[int]
) -> Iterator[PlannedTrial]:
    for count in counts:
        budget = regime_budget(study, count, 0, 0)
        twice = dataclasses.replace(budget, epochs=2 * budget.epochs)
        for cell, attributes in networks:
            if attributes["instance"] == 1 and attributes["size"] == study.file.sizes[0]:
                yield dataclasses.replace(cell, budget=twice, attributes={**attributes, "doubled": True},
                                          tuned=bool(study.file.tune))  # fmt: skip


def _sweeps(
    study: Study, networks: list[tuple[PlannedTrial, dict[str, Any]]], counts: list[int]
) -> Iterator[PlannedTrial]:
    """The trials that tune each layout and regime: its first network, with the seed after those of the runs."""
    assert study.file.tune is not None
    for count in counts:
        budget = regime_budget(study, count, study.file.regimes.seeds, 0)
        for cell, attributes in networks:
            if attributes["instance"] == 1 and attributes["size"] == study.file.sizes[0]:
                for replaced in sweep(study.file.tune, dataclasses.asdict(study.recipe)):
                    yield dataclasses.replace(cell, budget=budget, attributes={**attributes, TUNE: replaced})


def _networks(study: Study) -> Iterator[tuple[PlannedTrial, dict[str, Any]]]:
    """Each layout's instances at each size, with what tells them apart; the budget is a placeholder."""
    asked = study.file.equal_cost
    assert asked is not None
    for size in study.file.sizes:
        for layout in study.file.layouts or _layouts(study):
            params = asked.params * size if asked.params else None
            found = match(
                _spaces(study, layout), layout, macs=asked.macs * size, params=params, tolerance=asked.tolerance,
                params_tolerance=asked.params_tolerance, instances=study.file.instances,
            )  # fmt: skip
            for instance, one in enumerate(found, 1):
                attributes = {"layout": layout, "size": size, "instance": instance}
                yield PlannedTrial(arch=one.arch, budget=study.budget, candidate=one.candidate), attributes


def _spaces(study: Study, layout: str) -> Space | list[Space]:
    """Where a layout's networks are looked for: the study's space, but for ViT_REL, which has a stem of its own."""
    if layout.lower().replace("_", "-") != VIT_REL:
        return study.space
    file = study.space.file
    side = file.image_size if isinstance(file.image_size, int) else max(file.image_size)
    return family_spaces(VIT_REL, image_size=side, in_channels=file.in_channels, num_classes=file.num_classes)


def _layouts(study: Study) -> list[str]:
    """The space's layouts, in order of name."""
    return sorted(study.space.survey.layouts)


def regime_sizes(study: Study) -> list[int]:
    """Images of each regime, ascending. Raises InputError for more than the data has, or less than one a class."""
    assert study.summary is not None
    have, least = study.summary.num_train, study.file.data.min_per_class * study.summary.num_classes
    counts = []
    for asked in study.file.regimes.num_images:
        count = round(asked * have) if asked <= 1 else round(asked)
        if not least <= count <= have:
            a_class = study.file.data.min_per_class
            raise InputError(f"study {study.name}: regimes.num_images: {asked:g} is {count:,} images; expected "
                             f"{least:,} ({a_class} a class) to {have:,} (all training images)")  # fmt: skip
        counts.append(count)
    return sorted(set(counts))


def regime_budget(study: Study, num_images: int, seed: int, draw: int) -> Budget:
    """How long a regime is trained: the recipe's epochs, or as many steps as the largest regime (``match: steps``),
    and never less than ``min_steps`` steps; whole epochs, so the schedule is exactly as long as the run."""
    regimes, recipe = study.file.regimes, study.recipe
    epochs = recipe.epochs
    if study.file.match == "steps":
        epochs = round(recipe.epochs * max(regime_sizes(study)) / num_images)
    steps = max(1, num_images // recipe.batch_size)
    epochs = max(epochs, math.ceil(regimes.min_steps / steps))
    return Budget(epochs=epochs, num_images=num_images, seed=study.file.search.seed + seed, draw=draw)
