"""``train ARCH --recipe NAME --data ...``: full training, resumable; test accuracy comes from here alone."""

import argparse
import dataclasses
import re
import signal
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import torch

from coatnet_search.cli.commands.shared import torch_device
from coatnet_search.core.errors import EXIT_DONE, InputError, SetupError
from coatnet_search.core.quantities import show, show_difference
from coatnet_search.core.screen import Screen, command
from coatnet_search.data.load import decoding_workers
from coatnet_search.full.compare import budget_words
from coatnet_search.full.model_card import unrecognised
from coatnet_search.full.networks import find_network
from coatnet_search.full.plan import DEFAULT_SIDE, Plan, check, make_plan, make_stages
from coatnet_search.full.scores import single_seeds
from coatnet_search.full.train import (
    CLASSES,
    CONFUSION,
    RESULT,
    Row,
    assess,
    findings,
    prepare_out,
    read_rows,
    slow_loader,
    train_plan,
)
from coatnet_search.training.loop import TrainingFailed
from coatnet_search.training.recipe import Recipe

OUT = Path("runs") / "train"


def main(given: argparse.Namespace) -> int:
    screen = Screen(given.json, given.results)
    if given.print_recipe:
        return _print_recipes(given, screen)
    if not given.data:
        raise InputError("train needs --data: a folder of images, parquet files, or the name of a data set")
    gpus, device = _devices(given)
    plan = make_plan(given.arch, given.recipe, given.data, sets=given.sets, seeds=given.seeds, epochs=given.epochs,
                     image_size=given.image_size, weights=given.weights)  # fmt: skip
    out = given.out or OUT / _slug(f"{given.arch}-{'-'.join(given.recipe)}")
    loaded = check(plan, device, given.workers or 1)
    for sentence in loaded:
        screen.note(f"weights of {given.weights}: {sentence}")
    for sentence in findings(plan):
        screen.note(f"data: {sentence}")
    prepare_out(plan, out)
    before = signal.signal(signal.SIGTERM, _stopped)
    try:
        if given.workers:
            result = _train_on_workers(plan, out, gpus, loaded, given, screen)
        else:
            _train(plan, out, device, screen)
    except KeyboardInterrupt:
        screen.note(f"stopped; the last whole epoch is kept. Resume with: {command(_words(given, out))}")
        raise
    except TrainingFailed as error:
        raise SetupError(str(error)) from None
    finally:
        signal.signal(signal.SIGTERM, before)
    if not given.workers:
        result = assess(plan, out, device, loaded)
    _show(result, out, screen)
    screen.result({"out": out, **result})
    return EXIT_DONE


def _devices(given: argparse.Namespace) -> tuple[bool, torch.device]:
    """Whether workers have a GPU each, and the device of this process, which needs none where a cluster trains."""
    if given.workers and given.address:
        from coatnet_search.full.distributed import cluster_has_gpus  # noqa: PLC0415  # Ray is imported where it is asked for

        return cluster_has_gpus(given.device, given.address), torch.device("cpu")
    device = torch_device(given.device)
    return device.type == "cuda", device


def _train_on_workers(
    plan: Plan, out: Path, gpus: bool, loaded: Sequence[str], given: argparse.Namespace, screen: Screen
) -> dict[str, Any]:
    from coatnet_search.full.distributed import train_distributed  # noqa: PLC0415  # Ray is imported where it is asked for

    screen.note(f"{given.workers} workers with a {'GPU' if gpus else 'CPU'} each; the epochs so far are in "
                f"{out / 'seed-N' / 'stage-N' / 'train.jsonl'}")  # fmt: skip
    result = train_distributed(plan, out, given.workers, gpus=gpus, address=given.address, loaded=loaded)
    rows = [row for number in range(len(plan.stages)) for row in read_rows(out, plan.seeds[0], number + 1)]
    if rows and (slow := slow_loader(rows[-1], decoding_workers(plan.data))):
        screen.warn(slow)
    return result


def _train(plan: Plan, out: Path, device: torch.device, screen: Screen) -> None:
    warned: set[str] = set()

    def watch(seed: int, number: int, row: Row) -> None:
        stage = plan.stages[number - 1]
        of = f"stage {number} ({stage.recipe.name}, {stage.image_size} px), " if len(plan.stages) > 1 else ""
        loss, accuracy, speed = (show(name, row[name]) for name in ("train_loss", "val_top1", "train_images_per_s"))
        screen.note(f"seed {seed}, {of}epoch {row['epoch']:.0f}/{stage.recipe.epochs}: training loss {loss}, "
                    f"validation accuracy {accuracy}, {speed}")  # fmt: skip
        if not warned and (slow := slow_loader(row, decoding_workers(plan.data))):
            warned.add(slow)
            screen.warn(slow)

    train_plan(plan, out, device, watch=watch)


