"""``predict MODEL IMAGE...``: the likeliest classes of image files."""

import argparse

from coatnet_search.cli.commands.shared import torch_device
from coatnet_search.core.errors import EXIT_DONE, InputError
from coatnet_search.core.screen import Screen
from coatnet_search.data.sources.listing import passed_over
from coatnet_search.full.bundle import read_bundle
from coatnet_search.full.predict import image_files, predict


def main(given: argparse.Namespace) -> int:
    screen = Screen(given.json, given.results)
    bundle, (files, passed) = read_bundle(given.model), image_files(given.images)
    if text := passed_over(passed):
        screen.note(text)
    rows = list(predict(bundle, files, top=given.top, device=torch_device(given.device)))
    broken = [row for row in rows if row["problem"]]
    if len(broken) == len(rows):
        raise InputError(f"none of {len(rows)} files is a usable image: {broken[0]['file']}: {broken[0]['problem']}")
    screen.result(rows)
    columns = {"file": "file", **{str(place): "likeliest class" if place == 1 else f"{place}." for place in
                                  range(1, min(given.top, len(bundle.class_names)) + 1)}}  # fmt: skip
    screen.table(columns, [{"file": row["file"], **{str(place): f"{one['class']} {100 * one['confidence']:.1f} %"
                            for place, one in enumerate(row["classes"], 1)}}
                           for row in rows if not row["problem"]])  # fmt: skip
    for row in broken:
        screen.warn(f"{row['file']}: {row['problem']}")
    return EXIT_DONE
