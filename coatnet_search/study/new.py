"""A user's folder of images -> a space file and a study file that fit them and this machine."""

import importlib
import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import torch

from coatnet_search.architecture.arch import Arch
from coatnet_search.architecture.cost import cost
from coatnet_search.core.checks import safe_name
from coatnet_search.core.document import dump, one_line
from coatnet_search.core.errors import InputError, SetupError
from coatnet_search.core.schema import read_document
from coatnet_search.data import DATASETS
from coatnet_search.data.load import Summary, class_counts, kind_of, summarize
from coatnet_search.data.remote import local_path
from coatnet_search.data.source import Source, utf8
from coatnet_search.data.spec import DataSpec
from coatnet_search.space.space import Space, space_of
from coatnet_search.study.load import load_study
from coatnet_search.study.plan import START_S, trials_at_once
from coatnet_search.study.sections import Resources
from coatnet_search.study.workload import images_per_epoch
from coatnet_search.training.recipe import make_recipe
from coatnet_search.training.rehearsal import training_speed

# image size: strides of the stem and of S1..S4, so that a search may put attention into S2..S4 at 16 tokens or more
STRIDES: dict[int, tuple[int, tuple[int, int, int, int]]] = {
    8: (1, (1, 1, 2, 1)),
    16: (1, (1, 2, 2, 1)),
    32: (1, (1, 2, 2, 2)),
    64: (2, (1, 2, 2, 2)),
    128: (2, (2, 2, 2, 2)),
    224: (2, (2, 2, 2, 2)),
    384: (2, (2, 2, 2, 2)),
    512: (2, (2, 2, 2, 2)),
}
SMALLEST_SIZE = 64  # pixels: larger images are not shrunk below this, whatever the hour affords
# width of the stem; the stages' widths are multiples of it, and it is the width of an attention head
STEM_WIDTH = {"cpu": ((0, 8),), "cuda": ((0, 16), (128, 32))}
WIDTHS = ((1, 1.5), (2, 3), (4, 5), (6, 8))
HOUR_S = 3600 * 0.8  # the rest is for the start, the measurements and larger networks than the median
TRIALS = (12, 24, 60)  # fewest, wanted, most
EPOCHS = (5, 20, 60)  # likewise
RUN_STEPS = 6000  # so many steps are enough for networks of this size
BATCH = (16, 128)
EPOCH_STEPS = 20  # a batch is at most this part of the images
SMALL_DATA, SMALL_VAL = 2000, 200  # fewer images: a larger val part; fewer val images: the loss tells networks apart
SAMPLED = 50
IMBALANCED = 3  # times the smallest class: where the largest has more, accuracy says little of the smallest
NAMED = 20  # classes


@dataclass(frozen=True, kw_only=True)
class Look:
    """What is known of a user's images. ``per_class``: images of each class; ``val_per_class``: those that validate."""

    spec: DataSpec
    summary: Summary
    per_class: dict[str, int]
    val_per_class: dict[str, int]

    @property
    def imbalance(self) -> float:
        """How many times more images the largest class has than the smallest."""
        return max(self.per_class.values()) / min(self.per_class.values())


@dataclass(frozen=True, kw_only=True)
class Written:
    """The two files, and what was decided."""

    space: Path
    study: Path
    look: Look
    image_size: int
    trials: int
    epochs: int
    num_images: int | None
    hours: float
    device: str


def look_at(folder: str | Path, sets: Sequence[str] = ()) -> Look:
    """The images of a folder of class folders, or of parquet files, here or at a URI. ``sets``: ``data.KEY=VALUE``.

    Raises InputError and SetupError.
    """
    path, remote = local_path(str(folder)), "://" in str(folder)
    if not path.exists():
        raise SetupError(f"--data: {path} does not exist; give a folder with one folder of images a class")
    kind = kind_of(path)
    spec = _spec({"name": kind, "path": str(folder) if remote else utf8(path.resolve())}, sets)
    source: Source = importlib.import_module(DATASETS[kind]).open_source(spec)
    share = 0.1 if source.num_images >= SMALL_DATA else 0.2
    spec = _spec({"name": kind, "path": spec.path, "val_fraction": share}, sets)
    summary, (train, val) = summarize(spec), class_counts(spec)
    per_class, val_per_class = (
        dict(zip(summary.class_names, counts.tolist(), strict=True)) for counts in (train + val, val)
    )
    return Look(spec=spec, summary=summary, per_class=per_class, val_per_class=val_per_class)


def _spec(values: dict[str, Any], sets: Sequence[str]) -> DataSpec:
    document = read_document("--data", dump(values))
    for text in sets:
        if not text.startswith("data."):
            raise InputError(f"--set {text}: expected data.KEY=VALUE, such as data.label_column=kind; the rest is "
                             "set in the study's file")  # fmt: skip
        document.set(text.removeprefix("data."))
    return document.parse(DataSpec)


