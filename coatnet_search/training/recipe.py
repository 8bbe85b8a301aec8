"""Recipe: how a model is trained, as a named value. No torch.

The paper's recipes are in ``paper_recipes.py``. Where no model size is named they have what the smallest model of their
column has; ``make_recipe(..., model=...)`` gives each size its own.
"""

import dataclasses
import math
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from coatnet_search.core.checks import COMPILE
from coatnet_search.core.errors import InputError, unknown
from coatnet_search.training.paper_recipes import PAPER


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
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"  # auto: the half that a GPU has, else float32
    channels_last: bool = True
    # fields below came after the first records: see ``recipe_values``
    centre_crop: bool = True  # evaluate on the centre of images that were stored a little larger; false: on all of them
    # images at once on a device, their gradients added up to the batch's; 0: its whole share; auto: that on a CPU, and
    # on a GPU its half, quarter, ... where the memory is too small, found by a probe and told in each epoch's row
    micro_batch: int | Literal["auto"] = 0
    grad_checkpointing: bool = False  # keep block inputs alone and compute the rest again: less memory, more time
    compile: bool | Literal["graphs"] = False  # off, or default (true): by torch.compile; graphs: and as CUDA graphs
    # classes of few images: all count alike by ``weights`` of the loss (which ``clip_norm`` weakens where a batch has
    # few of their images), or by ``sampling`` as many images of each in an epoch
    class_balance: Literal["none", "weights", "sampling"] = "none"


AUTO: Literal["auto"] = "auto"
LATER = ("centre_crop", "micro_batch", "grad_checkpointing", "compile", "class_balance")


def recipe_values(recipe: Recipe) -> dict[str, Any]:
    """All fields but the later ones that stand at their default, so that digests of earlier work stay what they are.

    ``make_recipe`` gives the recipe back: a later field is also kept where the named recipe has another value.
    """
    defaults = {field.name: field.default for field in dataclasses.fields(Recipe)}
    values, named = dataclasses.asdict(recipe), RECIPES.get(recipe.name, recipe)
    if named.micro_batch == AUTO:  # of the paper's recipes since there is such a value; it was 0 before
        defaults["micro_batch"] = AUTO
    return {key: value for key, value in values.items()
            if key not in LATER or not value == getattr(named, key) == defaults[key]}  # fmt: skip


def _of_paper(name: str) -> Recipe:
    column = PAPER[name]
    return Recipe(name=name, **{**column.values, **next(iter(column.models.values()))})


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
    # the embedded digits in full: some minutes on a CPU
    "digits-full": Recipe(
        name="digits-full",
        epochs=40,
        batch_size=64,
        lr=3e-3,
        warmup=0.1,
        label_smoothing=0.1,
        flip=False,
        min_crop_area=0.6,
        init="fan_in",
        ema=0.99,
    ),
    # full training of what a search on small images chose
    "small-images-full": Recipe(
        name="small-images-full",
        epochs=100,
        batch_size=128,
        lr=2e-3,
        warmup=0.05,
        label_smoothing=0.1,
        mixup=0.2,
        randaugment_layers=1,
        randaugment_magnitude=7,
        shift=4,
        drop_path=0.1,
        init="fan_in",
        ema=0.999,
    ),
    # a few epochs on from trained weights: at a larger image size, or on other data with a new head
    "small-images-finetune": Recipe(
        name="small-images-finetune",
        epochs=5,
        batch_size=128,
        lr=2e-4,
        min_lr=2e-6,
        warmup=0.05,
        weight_decay=1e-4,
        label_smoothing=0.1,
        shift=4,
        init="fan_in",
        ema=0.99,
    ),
    # the paper's comparison of layouts (section 2.2): no augmentation and no regularisation, for networks of any size.
    # Its 10,000 steps of warm-up are 0.107 of the 300 epochs there; a share fits shorter runs too. The paper does not
    # say whether weight decay counts as regularisation; here it does.
    "paper-plain": Recipe(
        name="paper-plain",
        epochs=300,
        batch_size=4096,
        lr=1e-3,
        min_lr=1e-5,
        warmup=0.107,
        weight_decay=0.0,
        flip=False,
        bn_momentum=0.01,
        micro_batch=AUTO,
    ),
    **{name: _of_paper(name) for name in PAPER},
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
    "micro_batch": (0, 1_000_000),
}


def make_recipe(value: Mapping[str, Any], model: str | None = None) -> Recipe:
    """``{"name": "small-images", "epochs": 20}``: a recipe of ``RECIPES`` with some values replaced.

    ``model``: the family's name whose column of a paper's recipe is meant, as ``coatnet-2``. Raises InputError that
    names the key, what was expected and what came, or the sizes that the recipe is for.
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
    recipe = dataclasses.replace(RECIPES[value["name"]], **{**_of_size(value["name"], model), **changed})
    _check_together(recipe)
    return recipe


def sizes_of(name: str) -> tuple[str, ...]:
    """The models that a recipe was made for; none where it is for any."""
    return tuple(PAPER[name].models) if name in PAPER else ()


def _of_size(name: str, model: str | None) -> Mapping[str, Any]:
    sizes = sizes_of(name)
    if model is None or not sizes:
        return {}
    if model not in sizes:
        fitting = [other for other in PAPER if model in PAPER[other].models]
        hint = f"for {model}: {', '.join(fitting)}" if fitting else "no recipe of the paper is for that size"
        raise InputError(f"recipe.name: {name} is for {', '.join(sizes)}, not for {model}; {hint}")
    return PAPER[name].models[model]


def _checked(key: str, kind: Any, given: Any) -> Any:
    if key == "micro_batch":
        if given == AUTO:
            return AUTO
        kind = int
    if key == "compile":
        if isinstance(given, bool):
            return given
        return COMPILE[_expect(isinstance(given, str) and given in COMPILE, key, f"one of {', '.join(COMPILE)}", given)]
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
    if isinstance(recipe.micro_batch, int) and recipe.micro_batch and recipe.batch_size % recipe.micro_batch:
        raise InputError(f"recipe.micro_batch: {recipe.micro_batch} does not divide recipe.batch_size, "
                         f"{recipe.batch_size}; every step takes the whole batch")  # fmt: skip
    if recipe.compile == "graphs" and recipe.grad_checkpointing:
        raise InputError("recipe.compile: graphs cannot be captured with recipe.grad_checkpointing; write default")


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
