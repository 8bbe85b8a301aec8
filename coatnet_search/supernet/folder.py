"""The folder of trained supernets in a RUN: one for all layouts, or one for each.

    supernet.json       what it is: the space, how it is trained, on which data
    epochs.jsonl        a row an epoch
    checkpoints/        while it is trained: the last two
    weights/            once it is trained: the weights alone, a file a supernet, and digests.json, their checksums

Tensors are safetensors files; nothing is ever unpickled.
"""

import dataclasses
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from coatnet_search.architecture.arch import Arch, Candidate
from coatnet_search.core.canonical import digest
from coatnet_search.core.document import changes
from coatnet_search.core.errors import InputError, SetupError
from coatnet_search.core.whole_file import write_text
from coatnet_search.space.space import Space
from coatnet_search.supernet.blueprint import memory_needed
from coatnet_search.supernet.memory import Memory
from coatnet_search.supernet.network import Supernet
from coatnet_search.supernet.rows import FOLDER, PER_LAYOUT_FOLDER, ROWS, Row
from coatnet_search.supernet.spec import SupernetSpec
from coatnet_search.supernet.tensor_files import load_supernet, save_supernet
from coatnet_search.training.budget import Budget
from coatnet_search.training.checkpoint import sha256_of
from coatnet_search.training.recipe import Recipe, make_recipe, recipe_values

FACTS, CHECKPOINTS, WEIGHTS, DIGESTS = "supernet.json", "checkpoints", "weights", "digests.json"
WEAK = {"mixup": 0.0, "randaugment_layers": 0, "randaugment_magnitude": 0}  # small networks learn less from more
SHARED = "all"  # the name of the only supernet, where layouts share it


class Supernets(nn.Module):
    """``of(layout)`` is the supernet of a layout: the only one, or where ``nets`` are named by layout, its own."""

    def __init__(self, nets: Mapping[str, Supernet]) -> None:
        super().__init__()
        self.nets = nn.ModuleDict(nets)

    @classmethod
    def fresh(cls, space: Space, layouts: Sequence[str], partition: str, recipe: Recipe, seed: int,
              device: torch.device) -> "Supernets":  # fmt: skip
        """New ones for training on ``device``; weights follow from ``seed`` alone.

        Raises InputError where the space has several image or head sizes, SetupError, before anything is allocated,
        where weights, gradients and moments do not fit the device.
        """
        names = [SHARED] if partition == "none" else list(layouts)
        one = memory_needed(space)
        Memory(one.parameters * len(names), one.buffers * len(names)).check(space.name, device, training=True)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            nets = cls({name: Supernet(space, init=recipe.init) for name in names})
        nets.set_grad_checkpointing(recipe.grad_checkpointing)
        return nets

    def of(self, layout: str) -> Supernet:
        net = self.nets[SHARED if SHARED in self.nets else layout]
        assert isinstance(net, Supernet)
        return net

    def extract(self, candidate: Candidate) -> tuple[Arch, dict[str, Tensor]]:
        """The candidate's network alone, as copies. Raises InputError where it is not one of the space."""
        space = next(iter(self.nets.values())).space
        assert isinstance(space, Space)
        return self.of(space.decode(candidate).layout).extract(candidate)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        for net in self.nets.values():
            net.set_grad_checkpointing(enable)  # type: ignore[operator]


def supernet_recipe(recipe: Recipe, spec: SupernetSpec) -> Recipe:
    """How the supernet is trained: the study's recipe with weak augmentation and what the study replaces.

    Raises InputError that names the key, ``recipe.KEY``, for what a supernet cannot have.
    """
    found = make_recipe({**dataclasses.asdict(recipe), **WEAK, **spec.recipe, "epochs": spec.epochs or recipe.epochs})
    if found.ema:
        raise InputError("recipe.ema: a supernet is not averaged; write supernet: {recipe: {ema: 0}}")
    if found.compile:
        raise InputError("recipe.compile: each network of a supernet would be compiled again; write false")
    if found.loss == "sigmoid" and spec.distillation == "alpha":
        raise InputError("recipe.loss: alpha divergence compares distributions over classes; write softmax, or "
                         "supernet.distillation: kl")  # fmt: skip
    return found


def parts(spec: SupernetSpec) -> dict[str, SupernetSpec]:
    """The supernets that a study trains, by folder of the RUN; the first is what candidates inherit from."""
    if spec.partition != "both":
        return {FOLDER: spec}
    return {
        FOLDER: dataclasses.replace(spec, partition="none"),
        PER_LAYOUT_FOLDER: dataclasses.replace(spec, partition="layout"),
    }


