"""The trained weights that candidates inherit: one supernet for all layouts or one for each, and the folder of them.

    supernet.json       what it is: the space, how it is trained, on which data
    epochs.jsonl        a row an epoch
    checkpoints/        while it is trained: the last two
    weights/            once it is trained: the weights alone

Tensors are safetensors files with a JSON file each (see ``checkpoint.py``); nothing is ever unpickled.
"""

import dataclasses
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from coatnet_search import checkpoint
from coatnet_search.arch import Arch, Budget, Candidate, digest
from coatnet_search.checkpoint import Checkpoint
from coatnet_search.config import SpaceFile, SupernetSpec, read_document
from coatnet_search.document import changes, dump
from coatnet_search.errors import InputError, SetupError
from coatnet_search.recipe import Recipe, make_recipe, recipe_values
from coatnet_search.space import Space
from coatnet_search.supernet import Memory, Supernet, memory_needed

FACTS, ROWS, CHECKPOINTS, WEIGHTS = "supernet.json", "epochs.jsonl", "checkpoints", "weights"
FOLDER = "supernet"  # of a RUN
WEAK = {"mixup": 0.0, "randaugment_layers": 0, "randaugment_magnitude": 0}  # small networks learn less from more
SHARED = "all"  # the name of the only supernet, where layouts share it

Row = dict[str, Any]


class Supernets(nn.Module):
    """``of(layout)`` is the supernet of a layout. ``partition`` none: the same for all; layout: each has its own.

    Weights follow from ``seed`` alone. Raises InputError where the space has several image or head sizes, SetupError,
    before anything is allocated, where they do not fit the device (``training``: with gradients and moments).
    """

    def __init__(self, space: Space, layouts: Sequence[str], partition: str, recipe: Recipe, seed: int, *,
                 device: torch.device | None = None, training: bool = False) -> None:  # fmt: skip
        super().__init__()
        names = [SHARED] if partition == "none" else list(layouts)
        one = memory_needed(space)
        memory = Memory(one.parameters * len(names), one.buffers * len(names))
        memory.check(space.name, device or torch.device("cpu"), training=training)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.nets = nn.ModuleDict({name: Supernet(space, init=recipe.init) for name in names})
        self.set_grad_checkpointing(recipe.grad_checkpointing)

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
    half = path.with_suffix(".half")
    half.write_text(json.dumps(dict(found), indent=1), encoding="utf-8")
    half.replace(path)


def read_facts(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        if found["schema"] != 1:
            raise InputError(f"{folder / FACTS} has schema {found['schema']}; this version reads 1")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder / FACTS}: not what a supernet's folder holds: {error}") from None
    return dict(found)


def is_trained(folder: Path) -> bool:
    return any((folder / WEIGHTS).glob("epoch-*.json"))


def write_weights(folder: Path, nets: Supernets, rows: Sequence[Row]) -> None:
    """The end of training: the weights alone are kept. Raises OSError."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in nets.state_dict().items()}
    identity = {"supernet": facts_id(read_facts(folder))}
    checkpoint.save(folder / WEIGHTS, Checkpoint(len(rows), tensors, rows), identity)
    shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)


def weights_digest(folder: Path) -> str:
    """Of the weights that lie there. Raises SetupError where the supernet is not trained to its end."""
    return (
        digest(sorted(checkpoint.digests(folder / WEIGHTS).items()), 16) if is_trained(folder) else _untrained(folder)
    )


def _untrained(folder: Path) -> str:
    raise SetupError(f"{folder} holds no supernet that was trained to its end; run its study again, which goes on")


def space_of_facts(found: Mapping[str, Any]) -> Space:
    """The space that a supernet's facts name."""
    return Space(read_document(FACTS, dump(found["space"])).parse(SpaceFile), FOLDER)


def check_space(folder: Path, space: Space) -> None:
    """Raises InputError that names what differs where the supernet is one of another space."""
    different = list(changes("", read_facts(folder)["space"], space_values(space)))
    if different:
        raise InputError(f"the supernet in {folder} is of another space: {'; '.join(different[:4])}; take one of this "
                         "space, or train one here (supernet.epochs)")  # fmt: skip


def load_supernets(folder: Path, space: Space, device: torch.device | None = None) -> Supernets:
    """A trained supernet for a space. Raises InputError where it is of another one, SetupError where it is not trained
    or does not fit."""
    check_space(folder, space)
    found = read_facts(folder)
    loaded = checkpoint.load(folder / WEIGHTS, {"supernet": facts_id(found)}) if is_trained(folder) else None
    if loaded is None:
        _untrained(folder)
    assert loaded is not None
    partition = found["training"]["partition"]
    nets = Supernets(space, sorted(space.survey.layouts), partition, make_recipe(found["recipe"]), 0, device=device)
    nets.load_state_dict(dict(loaded.tensors))
    return nets.to(device or "cpu").eval()


def read_supernet_rows(folder: Path) -> list[Row]:
    """The rows of a supernet's epochs so far, in order."""
    path = folder / ROWS
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []


def write_rows(folder: Path, rows: Sequence[Row]) -> None:
    half = folder / f"{ROWS}.half"
    half.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    half.replace(folder / ROWS)