def _stopped(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _words(given: argparse.Namespace, out: Path) -> list[object]:
    """The command line again."""
    words: list[object] = ["train", given.arch, "--recipe", *given.recipe, "--data", given.data, "--out", out]
    words += ["--seeds", ",".join(map(str, given.seeds))]
    words += ["--set", *given.sets] if given.sets else []
    for name in ("epochs", "image_size", "weights", "device", "workers", "address"):
        if getattr(given, name) is not None:
            words += [f"--{name.replace('_', '-')}", getattr(given, name)]
    return words


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9.]+", "-", text).strip("-.").lower()[-120:]


# --- what is printed -------------------------------------------------------------------------------------------------


def _print_recipes(given: argparse.Namespace, screen: Screen) -> int:
    """The resolved values for this network; of its data only the image size counts, and nothing is opened."""
    if given.data:
        plan = make_plan(given.arch, given.recipe, given.data, sets=given.sets, epochs=given.epochs,
                         image_size=given.image_size)  # fmt: skip
        stages = plan.stages
    else:
        network = find_network(given.arch, image_size=given.image_size, own_size=DEFAULT_SIDE, in_channels=3,
                               num_classes=1000)  # fmt: skip
        sets = [one for one in given.sets if not one.startswith("data.")]
        stages = make_stages(network, given.recipe, sets, given.epochs)
    screen.result([{**dataclasses.asdict(stage.recipe), "image_size": stage.image_size} for stage in stages])
    for stage in stages:
        screen.facts([*_facts(stage.recipe), ("image_size", str(stage.image_size))])
    return EXIT_DONE


def _facts(recipe: Recipe) -> list[tuple[str, str]]:
    return [("optimizer", "AdamW"), *((name, _shown(value)) for name, value in dataclasses.asdict(recipe).items())]


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


COLUMNS = {"split": "split", "images": "images", "top1": "accuracy", "interval": "95 % interval",
           "balanced_accuracy": "balanced accuracy", "top5": "top 5", "loss": "loss",
           "calibration_error": "calibration error"}  # fmt: skip
TITLES = {"val": "validation", "test": "test", "raw_val": "validation, not averaged", "raw_test": "test, not averaged"}


def _show(result: dict[str, Any], out: Path, screen: Screen) -> None:
    seeds = result["seeds"]
    screen.table(COLUMNS, [_line(split, result) for split in TITLES if split in seeds[0]])
    if len(seeds) > 1:
        screen.say(f"means over {len(seeds)} seeds; intervals are of these means, with what the images leave open")
    for split, title in TITLES.items():
        if split in seeds[0] and (alone := single_seeds([row[split]["top1"] for row in seeds])):
            screen.say(f"{title}, each seed: {alone}; two seeds say little of seeds")
    for text in unrecognised(result):
        screen.warn(f"{text}; {CLASSES} and {CONFUSION} have the numbers, --set class_balance=sampling trains for it")
    if result["test_note"]:
        screen.say(result["test_note"])
    if found := result["against_prediction"]:
        words = budget_words(found["search_budget"])
        after = f" ({words})" if words else ""
        way = "more" if found["gain"] >= 0 else "less"
        screen.say(f"the search saw {show('val_top1', found['search_val_top1'])} validation accuracy{after}; full "
                   f"training gives {show('val_top1', found['obtained_val_top1'])}, "
                   f"{show_difference('val_top1', found['gain'])} {way}")  # fmt: skip
        if (inside := found.get("inside_prediction")) is not None:
            value, low, high = (show("val_top1", found[f"predicted_{end}"]) for end in ("val_top1", "low", "high"))
            screen.say(f"its curve predicted {value} (90 % interval {low} to {high}) for so many images: "
                       f"{'within' if inside else 'outside'}")  # fmt: skip
    if speed := result.get("throughput_images_per_s"):
        screen.say(f"inference: {show('throughput_images_per_s', speed)} on {result['device']}")
    screen.say(f"written: {out / RESULT}, {out / 'model.safetensors'}, {out / 'config.json'}")
    screen.next(["export", out, "--format", "onnx"], "hands the network on; predict uses it")


def _line(split: str, result: dict[str, Any]) -> dict[str, Any]:
    seeds, means = result["seeds"], result["means"]
    top1 = means[f"{split}_top1"]
    low, high = (top1["low"], top1["high"]) if len(seeds) > 1 else (seeds[0][split][f"top1_{end}"]
                                                                  for end in ("low", "high"))  # fmt: skip
    return {
        "split": TITLES[split], "images": seeds[0][split]["num_images"], "top1": f"{100 * top1['mean']:.2f} %",
        "interval": f"{100 * low:.2f} to {100 * high:.2f} %", "top5": f"{100 * means[f'{split}_top5']['mean']:.2f} %",
        "balanced_accuracy": f"{100 * means[f'{split}_balanced_accuracy']['mean']:.2f} %",
        "loss": means[f"{split}_loss"]["mean"], "calibration_error": means[f"{split}_calibration_error"]["mean"],
    }  # fmt: skip
