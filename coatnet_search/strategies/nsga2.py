"""Optuna's NSGA-II, with a population that fits searches of tens to hundreds of trials."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from optuna.samplers import NSGAIISampler

from coatnet_search.core.canonical import digest
from coatnet_search.core.errors import InputError
from coatnet_search.record.trial import Trial
from coatnet_search.strategies.optuna_study import Asked, quiet
from coatnet_search.strategies.problem import Problem, Seen, Suggestion, look_back

GENERATION, PARENTS = "nsga2_generation", "nsga2_parents"  # in Trial.attributes


@dataclass(frozen=True, kw_only=True)
class NSGA2:
    """Generations of ``population`` trials; parents are the best of all before, by rank and then by spacing.

    Optuna keeps a trial's generation in the trial's system attributes and a generation's parents in the study's: both
    come back through Trial.attributes, because a study rebuilt without them would stay in generation 0, which is drawn
    at random. Trials without them (of another strategy, or imported) are generation 0.
    """

    population: int = 20

    def __post_init__(self) -> None:
        if self.population < 2:
            raise InputError(f"population: expected at least 2, got {self.population}")

    def suggest(
        self, problem: Problem, history: Sequence[Trial], rng: np.random.Generator, count: int
    ) -> list[Suggestion]:
        past = look_back(problem, history)
        with quiet():
            sampler = NSGAIISampler(population_size=self.population, seed=int(rng.integers(2**31)))
            asked = Asked(problem, past, sampler, system=_system)
            _remember_parents(asked, past)
            return [
                Suggestion(known.candidate, self._attributes(asked, system)) for known, system in asked.take(rng, count)
            ]

    def _attributes(self, asked: Asked, system: Mapping[str, Any]) -> dict[str, Any]:
        """The generation of a new trial, and its parents as digests of their candidates."""
        generation = system.get(NSGAIISampler._get_generation_key(), 0)
        cached = asked.study._storage.get_study_system_attrs(asked.study._study_id)
        parents = cached.get(f"{NSGAIISampler._get_parent_cache_key_prefix()}{generation}", [])
        return {GENERATION: generation, PARENTS: [digest(asked.past[place].known.candidate) for place in parents]}


def _system(seen: Seen) -> dict[str, Any]:
    return {NSGAIISampler._get_generation_key(): int(seen.attributes.get(GENERATION, 0))}


def _remember_parents(asked: Asked, past: Sequence[Seen]) -> None:
    """Give the study the parents of each generation as they were when its first candidate was asked for.

    Trials of the generation before that ended later would change them. In this storage a trial's id is its place.
    """
    stored = {seen.attributes[GENERATION]: seen.attributes[PARENTS] for seen in past if seen.attributes.get(PARENTS)}
    places = {digest(seen.known.candidate): place for place, seen in enumerate(past)} if stored else {}
    for generation, parents in stored.items():
        if all(parent in places for parent in parents):
            asked.study._storage.set_study_system_attr(
                asked.study._study_id,
                f"{NSGAIISampler._get_parent_cache_key_prefix()}{generation}",
                [places[parent] for parent in parents],
            )
