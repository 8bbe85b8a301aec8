"""An entry of the section ``peers`` of a study file: a network of timm that stands beside the candidates."""

from dataclasses import dataclass, field
from typing import Literal

from pydantic import with_config

from coatnet_search.core.checks import Misplaced
from coatnet_search.core.keys import FORM, Count, Recipe, Text


@with_config(FORM)
@dataclass(frozen=True, kw_only=True)
class PeerSpec:
    """A network of timm that stands beside the candidates: same data, same budget, same device."""

    timm: Text
    """Its name in timm, such as resnet18 or efficientnet_b0."""
    evaluate: Literal["trained", "fine-tuned", "measured"] = "trained"
    """trained: from scratch; fine-tuned: from its weights; measured: costs and speed alone."""
    weights: Text | None = None
    """Safetensors file to fine-tune from; null: the weights in this machine's hub cache. Nothing is downloaded."""
    image_size: Count | None = None
    """Side of its input in pixels; null: that of the space. Images are resized."""
    recipe: Recipe = field(default_factory=dict)
    """What replaces values of the study's recipe for this network alone, such as lr; never epochs."""

    def __post_init__(self) -> None:
        if self.weights and self.evaluate != "fine-tuned":
            raise Misplaced("weights are for fine-tuning; write evaluate: fine-tuned, or remove them", ("weights",))
        for key in ("name", "epochs"):
            if key in self.recipe:
                raise Misplaced(f"a peer has the study's {key}; remove it", ("recipe", key))
