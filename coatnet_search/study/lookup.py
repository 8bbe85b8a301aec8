"""An architecture by name, layout (at a cost), YAML file or RUN:ID -> Arch."""

import dataclasses
import re
from pathlib import Path

from coatnet_search.architecture.arch import Arch
from coatnet_search.architecture.family import named_arch
from coatnet_search.architecture.files import read_arch
from coatnet_search.architecture.peers import TIMM
from coatnet_search.core.errors import InputError, unknown
from coatnet_search.record.fold import no_run, read_trials, record_path
from coatnet_search.space.family_grid import AT, resized

_PREFIX = re.compile(r"[0-9a-f]{3,10}")  # of an arch id


def load_arch(
    name: str | Path,
    *,
    image_size: int | None = None,
    in_channels: int | None = None,
    num_classes: int | None = None,
) -> Arch:
    """The architecture of a name (``coatnet-0``), a layout (``C-C-T-T``), a layout at a cost (``C-C-T-T@4.2e9``: the
    family's closest network at so many multiply-adds), a YAML file or ``RUN:ID``.

    A file holds the architecture's mapping, or has it under the key ``arch``, as the files of ``choose`` do. ID is a
    trial's number or an arch id of the run, in full or from its third digit on. What is not given is the file's or the
    trial's own, and for names 224 pixels, 3 channels, 1000 classes. Raises InputError that says what was expected.
    """
    text = str(name)
    if text.startswith(TIMM):
        raise InputError(f"{text}: a timm network is not an architecture of this package; `profile` alone takes it")
    ends = {"image_size": image_size, "in_channels": in_channels, "num_classes": num_classes}
    given = {key: value for key, value in ends.items() if value is not None}
    run, colon, wanted = text.rpartition(":")
    if Path(text).suffix in (".yaml", ".yml"):
        return dataclasses.replace(read_arch(Path(text)), **given)  # type: ignore[arg-type]
    if AT in text and not colon:
        return resized(text, **given).arch
    if colon:
        return dataclasses.replace(_from_run(Path(run), wanted), **given)  # type: ignore[arg-type]
    return named_arch(text, **given)


def _from_run(run: Path, wanted: str) -> Arch:
    if not record_path(run).is_file():
        raise InputError(f"{run}:{wanted}: {no_run(run)}; expected RUN:ID, as runs/quickstart:12")
    trials = [trial for trial in read_trials(run) if trial.arch]
    archs = {trial.arch.id: trial.arch for trial in trials if trial.arch}
    numbers = {str(trial.number): trial.arch for trial in trials if trial.arch}
    if wanted in archs:
        return archs[wanted]
    if wanted in numbers:
        return numbers[wanted]
    found = [arch_id for arch_id in archs if arch_id.startswith(wanted)] if _PREFIX.fullmatch(wanted) else []
    if len(found) == 1:
        return archs[found[0]]
    if found:
        raise InputError(f"{run}: {wanted} begins {len(found)} arch ids: {', '.join(sorted(found)[:5])}")
    last = f"trials 0 to {max(map(int, numbers))}" if numbers else "no trial with an architecture"
    hint = unknown("arch id", wanted, archs) if 0 < len(archs) <= 12 else f"no trial or arch id {wanted!r}"
    raise InputError(f"{run}: {hint}; it has {last}")
