"""``profile ARCH...``: what networks cost; how fast they are where a device is named, and in which setting."""

import argparse

from coatnet_search.core.errors import InputError
from coatnet_search.core.quantities import heading
from coatnet_search.core.screen import Screen
from coatnet_search.study.profiles import MEASURED, best_rows, rows, subject

COLUMNS = {"name": "network", "id": "id", "image_size": "pixels", "params": "parameters", "macs": "multiply-adds",
           "activations": "activations"}  # fmt: skip
SPEED = {MEASURED: heading(MEASURED), f"{MEASURED}_spread": "spread"}
SETTING = {"name": "network", "precision": "precision", "memory_format": "memory format", "fold": "folded",
           "compile": "compiled", "batch_size": "batch", **SPEED, "gain": "gain", "mark": "", "note": ""}  # fmt: skip


def main(given: argparse.Namespace) -> int:
    for option in ("best", "batch_size"):
        if getattr(given, option) and not given.device:
            raise InputError(f"--{option.replace('_', '-')} measures: name the device, such as --device cpu")
    screen = Screen(given.json, given.results)
    subjects = [subject(name, image_size=given.image_size, in_channels=given.in_channels,
                        num_classes=given.num_classes) for name in given.archs]  # fmt: skip
    if given.best:
        found = list(best_rows(subjects, given.device, given.batch_size))
        screen.result(found)
        screen.table(SETTING, [{**row, "fold": _yes(row["fold"]), "compile": _yes(row["compile"]),
                                "mark": "best" if row["best"] else ""} for row in found])  # fmt: skip
    else:
        found = list(rows(subjects, given.device, given.counter, given.batch_size))
        screen.result(found)
        screen.table(COLUMNS | (SPEED if given.device else {}), found)
    if given.device:
        _say_conditions(screen, next(row["conditions"] for row in found if "conditions" in row), given.best)
        if disturbed := [row["name"] for row in found if row.get("disturbed")]:
            screen.warn(
                f"this machine is busy, so these may be slower than they are: {', '.join(sorted(set(disturbed)))}"
            )
    return 0


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _say_conditions(screen: Screen, conditions: dict[str, object], best: bool) -> None:
    shown = ("device", "threads") if best else ("device", "batch_size", "precision", "memory_format", "threads")
    screen.say("conditions: " + ", ".join(f"{key} {conditions[key]}" for key in shown))
