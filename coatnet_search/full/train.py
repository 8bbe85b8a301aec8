"""Trains a chosen network by its full recipe for every seed, resumable; alone in reading the test split.

A folder of full training:

    plan.yaml                       what is trained; a changed plan is refused
    seed-0/stage-1/train.jsonl      a row an epoch
    seed-0/stage-1/checkpoints/     the last two; killed at any moment, the same command goes on after the last epoch
    seed-0/stage-1/model.safetensors, raw.safetensors    the weights that count; with an average the unaveraged ones
    model.safetensors, config.json  the first seed's, for ``predict`` and ``export``
    result.json, classes.csv        scores on validation and test, a row a class
    confusion.csv                   how many images of which class were taken for which
"""

import dataclasses
import functools
import json
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn

import coatnet_search
from coatnet_search.architecture.tensor_files import read_file
from coatnet_search.core.csv_file import write_csv
from coatnet_search.core.document import changes, dump, read_source
from coatnet_search.core.errors import InputError, SetupError
from coatnet_search.core.whole_file import write_text
from coatnet_search.data.batches import Data
from coatnet_search.data.test_split import check_test, load_test
from coatnet_search.full.bundle import WEIGHTS, Sight, write_bundle, write_json
from coatnet_search.full.plan import Plan, Stage
from coatnet_search.full.scores import Scores, over_seeds, score
from coatnet_search.training.device import autocast, chosen_precision, describe, device_id
from coatnet_search.training.device_lock import DeviceLock
from coatnet_search.training.loop import train
from coatnet_search.training.measurements.conditions import Conditions, MeasurementFailed
from coatnet_search.training.measurements.repeat_until_calm import measure_calmly
from coatnet_search.training.process_group import SINGLE_PROCESS, ProcessGroup
from coatnet_search.training.scoring import StepGuard

PLAN, ROWS, RAW, RESULT, CLASSES = "plan.yaml", "train.jsonl", "raw.safetensors", "result.json", "classes.csv"
CONFUSION = "confusion.csv"
FRACTIONS = ("top1", "top5")  # shares of images, whose binomial part is known
SCORED = ("top1", "top5", "loss", "calibration_error", "balanced_accuracy")  # what is averaged over seeds
SHOWN_CLASSES = 12  # a table of more is not read: up to so many, the matrix of confusions is in the result and the card
SLOW_LOADER = 1.25  # a loader that could give less than this many times what is trained holds training up
BATCH = 256  # images at once where nothing is learned

Row = dict[str, float]
Watch = Callable[[int, int, Row], None]  # seed, stage from 1, an epoch's row


def prepare_out(plan: Plan, out: Path) -> None:
    """Makes the folder, or checks that it is this plan's. Raises InputError with the differences."""
    path, digest = out / PLAN, plan.load(plan.stages[0].image_size).digest
    values = json.loads(json.dumps({**plan.identity(), "data_digest": digest}))
    if path.is_file():
        before = read_source(path).value
        changed = list(changes("", before, values))
        if changed:
            raise InputError(f"{out} holds other training: {'; '.join(changed[:4])}; give another --out, or the same "
                             "options as before")  # fmt: skip
        return
    try:
        out.mkdir(parents=True, exist_ok=True)
        if any(out.iterdir()):
            raise InputError(f"{out} is not empty and holds no training; give another --out")
        write_text(path, dump(values))
    except OSError as error:
        raise SetupError(f"--out {out}: cannot be written: {error.strerror}") from None


def findings(plan: Plan) -> list[str]:
    """Which folder or file is what, and what was passed over. Raises InputError for a test split that could not be used
    once training is over."""
    data = plan.load(plan.last.image_size)
    unusable = check_test(plan.data, data)
    return [*data.findings, *([data.note] if data.note else []), *([unusable] if unusable else [])]


def stage_folder(out: Path, seed: int, number: int) -> Path:
    return out / f"seed-{seed}" / f"stage-{number}"


def train_plan(
    plan: Plan, out: Path, device: torch.device, group: ProcessGroup = SINGLE_PROCESS, watch: Watch | None = None
) -> None:
    """Trains every stage for every seed and leaves the weights in ``out``; what is finished is not done again.

    ``watch`` is told each epoch's row, also of epochs that were trained before a resume. Raises what ``train`` raises.
    """
    data: dict[int, Data] = {}
    for seed in plan.seeds:
        for number, stage in enumerate(plan.stages, 1):
            folder = stage_folder(out, seed, number)
            if (folder / WEIGHTS).is_file():
                group.wait()
                continue
            if stage.image_size not in data:
                data[stage.image_size] = plan.load(stage.image_size)
            weights = str(stage_folder(out, seed, number - 1)) if number > 1 else plan.weights
            _train_stage(plan, stage, seed, folder, weights, data[stage.image_size], device, group,
                         functools.partial(watch or _nobody, seed, number))  # fmt: skip
            group.wait()


def _nobody(_seed: int, _number: int, _row: Row) -> None:
    """Watches nothing."""


