"""Recipe: how a model is trained, as a named value. No torch.

The paper's recipes are those of its appendix (arXiv 2106.04803) with the stochastic depth of the smallest model in each
column; larger models take more: override ``drop_path``.
"""

import dataclasses
import math
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from coatnet_search.errors import InputError, unknown


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Optimiser is AdamW with bias-corrected moments; weight decay spares norms, biases and bias tables."""

    name: str
    epochs: int  # for whoever makes the budget; the schedule is as long as the budget says
    batch_size: int
    lr: float  # at the peak
    min_lr: float = 1e-5  # after the last step
    decay: Literal["cosine", "linear", "none"] = "cosine"
    warmup: float = 0.0
    warmup_unit: Literal["run", "epochs", "steps"] = "run"  # ``run``: a share of all steps
    weight_decay: float = 0.05
    beta2: float = 0.999
    clip_norm: float = 1.0  # largest norm of the whole gradient; 0: any
    loss: Literal["softmax", "sigmoid"] = "softmax"
    label_smoothing: float = 0.0
    mixup: float = 0.0  # alpha of the Beta distribution; 0: none
    randaugment_layers: int = 0
    randaugment_magnitude: int = 0  # 0..30, torchvision's scale
    flip: bool = True  # left-right, every second image
    shift: int = 0  # random shift of up to so many pixels in both directions; mirrored at the border
    min_crop_area: float = 1.0  # random resized crops of this share of the area or more; 1: none (then shift counts)
    drop_path: float = 0.0  # stochastic depth of the last block; linear over blocks
    init: Literal["normal", "fan_in"] = "normal"  # of the weights: see ``build.initialise``
    ema: float = 0.0  # decay of the moving average that is evaluated; 0: none
    bn_momentum: float = 0.1  # of BatchNorm's statistics, in torch's sense: the weight of the new batch
    precision: Literal["auto", "float32", "bfloat16"] = "auto"  # auto: bfloat16 on a GPU, float32 on a CPU
    channels_last: bool = True


_PAPER = Recipe(
    name="paper-imagenet",
    epochs=300,
    batch_size=4096,
    lr=1e-3,
    warmup=10_000,
    warmup_unit="steps",
    label_smoothing=0.1,
    mixup=0.8,
    randaugment_layers=2,
    randaugment_magnitude=15,
    min_crop_area=0.08,
    drop_path=0.2,
    bn_momentum=0.01,
)
_PAPER_FINETUNE = dataclasses.replace(
    _PAPER,
    name="paper-imagenet-finetune",
    epochs=30,
    batch_size=512,
    lr=5e-5,
    min_lr=5e-5,
    decay="none",
    warmup=0.0,
    weight_decay=1e-8,
    min_crop_area=1.0,
    ema=0.9999,
)
_PAPER_21K = dataclasses.replace(
    _PAPER,
    name="paper-imagenet21k",
    epochs=90,
    decay="linear",
    warmup=5,
    warmup_unit="epochs",
    weight_decay=0.01,
    loss="sigmoid",
    label_smoothing=1e-4,
    mixup=0.0,
    randaugment_layers=0,
    randaugment_magnitude=0,
    drop_path=0.3,
)

RECIPES: dict[str, Recipe] = {
    # CIFAR and the like: runs of a few to some dozens of epochs, networks of up to some million parameters
    "small-images": Recipe(
        name="small-images",
        epochs=20,
        batch_size=128,
        lr=2e-3,
        warmup=0.1,
        label_smoothing=0.1,
        shift=4,
        init="fan_in",
    ),
    # the embedded digits: 8 pixels, and a mirrored digit is none
    "digits": Recipe(name="digits", epochs=6, batch_size=64, lr=3e-3, warmup=0.1, flip=False, shift=1, init="fan_in"),
    "paper-imagenet": _PAPER,
    "paper-imagenet-finetune": _PAPER_FINETUNE,
    "paper-imagenet21k": _PAPER_21K,
    "paper-imagenet21k-finetune": dataclasses.replace(
        _PAPER_FINETUNE,
        name="paper-imagenet21k-finetune",
        batch_size=1024,
        mixup=0.0,
        randaugment_layers=0,
        randaugment_magnitude=0,
        drop_path=0.3,
    ),
}

# field -> (smallest, largest) value, ends included
_RANGES: dict[str, tuple[float, float]] = {
    "epochs": (1, 100_000),
    "batch_size": (1, 1_000_000),
    "lr": (1e-12, 1e3),
    "min_lr": (0, 1e3),
    "warmup": (0, 1e9),
    "weight_decay": (0, 1e3),
    "beta2": (0, 0.999999),
    "clip_norm": (0, 1e6),
    "label_smoothing": (0, 0.999),
    "mixup": (0, 1e3),
    "randaugment_layers": (0, 10),
    "randaugment_magnitude": (0, 30),
    "shift": (0, 10_000),
    "min_crop_area": (1e-3, 1),
    "drop_path": (0, 0.999),
    "ema": (0, 0.9999999),
    "bn_momentum": (0, 1),
}


def make_recipe(value: Mapping[str, Any]) -> Recipe:
    """``{"name": "small-images", "epochs": 20}``: a recipe of ``RECIPES`` with some values replaced.

    Raises InputError that names the key, what was expected and what came.
    """
    if "name" not in value:
        raise InputError(f"recipe.name: expected one of {', '.join(sorted(RECIPES))}")
    if value["name"] not in RECIPES:
        raise InputError(f"recipe.name: {unknown('recipe', value['name'], RECIPES)}")
    kinds = typing.get_type_hints(Recipe)
    for key in value:
        if key not in kinds:
            raise InputError(f"recipe.{key}: {unknown('key of a recipe', key, kinds)}")
    changed = {key: _checked(key, kinds[key], given) for key, given in value.items()}
    recipe = dataclasses.replace(RECIPES[value["name"]], **changed)
    _check_together(recipe)
    return recipe


def _checked(key: str, kind: Any, given: Any) -> Any:
    choices = typing.get_args(kind)
    if choices:
        return _expect(given in choices, key, f"one of {', '.join(choices)}", given)
    if kind in (bool, str):
        return _expect(isinstance(given, kind), key, "true or false" if kind is bool else "text", given)
    number = isinstance(given, (int, float)) and not isinstance(given, bool) and math.isfinite(given)
    whole = "a whole number" if kind is int else "a number"
    low, high = _RANGES[key]
    fits = number and low <= given <= high and (kind is float or float(given).is_integer())
    return kind(_expect(fits, key, f"{whole} from {low:g} to {high:g}", given))


def _expect(fine: bool, key: str, expected: str, given: Any) -> Any:
    if not fine:
        raise InputError(f"recipe.{key}: expected {expected}, got {given!r}")
    return given


def _check_together(recipe: Recipe) -> None:
    if recipe.min_lr > recipe.lr:
        raise InputError(f"recipe.min_lr: {recipe.min_lr:g} is above recipe.lr, {recipe.lr:g}")
    if recipe.warmup_unit == "run" and recipe.warmup >= 1:
        raise InputError(f"recipe.warmup: expected a share of the run below 1, got {recipe.warmup:g}; see warmup_unit")
    if recipe.randaugment_layers and not recipe.randaugment_magnitude:
        raise InputError("recipe.randaugment_magnitude: expected 1 to 30 where randaugment_layers is set, got 0")


def schedule(recipe: Recipe, *, epochs: int, steps_per_epoch: int) -> Callable[[int], float]:
    """Step (from 0) -> learning rate, over a run of exactly ``epochs * steps_per_epoch`` steps.

    A linear warm-up reaches ``lr`` at its last step; then the decay would reach ``min_lr`` one step after the last one.
    Raises InputError where the warm-up is as long as the run or longer.
    """
    total = epochs * steps_per_epoch
    unit = {"run": total, "epochs": steps_per_epoch, "steps": 1}[recipe.warmup_unit]
    warmup = round(recipe.warmup * unit)
    if warmup >= total and warmup > 0:
        raise InputError(
            f"recipe.warmup: {warmup} steps of warm-up, but the whole run has {total} "
            f"({epochs} epochs of {steps_per_epoch}); set recipe.warmup and recipe.warmup_unit"
        )

    def rate(step: int) -> float:
        if step < warmup:
            return recipe.lr * (step + 1) / warmup
        done = (step - warmup) / (total - warmup)
        left = {"cosine": (1 + math.cos(math.pi * done)) / 2, "linear": 1 - done, "none": 1.0}[recipe.decay]
        return recipe.min_lr + (recipe.lr - recipe.min_lr) * left

    return rate
