"""Plans a full training: network, data, stages, seeds; finds what is wrong before hours are spent.

A stage is a recipe at an image size; a later one goes on with the weights of the one before: pre-train at 224, then
fine-tune at 384.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from coatnet_search.core.canonical import digest
from coatnet_search.core.document import dump
from coatnet_search.core.errors import InputError, SetupError, unknown
from coatnet_search.core.schema import Document, read_document
from coatnet_search.data import DATASETS
from coatnet_search.data.batches import Data
from coatnet_search.data.load import kind_of, load_data, summarize
from coatnet_search.data.source import utf8
from coatnet_search.data.spec import DataSpec
from coatnet_search.full.networks import Network, family_size, find_network
from coatnet_search.training.budget import Budget
from coatnet_search.training.recipe import AUTO, Recipe, make_recipe, recipe_values, schedule, sizes_of

AT = "@"
DEFAULT_SIDE = 224
_STAGE = re.compile(r"([1-9])\.(.+)", re.DOTALL)  # of a setting: the stage that it is for


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One recipe at one image size; ``budget(seed)`` is what its loop may spend."""

    recipe: Recipe
    image_size: int

    def budget(self, seed: int) -> Budget:
        return Budget(epochs=self.recipe.epochs, image_size=self.image_size, seed=seed)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """``weights``: what the first stage starts from (see ``networks.read_tensors``), None: nothing."""

    network: Network
    data: DataSpec
    stages: tuple[Stage, ...]
    seeds: tuple[int, ...]
    weights: str | None = None

    @property
    def last(self) -> Stage:
        return self.stages[-1]

    def load(self, image_size: int) -> Data:
        """Training's data at an image size; what the test needs is left out."""
        return load_data(self.data, image_size=image_size, full=True)

    def identity(self) -> dict[str, Any]:
        """What results follow from; seeds are not in it, since each has results of its own."""
        data = {key: value for key, value in self.data.to_dict().items() if key not in _FREE}
        return {
            "network": self.network.shape.to_dict(), "timm": self.network.timm, "data": data, "weights": self.weights,
            "stages": [{"recipe": recipe_values(stage.recipe), "image_size": stage.image_size}
                       for stage in self.stages],
        }  # fmt: skip

    @property
    def id(self) -> str:
        return digest(self.identity())

    def to_dict(self) -> dict[str, Any]:
        """Plain values: what a worker is given."""
        return {"network": self.network.to_dict(), "data": dataclasses.asdict(self.data), "seeds": list(self.seeds),
                "weights": self.weights, "stages": self.identity()["stages"]}  # fmt: skip

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> "Plan":
        stages = tuple(Stage(recipe=make_recipe(one["recipe"]), image_size=one["image_size"])
                       for one in value["stages"])  # fmt: skip
        return cls(network=Network.from_dict(value["network"]), data=DataSpec(**value["data"]), stages=stages,
                   seeds=tuple(value["seeds"]), weights=value["weights"])  # fmt: skip


_FREE = ("path", "download", "workers")  # of the data: may differ on resume


def make_plan(
    name: str, recipes: Sequence[str], data: str, *, sets: Sequence[str] = (), seeds: Sequence[int] = (0,),
    epochs: int | None = None, image_size: int | None = None, weights: str | None = None,
) -> Plan:  # fmt: skip
    """The plan of a command line. ``recipes``: names, each with ``@SIZE`` where it has an image size of its own.

    Raises InputError and SetupError, one line each, for whatever would end or spoil the training.
    """
    spec = data_spec(data, [text for text in sets if text.startswith("data.")])
    summary = summarize(spec, whole=False)
    smallest, _, largest = summary.image_sizes
    own_size = largest if smallest == largest < DEFAULT_SIDE else DEFAULT_SIDE
    network = find_network(name, image_size=image_size, own_size=own_size, in_channels=summary.in_channels,
                           num_classes=summary.num_classes)  # fmt: skip
    stages = make_stages(network, recipes, [text for text in sets if not text.startswith("data.")], epochs)
    if len(set(seeds)) != len(seeds):
        raise InputError(f"--seeds: each one once, got {', '.join(map(str, seeds))}")
    return Plan(network=network.at(stages[0].image_size), data=spec, stages=stages, seeds=tuple(seeds),
                weights=weights)  # fmt: skip


