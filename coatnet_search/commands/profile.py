"""``profile ARCH...``: what networks cost; how fast they are where a device is named."""

import argparse

from coatnet_search.profiles import MEASURED, rows, subject
from coatnet_search.quantities import heading
from coatnet_search.screen import Screen

COLUMNS = {"name": "network", "id": "id", "image_size": "pixels", "params": "parameters", "macs": "multiply-adds",
           "activations": "activations"}  # fmt: skip


def main(given: argparse.Namespace) -> int:
    screen = Screen(given.json, given.results)
    subjects = [subject(name, image_size=given.image_size, in_channels=given.in_channels,
                        num_classes=given.num_classes) for name in given.archs]  # fmt: skip
    found = list(rows(subjects, given.device, given.counter))
    screen.result(found)
    columns = dict(COLUMNS)
    if given.device:
        columns |= {MEASURED: heading(MEASURED), f"{MEASURED}_spread": "spread"}
    screen.table(columns, found)
    if given.device:
        screen.say("conditions: " + ", ".join(f"{key} {value}" for key, value in found[0]["conditions"].items()))
    return 0
