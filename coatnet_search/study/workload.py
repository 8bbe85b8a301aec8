"""Counts what a study trains: trials, epochs, images, multiply-adds. Measures and trains nothing.

Work is in image-multiply-adds: images of an epoch (with what is looked at afterwards), times epochs, times the
network's multiply-adds; divided by what a device does a second it is time.
"""

import dataclasses
import math
from collections.abc import Sequence

from coatnet_search.analysis.rank_agreement import LEAST
from coatnet_search.core.errors import SetupError
from coatnet_search.core.quantities import TRAINING
from coatnet_search.data.batches import TRAIN_SAMPLE
from coatnet_search.data.load import Summary
from coatnet_search.space.layout_networks import networks_by_layout
from coatnet_search.study.planned_trials import PlannedTrial, planned
from coatnet_search.study.study import Study
from coatnet_search.supernet.folder import parts
from coatnet_search.supernet.schedule import Schedule

# what stands for data that is not here: a scaling study's networks do not depend on it
UNSEEN = Summary(num_train=1 << 40, num_val=1, num_classes=1, in_channels=3, class_names=(), image_sizes=(1, 1, 1),
                  digest="", num_broken=0, exact=False, note=None)  # fmt: skip
DRAWN_CYCLES = 20  # of a supernet's steps, whose random networks stand for all


def own_cells(study: Study, warnings: list[str]) -> list[PlannedTrial]:
    """The trials that the study plans by itself, as many as it will run; without data only a scaling study's networks
    are known."""
    try:
        cells = planned(study if study.summary else dataclasses.replace(study, summary=UNSEEN))
    except SetupError as error:
        warnings.append(str(error))
        return []
    return cells[: study.file.search.trials] if study.file.equal_cost else cells


def image_macs(study: Study, cells: Sequence[PlannedTrial], candidates: int, macs: float) -> float | None:
    """Image-multiply-adds of all training together: images of an epoch (with what is looked at afterwards), times
    epochs, times multiply-adds; None without data."""
    if study.summary is None:
        return None
    if study.file.supernet:  # a candidate is only looked at
        images = (study.file.supernet.recalibration_images + study.summary.num_val) / TRAINING
    else:
        images = images_per_epoch(study.summary, study.budget.num_images)
    work = images * macs * (candidates if study.file.supernet else search_epochs(study, candidates))
    for cell in cells:
        images = images_per_epoch(study.summary, cell.budget.num_images)
        work += cell.budget.epochs * images * cell.macs
    return work


def supernet_image_macs(study: Study) -> float | None:
    """As ``image_macs``, of the supernet that is trained first: a step's networks, mean over layouts, on all images."""
    spec, summary = study.file.supernet, study.summary
    if spec is None or spec.epochs is None:
        return 0.0
    if summary is None:
        return None
    schedule = Schedule(networks_by_layout(study.space), spec)
    steps = [(schedule.layout(step), schedule.networks(step)) for step in range(DRAWN_CYCLES * schedule.cycle)]
    macs = sum(schedule.layouts[layout].macs(one) for layout, networks in steps for one in networks) / len(steps)
    return len(parts(spec)) * spec.epochs * (study.file.data.num_images or summary.num_train) * macs


def in_full(study: Study, candidates: int) -> int:
    """Trials besides the candidates' own: replicates, and a baseline."""
    return 0 if study.file.equal_cost else replicates(study, candidates) + study.file.search.baseline


def replicates(study: Study, candidates: int) -> int:
    """Trainings again at the end, if all finished candidates are near the front: at most so many."""
    halving = study.halving
    finished = math.ceil(candidates / halving.factor ** (len(halving.rungs) - 1)) if halving else candidates
    return finished * (study.file.replicates - 1)


def search_epochs(study: Study, candidates: int) -> float:
    """Epochs of a search with all that goes with it; none where nothing is searched."""
    if study.file.equal_cost:
        return 0.0
    own = study.halving.epochs_expected(candidates) if study.halving else float(candidates * study.budget.epochs)
    return own + in_full(study, candidates) * study.budget.epochs


def macs_trained(study: Study, cells: Sequence[PlannedTrial], candidates: int, macs: float) -> float | None:
    if study.summary is None:
        return None
    every = study.summary.num_train
    search = search_epochs(study, candidates) * (study.budget.num_images or every) * macs
    return search + sum(cell.budget.epochs * (cell.budget.num_images or every) * cell.macs for cell in cells)


def audit_trainings(study: Study, warnings: list[str]) -> int:
    """How many networks an audit trains alone, each seed counted; a warning where they are too few for the layouts."""
    spec = study.file.audit
    if spec is None:
        return 0
    layouts = sum(count > 0 for count in study.space.survey.layouts.values())
    if spec.candidates < LEAST * layouts:
        warnings.append(f"audit.candidates is {spec.candidates}: fewer than {LEAST} of each of {layouts} layouts, so "
                        f"offsets of layouts will be too few to correct by; {LEAST * layouts} are enough")  # fmt: skip
    return spec.candidates * spec.seeds


def audit_image_macs(study: Study, trainings: int, macs: float) -> float | None:
    """As ``image_macs``, of an audit's trainings."""
    if study.summary is None:
        return None
    budget = study.audit_budget()
    return trainings * budget.epochs * images_per_epoch(study.summary, budget.num_images) * macs


def images_per_epoch(summary: Summary, num_images: int | None = None) -> float:
    """An epoch in training images: those it trains on, and a third for each that is only looked at afterwards, which
    is never more than it trains on (``train``)."""
    count = num_images or summary.num_train
    return count + min(count, (summary.num_val + min(TRAIN_SAMPLE, count)) / TRAINING)