def write_new(look: Look, out: Path, name: str) -> Written:
    """Write ``out/NAME-space.yaml`` and ``out/NAME.yaml``. The study fits about an hour of this machine.

    Nothing is overwritten. Raises InputError where a file is there already or the name is none.
    """
    safe = safe_name(name)
    space_path, study_path = out / f"{safe}-space.yaml", out / f"{safe}.yaml"
    for path in (space_path, study_path):
        if path.exists():
            raise InputError(f"{path} is there already; give another --name or --out, or remove it")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    side, space_text, fit = _settled(look, space_path, device)
    study_text = _study_header(look) + dump(_study(look, space_path.name, safe, side, device, fit))
    out.mkdir(parents=True, exist_ok=True)
    for path, text in ((space_path, space_text), (study_path, study_text)):
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    load_study(study_path)  # what is written is checked as a user's file is
    return Written(space=space_path, study=study_path, look=look, image_size=side, device=device, **fit)


def image_sizes(summary: Summary) -> list[int]:
    """The sizes to try, largest first: from the one nearest to the median image (in octaves) down to a small one."""
    median = summary.image_sizes[1]
    nearest = min(STRIDES, key=lambda size: abs(math.log(size / median)))
    return [size for size in reversed(STRIDES) if min(nearest, SMALLEST_SIZE) <= size <= nearest]


def _settled(look: Look, path: Path, device: str) -> tuple[int, str, dict[str, Any]]:
    """The largest image size at which the hour holds a comfortable study, with its space as text, and the fit."""
    for side in image_sizes(look.summary):
        text = _space_header(look) + dump(_space(look, side, device))
        fit = _fit(look, space_of(read_document(path, text), path.stem), side, device)
        if fit["comfortable"]:
            break
    del fit["comfortable"]
    return side, text, fit


def _space(look: Look, side: int, device: str) -> dict[str, Any]:
    stem_stride, strides = STRIDES[side]
    width = next(width for least, width in reversed(STEM_WIDTH[device]) if side >= least)
    depths: Sequence[Any] = (1, [1, 2], [1, 2, 3], [1, 2])
    stages = [
        {"block": "C" if place == 0 else ["C", "T"], "depth": depths[place],
         "width": [int(width * factor) for factor in WIDTHS[place]], "stride": strides[place],
         **({"kernel": [3, 5]} if place == 0 else {}), "expand": [2, 4]}
        for place in range(4)
    ]  # fmt: skip
    summary = look.summary
    return {
        "description": f"{summary.num_classes} classes of {side}x{side} images",
        "image_size": side,
        "in_channels": summary.in_channels,
        "num_classes": summary.num_classes,
        "stem": {"kind": "conv", "depth": 1, "width": width, "stride": stem_stride},
        "stages": stages,
        "head_size": width,
        "convolution_first": True,
    }


