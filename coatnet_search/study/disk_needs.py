"""Estimates the disk that a study will take, before it is run."""

from pathlib import Path
from typing import Any

import numpy as np

from coatnet_search.data.augmentation import STORED_OVER_SHOWN
from coatnet_search.data.memory import LIMIT_BYTES, SMALL_SIDE
from coatnet_search.study.study import Study

RECORD_BYTES = 4_000, 700  # a trial's lines in the record, and those of one epoch
MIRRORED = 4  # times the record: its copy in MLflow's database
REPORT_BYTES = 8 << 20  # the page carries its plot library
OPTIMISER_COPIES = 4  # a checkpoint's tensors the size of the weights: weights, two moments, the one being written
FLOAT_BYTES = 4


def run_bytes(study: Study, trials: int) -> float:
    """The RUN without its checkpoints."""
    record = trials * (RECORD_BYTES[0] + RECORD_BYTES[1] * study.budget.epochs)
    mirror = MIRRORED * record if study.file.tracking.enabled else 0
    return record + mirror + REPORT_BYTES


def checkpoint_bytes(study: Study, trials: int, params: int, at_once: int) -> float:
    """At most, with ``params`` of the largest network: of the running trials, and of the paused ones where trials are
    halved."""
    kept = trials if study.halving else at_once
    return kept * OPTIMISER_COPIES * FLOAT_BYTES * params


def cache_bytes(study: Study) -> float:
    """Decoded pixels, where they will be kept."""
    summary = study.summary
    if summary is None:
        return 0.0
    low, _, high = summary.image_sizes
    asked: Any = study.space.file.image_size
    side = low if low == high <= SMALL_SIDE else round(STORED_OVER_SHOWN * max(np.atleast_1d(asked)))
    pixels = float(summary.num_train + summary.num_val) * summary.in_channels * side * side
    return pixels if pixels <= LIMIT_BYTES else 0.0


def existing(folder: Path) -> Path:
    folder = folder.absolute()
    while not folder.exists():
        folder = folder.parent
    return folder