def supernet_budget(spec: SupernetSpec, num_images: int | None) -> Budget:
    assert spec.epochs is not None
    return Budget(epochs=spec.epochs, num_images=num_images, seed=spec.seed)


# --- the folder ------------------------------------------------------------------------------------------------------


def space_values(space: Space) -> dict[str, Any]:
    """A space as plain values, but for what is said about it in words."""
    values = json.loads(json.dumps(dataclasses.asdict(space.file)))
    return {name: value for name, value in values.items() if name != "description"}


def facts(space: Space, spec: SupernetSpec, recipe: Recipe, data: str | None, num_images: int | None) -> dict[str, Any]:
    """What a supernet is: everything that its weights follow from. ``recipe``: that of ``supernet_recipe``; ``data``:
    its digest."""
    training = {field.name: getattr(spec, field.name) for field in dataclasses.fields(spec)
                if field.name not in ("path", "recipe", "recalibration_images")}  # fmt: skip
    return {"schema": 1, "space": space_values(space), "training": training, "recipe": recipe_values(recipe),
            "data": data, "num_images": num_images}  # fmt: skip


def facts_id(found: Mapping[str, Any]) -> str:
    return digest(dict(found), 16)


def supernet_folder(path: str | Path) -> Path:
    """The folder of a supernet, given it or its RUN. Raises SetupError where there is none."""
    for folder in (Path(path) / FOLDER, Path(path)):
        if (folder / FACTS).is_file():
            return folder
    raise SetupError(f"supernet.path: {path} holds no supernet; give the folder of a RUN with evaluate: inherited, or "
                     f"its folder {FOLDER}")  # fmt: skip


def write_facts(folder: Path, found: Mapping[str, Any]) -> None:
    """Raises InputError with the differences where the folder holds another supernet."""
    path = folder / FACTS
    if path.is_file() and (changed := list(changes("", read_facts(folder), found))):
        raise InputError(f"{folder} holds another supernet: {'; '.join(changed[:4])}; remove it to train again")
    folder.mkdir(parents=True, exist_ok=True)
    _write(path, found)


def read_facts(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        if found["schema"] != 1:
            raise InputError(f"{folder / FACTS} has schema {found['schema']}; this version reads 1")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder / FACTS}: not what a supernet's folder holds: {error}") from None
    return dict(found)


def is_trained(folder: Path) -> bool:
    return (folder / WEIGHTS / DIGESTS).is_file()


def write_weights(folder: Path, nets: Supernets) -> None:
    """The end of training: the weights alone are kept; the list of their checksums is written last. Raises OSError."""
    (folder / WEIGHTS).mkdir(exist_ok=True)
    found = {}
    for name, net in nets.nets.items():
        path = folder / WEIGHTS / f"{name}.safetensors"
        assert isinstance(net, Supernet)
        save_supernet(net, path)
        found[path.name] = sha256_of(path)
    _write(folder / WEIGHTS / DIGESTS, found)
    shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)


def weights_digest(folder: Path) -> str:
    """Of the weights that lie there. Raises SetupError where the supernet is not trained to its end."""
    return digest(_digests(folder), 16)


def _digests(folder: Path) -> dict[str, str]:
    if not is_trained(folder):
        raise SetupError(f"{folder} holds no supernet that was trained to its end; run its study again, which goes on")
    return dict(json.loads((folder / WEIGHTS / DIGESTS).read_text(encoding="utf-8")))


def load_supernets(folder: Path, space: Space) -> Supernets:
    """A trained supernet for a space, on the CPU. Raises InputError where it is of another space, with what differs, or
    damaged; SetupError where it is not trained to its end."""
    nets = {}
    for name, sha256 in _digests(folder).items():
        path = folder / WEIGHTS / name
        if not path.is_file() or sha256_of(path) != sha256:
            raise InputError(f"{path} is damaged or not of this supernet; remove {folder} to train it again")
        nets[path.stem] = load_supernet(path, space)
    return Supernets(nets).eval()


def write_rows(folder: Path, rows: Sequence[Row]) -> None:
    _replace(folder / ROWS, "".join(json.dumps(row) + "\n" for row in rows))


def _write(path: Path, found: Mapping[str, Any]) -> None:
    _replace(path, json.dumps(dict(found), indent=1))


def _replace(path: Path, text: str) -> None:
    """A reader sees the old file or the new one, never half of it."""
    write_text(path, text)