def _train_stage(
    plan: Plan, stage: Stage, seed: int, folder: Path, weights: str | None, data: Data, device: torch.device,
    group: ProcessGroup, watch: Callable[[Row], None],
) -> None:  # fmt: skip
    network = plan.network.at(stage.image_size)
    model, _ = network.started(seed, stage.recipe, weights)
    if group.first:
        folder.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    for row in train(model, data, stage.recipe, stage.budget(seed), device, checkpoint=folder / "checkpoints",
                     step_guard=_guard(device, group), group=group):  # fmt: skip
        rows.append(row)
        if group.first:
            _write_rows(folder / ROWS, rows)
            if stage.recipe.ema and len(rows) == stage.recipe.epochs:  # at the end the average takes their place
                network.save(model, folder / RAW)
        watch(row)
    if group.first:
        network.save(model, folder / WEIGHTS)


def _guard(device: torch.device, group: ProcessGroup) -> StepGuard:
    """A step holds its device's lock, so that a measurement can wait for its end. Workers that exchange gradients wait
    for each other inside a step: one that a measurement keeps out would keep the measurement out for ever."""
    return DeviceLock(device_id(device)).shared if group.size == 1 else nullcontext


def _write_rows(path: Path, rows: list[Row]) -> None:
    write_text(path, "".join(json.dumps(row) + "\n" for row in rows))


def read_rows(out: Path, seed: int, number: int) -> list[Row]:
    """The epochs of a stage so far."""
    path = stage_folder(out, seed, number) / ROWS
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []


def slow_loader(row: Row, workers: int) -> str | None:
    """A sentence where training waits for images, with what to do."""
    loader = row.get("loader_images_per_s")
    if loader is None or loader >= SLOW_LOADER * row["train_images_per_s"]:
        return None
    spent = row["train_images_per_s"] / loader
    return (
        f"the loader is the bottleneck: {100 * min(spent, 1):.0f} % of training is waiting for images, "
        f"{loader:,.0f} a second with data.workers={workers}; raise data.workers, or store smaller images"
    )


# --- scores ----------------------------------------------------------------------------------------------------------


def assess(plan: Plan, out: Path, device: torch.device, loaded: Sequence[str] = ()) -> dict[str, Any]:
    """Scores every seed's final weights on validation and test, and writes result.json, classes.csv and the bundle.
    ``loaded``: what ``check`` says of the weights that training started from.

    Here, and nowhere else, the test split is opened. Raises SetupError where a seed's weights are missing.
    """
    stage, data = plan.last, plan.load(plan.last.image_size)
    network = plan.network.at(stage.image_size)
    opened = load_test(plan.data, data)
    splits = {"val": data, **({"test": opened[0]} if opened else {})}
    seeds, tables, confusions = [], [], []
    for seed in plan.seeds:
        folder = stage_folder(out, seed, len(plan.stages))
        if not (folder / WEIGHTS).is_file():
            raise SetupError(f"{folder / WEIGHTS} is missing; train again to make it")
        row: dict[str, Any] = {"seed": seed}
        for split, part in splits.items():
            found = _scores(plan, folder / WEIGHTS, part, device)
            row[split] = _without_classes(found)
            tables += [{"seed": seed, "split": split, **line} for line in found.classes]
            confusions += [(seed, split, *pair, images) for pair, images in found.confusion.items()]
            row[split] |= _matrix(found)
            if (folder / RAW).is_file():
                row[f"raw_{split}"] = _without_classes(_scores(plan, folder / RAW, part, device))
        row["train_s"] = sum(one["epoch_s"] for n in range(len(plan.stages)) for one in read_rows(out, seed, n + 1))
        seeds.append(row)
    result = _result(plan, data, opened, seeds, device)
    result |= {"weights_loaded": list(loaded), **_throughput(plan, out, device)}
    write_csv(out / CONFUSION, ("seed", "split", "class", "taken_for", "images"), confusions)
    write_csv(out / CLASSES, list(tables[0]), [line.values() for line in tables])
    model = _model(plan, stage_folder(out, plan.seeds[0], len(plan.stages)) / WEIGHTS)
    write_bundle(out, network, model, Sight.of(data, stage.image_size, stage.recipe.centre_crop), data.class_names,
                 stage.recipe.loss, result)  # fmt: skip
    write_json(out / RESULT, result)
    return result


def _model(plan: Plan, weights: Path) -> nn.Module:
    network = plan.network.at(plan.last.image_size)
    model = network.build(0)
    tensors, _ = read_file(weights)
    model.load_state_dict(tensors)
    return model.eval()


def _scores(plan: Plan, weights: Path, data: Data, device: torch.device) -> Scores:
    recipe = plan.last.recipe
    model = _model(plan, weights).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    size, side = min(BATCH, 2 * recipe.batch_size), plan.last.image_size
    batches = data.val_batches(batch_size=size, device=device, image_size=side, whole=not recipe.centre_crop)
    return score(model, batches, data.class_names, loss=recipe.loss, autocast=_autocast(plan, device))


