"""Trains the supernet of a study into its RUN, before the first trial. No Ray."""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from coatnet_search.data.load import load_data
from coatnet_search.study.load import study_of_values
from coatnet_search.study.study import Study
from coatnet_search.supernet.folder import (
    CHECKPOINTS,
    is_trained,
    load_supernets,
    parts,
    write_facts,
    write_rows,
    write_weights,
)
from coatnet_search.supernet.rows import FOLDER, Row
from coatnet_search.supernet.spec import SupernetSpec
from coatnet_search.supernet.train import train_supernet
from coatnet_search.training.device import device_id
from coatnet_search.training.device_lock import DeviceLock
from coatnet_search.training.process_group import SINGLE_PROCESS, ProcessGroup

STOP = "stop"  # a file in the supernet's folder: workers end after the epoch that they are in

Watch = Callable[[Row], bool]  # is told each epoch's row, also of earlier ones; whether to stop after it


def needs_training(study: Study, run: Path) -> bool:
    """Whether a study's supernet is still to be trained. Raises InputError where the supernet that it names is one of
    another space, SetupError where that is not there."""
    spec = study.file.supernet
    if spec is None:
        return False
    if spec.path:
        load_supernets(study.supernet_place(run), study.space)  # what is wrong with it is said before anything else
        return False
    return not all(is_trained(run / name) for name in parts(spec))


def train_here(
    study: Study, run: Path, watch: Watch, device: torch.device, group: ProcessGroup = SINGLE_PROCESS
) -> None:
    """Trains, or goes on to train, the supernets of a study into the RUN; all workers of a ``group`` call it.

    Raises InputError for what the study has wrong, TrainingFailed where training cannot go on.
    """
    assert study.file.supernet is not None
    for name, spec in parts(study.file.supernet).items():
        trained = is_trained(run / name)
        group.wait()  # nobody looks after the first has written
        if not trained and not _train_one(study, run / name, spec, watch, device, group):
            return


def _train_one(study: Study, folder: Path, spec: SupernetSpec, watch: Watch, device: torch.device,
               group: ProcessGroup) -> bool:  # fmt: skip
    """Whether it came to its end."""
    assert spec.epochs is not None
    if group.first:
        write_facts(folder, study.supernet_facts(spec))
    data = load_data(study.file.data, image_size=study.space.file.image_size)  # type: ignore[arg-type]
    guard = DeviceLock(device_id(device)).shared if group.size == 1 else nullcontext
    rows: list[Row] = []
    training = train_supernet(
        study.space, data, study.supernet_recipe, spec, device, num_images=study.file.data.num_images,
        checkpoint=folder / CHECKPOINTS, step_guard=guard, group=group)  # fmt: skip
    for row, nets in training:
        rows.append(row)
        if group.first:
            write_rows(folder, rows)
        if len(rows) == spec.epochs:
            if group.first:
                write_weights(folder, nets)
            group.wait()
        if watch(row):
            return False
    return True


def train_worker(asked: Mapping[str, Any], device: torch.device, group: ProcessGroup) -> None:
    """What each of Ray's workers does: as ``train_here``, until the driver leaves the file ``stop``."""
    run = Path(asked["run"])

    def stops(_row: Row) -> bool:
        told = torch.tensor(float((run / FOLDER / STOP).exists()), device=device)
        return bool(group.sum(told) > 0)  # workers look at different moments; all must end after the same epoch

    train_here(study_of_values(asked["study"]), run, stops, device, group)