def _recipe(look: Look, side: int) -> dict[str, Any]:
    """small-images, with the batch, the rate and the changes of images fitted to how many and how large they are."""
    most = look.summary.num_train // EPOCH_STEPS
    batch = min(BATCH[1], max(BATCH[0], 2 ** int(math.log2(max(most, 1)))))
    base = make_recipe({"name": "small-images"})
    moves: dict[str, Any] = {"min_crop_area": 0.35} if side >= 128 else {"shift": max(1, side // 8)}
    return {
        "name": "small-images",
        "batch_size": batch,
        "lr": float(f"{base.lr * math.sqrt(batch / base.batch_size):.2g}"),
        "flip": look.summary.in_channels == 3,
        **moves,
    }


def _fit(look: Look, space: Space, side: int, device: str) -> dict[str, Any]:
    """trials, epochs and num_images for about an hour, from a few training steps of the median network."""
    rng = np.random.default_rng(0)
    costs = sorted((cost(arch).macs, arch.id, arch) for arch in _sample(space, rng))
    macs, _, arch = costs[len(costs) // 2]
    cpus, gpus = _resources(device)
    at_once, threads = trials_at_once(Resources(cpus=cpus, gpus=gpus), gpus)
    speed = training_speed(arch, macs, make_recipe(_recipe(look, side)), device, threads)
    return fitted(look.summary, speed, at_once, _recipe(look, side)["batch_size"])


def _sample(space: Space, rng: np.random.Generator) -> list[Arch]:
    return [space.decode(space.sample(rng)) for _ in range(SAMPLED)]


def fitted(summary: Summary, images_per_s: float, at_once: int, batch_size: int) -> dict[str, Any]:
    """How many trials of how many epochs on how many images take an hour at this speed, ``at_once`` at once.

    Enough epochs come before many trials; where even few trials of few epochs take longer, a part of the images is
    trained on. ``num_images`` None: all of them. ``comfortable``: trials as wanted, and epochs too or all that help.
    """
    budget = HOUR_S * at_once
    epoch_s = images_per_epoch(summary) / images_per_s
    enough = RUN_STEPS // max(1, summary.num_train // batch_size)
    most_epochs = min(EPOCHS[-1], max(EPOCHS[0], enough))

    def epochs_for(trials: int) -> int:
        return min(most_epochs, math.floor((budget / trials - START_S) / epoch_s))

    trials, num_images = TRIALS[1], None
    if epochs_for(trials) < EPOCHS[0]:
        trials = max(TRIALS[0], math.floor(budget / (START_S + EPOCHS[0] * epoch_s)))
    epochs = max(EPOCHS[0], epochs_for(trials))
    if epochs == most_epochs:
        trials = min(TRIALS[-1], max(trials, math.floor(budget / (START_S + epochs * epoch_s))))
    if epochs_for(trials) < EPOCHS[0]:
        share = (budget / trials - START_S) * images_per_s / (EPOCHS[0] * images_per_epoch(summary))
        num_images = min(summary.num_train, max(10 * summary.num_classes, int(share * summary.num_train)))
        epoch_s *= num_images / summary.num_train
    hours = trials * (START_S + epochs * epoch_s) / at_once / 3600
    comfortable = trials >= TRIALS[1] and epochs >= min(EPOCHS[1], most_epochs)
    return {"trials": trials, "epochs": epochs, "num_images": num_images, "hours": hours, "comfortable": comfortable}


def _resources(device: str) -> tuple[float, float]:
    """CPUs and GPUs of one trial."""
    return (1, 0) if device == "cpu" else (max(1, (os.cpu_count() or 1) // torch.cuda.device_count()), 1)


def _study(look: Look, space: str, name: str, side: int, device: str, fit: dict[str, Any]) -> dict[str, Any]:
    summary, spec = look.summary, look.spec
    cpus, gpus = _resources(device)
    usual = DataSpec(name="").to_dict() | {"val_fraction": spec.val_fraction if summary.own_val else None}
    data = {key: value for key, value in spec.to_dict().items() if value != usual.get(key)}
    if fit["num_images"] is not None:
        data["num_images"] = fit["num_images"]
    if summary.value_range is not None:
        data["value_range"] = list(summary.value_range)
    if summary.background is not None:
        data["background"] = summary.background
    objective = {"error": "min"} if summary.num_val >= SMALL_VAL else {"val_loss": "min"}
    if look.imbalance > IMBALANCED:
        objective = {"val_balanced_accuracy": "max"}
    return {
        "question": f"Which layout classifies the images of {name} best for the multiply-adds it costs?",
        "space": space,
        "data": data,
        "recipe": {**_recipe(look, side), "epochs": fit["epochs"]},
        "objectives": {**objective, "macs": "min"},
        "measure": ["throughput"],
        "search": {"strategy": "predictor", "trials": fit["trials"], "seed": 0},
        "resources": {"cpus": cpus, "gpus": gpus},
        "choose": {"top": 3},
    }


def facts(look: Look) -> list[str]:
    """What was seen, as sentences."""
    summary = look.summary
    low, median, high = summary.image_sizes
    total = summary.num_train + summary.num_val
    kind = "grey" if summary.in_channels == 1 else "colour"
    sides = f"{low}" if low == high else f"{low} to {high} (median {median})"
    lines = [f"{total:,} {kind} images in {summary.num_classes} classes, {sides} pixels on the shorter side"]
    lines += [_classes(summary.class_names), *summary.findings]
    small, large = (end(look.per_class, key=look.per_class.__getitem__) for end in (min, max))
    if small == large:
        lines.append(f"each class has {_images_of(look, small)}")
    else:
        lines.append(f"the smallest class, {small}, has {_images_of(look, small)}; the largest, {large}, "
                     f"{_images_of(look, large)}")  # fmt: skip
    broken = f"{summary.num_broken:,} broken image{' is' if summary.num_broken == 1 else 's are'} left out"
    lines.append(broken if summary.num_broken else "no broken images")
    if summary.note:
        lines.append(summary.note)
    if not summary.exact:
        lines.append("only a sample of the images was opened")
    return [one_line(line) for line in lines]


def _images_of(look: Look, name: str) -> str:
    return f"{look.per_class[name]:,} images, {look.val_per_class[name]:,} of them for validation"


def _classes(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"classes: {', '.join(names[:NAMED])}{more}"


def _space_header(look: Look) -> str:
    lines = [*facts(look), "Attention always has at least 16 tokens: change strides and image_size together."]
    return "".join(f"# {line}\n" for line in lines)


def _study_header(look: Look) -> str:
    lines = [
        "Trials and epochs are for about an hour of the machine that this was written on.",
        "recipe.flip: true mirrors images left-right; false where that changes their meaning (text, digits).",
    ]
    if look.imbalance > IMBALANCED:
        lines.append(f"The largest class has {look.imbalance:.3g} times the images of the smallest: the objective is "
                     "balanced accuracy, in which each class counts alike. recipe.class_balance: sampling (as many "
                     "images of each class in an epoch) or weights (of the loss) trains for it.")  # fmt: skip
    elif look.summary.num_val < SMALL_VAL:
        lines.append("With so few validation images the loss tells networks apart better than the error.")
    return "".join(f"# {line}\n" for line in lines)


def default_name(folder: str | Path) -> str:
    """A study's name from the data's place: the folder's own name, or the one above where that says nothing."""
    place = Path(urlsplit(str(folder)).path if "://" in str(folder) else folder).expanduser().resolve()
    while place.suffix == ".parquet" or place.name.lower() in ("train", "data", "images"):
        place = place.parent
    name = place.name
    return re.sub(r"\s+", "-", name).lower() or "study"