def make_stages(
    network: Network, recipes: Sequence[str], sets: Sequence[str] = (), epochs: int | None = None
) -> tuple[Stage, ...]:
    """The recipes of a chain with this network's values; one without ``@SIZE`` has the size of the one before.

    Raises InputError for a recipe or an image size that this network cannot have.
    """
    stages: list[Stage] = []
    for number, text in enumerate(recipes, 1):
        name, at, side = text.partition(AT)
        if at and not (side.isdigit() and int(side)):
            raise InputError(f"--recipe {text}: expected NAME or NAME@SIZE, such as paper-imagenet-finetune@384")
        size = int(side) if at else stages[-1].image_size if stages else network.shape.image_size
        _ = network.at(size).count  # raises where the network does not work at this size
        stages.append(Stage(recipe=resolved(network.at(size), name, _for(sets, number, len(recipes)), epochs),
                            image_size=size))  # fmt: skip
    return tuple(stages)


def _for(sets: Sequence[str], number: int, stages: int) -> list[str]:
    """The settings of one stage: those without a number, and those with its own (``2.lr=1e-4``)."""
    found = []
    for text in sets:
        match = _STAGE.fullmatch(text)
        if match and int(match[1]) > stages:
            raise InputError(f"--set {text}: there is no stage {match[1]}, only {stages}")
        if match is None or int(match[1]) == number:
            found.append(match[2] if match else text)
    return found


def resolved(network: Network, name: str, sets: Sequence[str] = (), epochs: int | None = None) -> Recipe:
    """A recipe with this network's size's values and the settings laid over it.

    Raises InputError where the recipe is not for a network of this size.
    """
    size = family_size(network) if sizes_of(name) else None
    if sizes_of(name) and size is None:
        raise InputError(f"recipe.name: {name} is for networks of the size of {', '.join(sizes_of(name))}; "
                         f"{network.name} has {network.count.params / 1e6:.3g} M parameters; small-images-full is for "
                         "any size")  # fmt: skip
    document = _document("recipe", {"name": name}, [text.removeprefix("recipe.") for text in sets])
    values = {**document.value, **({"epochs": epochs} if epochs else {})}
    return make_recipe(values, model=size)


def data_spec(text: str, sets: Sequence[str] = ()) -> DataSpec:
    """``digits``, ``NAME:PATH``, ``NAME:URI`` or a path, whose kind follows from what is there.

    ``sets``: ``data.KEY=VALUE``. Raises InputError and SetupError.
    """
    name, colon, path = text.partition(":")
    values: dict[str, Any]
    if text in DATASETS or (colon and name in DATASETS):
        here = path if not path or "://" in path else utf8(Path(path).expanduser().resolve())
        values = {"name": name, "path": here or None}
    elif (place := Path(text).expanduser()).exists():
        values = {"name": kind_of(place), "path": utf8(place.resolve())}
    elif "://" in text:
        raise InputError(f"--data: say what kind of data is at a URI: image_folder:{text} or parquet:{text}")
    elif "/" in text or "." in text or colon:
        raise SetupError(f"--data: {text} does not exist; give a folder with one folder of images a class, parquet "
                         f"files, or one of {', '.join(DATASETS)}")  # fmt: skip
    else:
        raise InputError(f"--data: {unknown('data set', text, DATASETS)}")
    return _document("data", values, [one.removeprefix("data.") for one in sets]).parse(DataSpec)


def _document(name: str, values: dict[str, Any], sets: Sequence[str]) -> Document:
    document = read_document(f"--{name}", dump(values))
    for text in sets:
        document.set(text)
    return document


def check(plan: Plan, device: torch.device, workers: int = 1) -> list[str]:
    """Everything that would end the training later: weights that do not fit, a warm-up longer than the run, a batch
    that does not divide. Returns what is loaded and what is changed of the weights, as sentences."""
    said: list[str] = []
    for stage in plan.stages:
        data = plan.load(stage.image_size)
        if data.in_channels != plan.network.shape.in_channels:
            seen = plan.network.shape.in_channels
            raise InputError(f"--data: a look at some images found {seen} channels, all together have "
                             f"{data.in_channels}; convert the odd ones")  # fmt: skip
        steps = data.num_steps(stage.recipe.batch_size)
        schedule(stage.recipe, epochs=stage.recipe.epochs, steps_per_epoch=steps)
        micro = 0 if stage.recipe.micro_batch == AUTO else stage.recipe.micro_batch
        at_once = workers * (micro or 1)
        if min(stage.recipe.batch_size, data.num_train) % at_once:
            raise InputError(f"recipe.batch_size: {min(stage.recipe.batch_size, data.num_train)} images do not divide "
                             f"among {workers} workers in parts of {micro or 'any size'}; set "
                             "recipe.batch_size or recipe.micro_batch")  # fmt: skip
        if stage is plan.stages[0]:
            _, start = plan.network.started(plan.seeds[0], stage.recipe, plan.weights)
            said = start.sentences if start else []
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise SetupError(f"--device {device}: torch sees {torch.cuda.device_count()} GPUs here")
    return said
