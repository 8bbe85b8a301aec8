"""The section ``supernet`` of a study file: how the supernet is trained, or where a trained one lies."""

import dataclasses
from dataclasses import dataclass, field
from typing import Literal

from pydantic import with_config

from coatnet_search.core.checks import Misplaced
from coatnet_search.core.keys import FORM, Count, CountOrZero, Recipe, Text


@with_config(FORM)
@dataclass(frozen=True, kw_only=True)
class SupernetSpec:
    """The supernet whose weights candidates inherit: how it is trained, or where a trained one lies."""

    path: Text | None = None
    """A trained supernet to take: a RUN, or its folder supernet; null: one is trained first, into the RUN."""
    epochs: Count | None = None
    """Passes over the training images, one layout a step; needed where one is trained."""
    mode: Literal["sandwich", "single-path"] = "sandwich"
    """sandwich: a step trains the largest, the smallest and random networks of its layout; single-path: one random."""
    random_networks: CountOrZero | None = None
    """Random networks of a sandwich step; null: 2."""
    distillation: Literal["kl", "alpha", "none"] | None = None
    """What a sandwich's others learn: the largest's answers by kl or alpha divergence; none: labels. null: kl."""
    sampling: Literal["log", "linear"] = "log"
    """Random networks are uniform in multiply-adds on this scale."""
    partition: Literal["none", "layout", "both"] = "none"
    """none: all layouts share weights; layout: one supernet for each, with the same steps in all; both: candidates
    inherit from the shared one, and the report sets the others beside it."""
    recipe: Recipe = field(default_factory=dict)
    """What replaces values of the study's recipe; mixup and RandAugment are off unless they are named here."""
    seed: CountOrZero = 0
    """Of its weights, the order of layouts and the random networks."""
    workers: Count = 1
    """Processes that train it, each on its share of every batch with resources.cpus and gpus; several need Ray."""
    recalibration_images: Count = 1024
    """Training images from which a candidate's norms get fresh statistics before it is scored."""

    def __post_init__(self) -> None:
        if self.path is not None:
            for one in dataclasses.fields(self):
                usual = one.default if one.default is not dataclasses.MISSING else {}
                if one.name not in ("path", "recalibration_images") and getattr(self, one.name) != usual:
                    raise Misplaced("the supernet at path is trained already; remove this, or path", (one.name,))
        elif self.epochs is None:
            raise Misplaced("this key is missing; add it (Passes over the training images), or path", ("epochs",))
        if self.mode == "single-path":
            for name in ("random_networks", "distillation"):
                if getattr(self, name) is not None:
                    raise Misplaced("a single path has one network a step and no teacher; remove it", (name,))
        if "epochs" in self.recipe:
            raise Misplaced("a supernet's epochs are supernet.epochs; remove it", ("recipe", "epochs"))
        if "name" in self.recipe:
            raise Misplaced("a supernet has the study's recipe; remove it", ("recipe", "name"))