def _autocast(plan: Plan, device: torch.device) -> AbstractContextManager[Any]:
    """The precision that the recipe trains with."""
    return autocast(chosen_precision(plan.last.recipe.precision, device), device)


def _without_classes(scores: Scores) -> dict[str, Any]:
    return {key: value for key, value in dataclasses.asdict(scores).items() if key not in ("classes", "confusion")}


def _matrix(scores: Scores) -> dict[str, Any]:
    """``confusion``: images by true class (rows) and predicted class (columns), where the classes are few."""
    names = [row["class"] for row in scores.classes]
    if len(names) > SHOWN_CLASSES:
        return {}
    return {"confusion": [[scores.confusion.get((true, predicted), 0) for predicted in names] for true in names]}


def _throughput(plan: Plan, out: Path, device: torch.device) -> dict[str, Any]:
    """Images a second of inference, measured alone on the device; nothing where it cannot be measured."""
    model = _model(plan, stage_folder(out, plan.seeds[0], len(plan.stages)) / WEIGHTS).to(device)
    asked = Conditions(device=str(device), threads=torch.get_num_threads(),
                       precision=chosen_precision("auto", device))  # fmt: skip
    shape = plan.network.at(plan.last.image_size).shape
    try:
        found = measure_calmly("throughput", model, shape, asked, DeviceLock(device_id(device)).alone)
    except MeasurementFailed as error:
        warnings.warn(f"throughput was not measured: {error}", stacklevel=2)
        return {}
    return {**found.measured.metrics, "throughput_conditions": found.as_attributes()}


def _result(
    plan: Plan, data: Data, opened: tuple[Data, int] | None, seeds: list[dict[str, Any]], device: torch.device
) -> dict[str, Any]:
    count = plan.network.at(plan.last.image_size).count
    splits = [split for split in ("val", "test", "raw_val", "raw_test") if split in seeds[0]]
    most = {"loss": math.inf}
    means = {f"{split}_{name}": over_seeds([row[split][name] for row in seeds], most=most.get(name, 1.0),
                                           num_images=seeds[0][split]["num_images"] if name in FRACTIONS else None)
             for split in splits for name in SCORED}  # fmt: skip
    return {
        "schema": 1, "plan": plan.id, "name": plan.network.name,
        "arch_id": None if plan.network.timm else plan.network.at(plan.last.image_size).shape.id,
        "layout": None if plan.network.timm else plan.network.shape.layout,
        "params": count.params, "macs": count.macs, **plan.identity(),
        "classes": len(data.class_names), "num_train": data.num_train, "num_val": data.num_val,
        "num_test": opened[0].num_val if opened else None, "data_digest": data.digest,
        "test_in_training": opened[1] if opened else None, "note": data.note, "test_note": _test_note(plan, opened),
        "seeds": seeds, "means": means, "device": describe(device),
        "predicted": dict(plan.network.promise),
        "against_prediction": against(plan.network.promise, means, data),
        "version": coatnet_search.__version__, "torch": torch.__version__,
    }  # fmt: skip


def _test_note(plan: Plan, opened: tuple[Data, int] | None) -> str | None:
    if opened is None:
        return "this data has no test split; put one beside the training images (a folder test/, or test*.parquet)"
    if plan.data.name == "digits":
        return ("digits has no test split of its own: a fifth is held out of full training; a search on digits has "
                "seen these images")  # fmt: skip
    shared = f"{opened[1]} of the test images are in training or validation too, byte for byte" if opened[1] else None
    return "; ".join(text for text in (shared, opened[0].note) if text) or None


def against(promise: Mapping[str, Any], means: Mapping[str, Any], data: Data) -> dict[str, Any] | None:
    """What the search measured of this network, and what its scaling curve said of so many images, beside what full
    training gave: was the choice right? None where no search says anything of its accuracy, or saw other images."""
    metrics, num_train = promise.get("metrics") or {}, data.num_train
    own = {"in_channels": data.in_channels, "num_classes": data.num_classes}
    if promise.get("images", own) != own:
        return None
    told = metrics.get("val_top1", 1 - metrics["error"] if "error" in metrics else None)
    if told is None:
        return None
    obtained = means["val_top1"]["mean"]
    objective = promise.get("objective") or "error"
    found = {"search_val_top1": told, "search_budget": promise.get("budget"), "obtained_val_top1": obtained,
             "gain": obtained - told, "search_rank": promise.get("rank"), "search_objective": objective,
             "search_value": metrics.get(objective, 1 - told if objective == "error" else None)}  # fmt: skip
    if metrics.get("predicted_images") == num_train:  # a curve's answer is for one amount of data
        low, high = 1 - metrics["predicted_high"], 1 - metrics["predicted_low"]
        found |= {"predicted_val_top1": 1 - metrics["predicted_error"], "predicted_low": low, "predicted_high": high,
                  "inside_prediction": low <= obtained <= high}  # fmt: skip
    return found
