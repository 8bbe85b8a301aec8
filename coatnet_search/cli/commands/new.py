"""``new --data DIR``: a space and a study for a user's own images."""

import argparse
import dataclasses

from coatnet_search.core.screen import Screen
from coatnet_search.study.new import default_name, facts, look_at, write_new


def main(given: argparse.Namespace) -> int:
    screen = Screen(given.json, given.results)
    screen.note(f"looking at {given.data} ...")
    look = look_at(given.data, given.sets)
    for text in facts(look):
        screen.say(text)
    screen.note("timing a few training steps here ...")
    written = write_new(look, given.out, given.name or default_name(given.data))
    images = f" on {written.num_images:,} of the images" if written.num_images else ""
    screen.say(
        f"{written.trials} trials of {written.epochs} epochs{images} at {written.image_size} pixels: about "
        f"{written.hours:.2g} hours on this machine's {'GPU' if written.device == 'cuda' else 'CPU'}"
    )
    screen.say(f"written: {written.space}")
    screen.say(f"written: {written.study}")
    decided = {name: getattr(written, name) for name in ("space", "study", "image_size", "trials", "epochs",
               "num_images", "hours", "device")}  # fmt: skip
    data = dataclasses.asdict(look.summary) | {"path": look.spec.path, "per_class": look.per_class,
                                               "val_per_class": look.val_per_class}  # fmt: skip
    screen.result({**decided, "data": data})
    screen.next(["plan", written.study], "checks it and says what it will cost")
    return 0
