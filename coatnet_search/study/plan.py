"""Estimates what a study will cost before it is run: trials, multiply-adds, device-hours, disk. Trains nothing."""

import dataclasses
import math
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from coatnet_search.architecture.arch import Arch
from coatnet_search.architecture.cost import cost
from coatnet_search.core.errors import InputError, SetupError
from coatnet_search.record.fold import RUNS
from coatnet_search.record.journal import record_path, write_json
from coatnet_search.space.survey import Survey
from coatnet_search.study.audit_trials import check_audit
from coatnet_search.study.disk_needs import cache_bytes, checkpoint_bytes, existing, run_bytes
from coatnet_search.study.feasible import check_feasible
from coatnet_search.study.sections import Resources
from coatnet_search.study.spending import PLAN
from coatnet_search.study.study import Study
from coatnet_search.study.workload import (
    audit_image_macs,
    audit_trainings,
    image_macs,
    in_full,
    macs_trained,
    own_cells,
    replicates,
    search_epochs,
    supernet_image_macs,
)
from coatnet_search.training.device import describe
from coatnet_search.training.rehearsal import training_speed

SAMPLED = 200  # random networks that stand for the candidates of a search
DRAWN = 4000  # at most so many are drawn to find them, where the study's limits refuse some
START_S = 1.5  # of a trial besides its epochs: build the network, measure it
MIB = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Range:
    """Least, median and largest value among the sampled networks."""

    min: float
    median: float
    max: float


@dataclass(frozen=True, kw_only=True)
class Training:
    """How long trials train, from a few steps of the network of median cost (``macs``) on ``device``, scaled by macs.

    ``device_hours``: what all trials together occupy devices for, each the part of one that it asks for; ``hours``:
    that on this machine, ``at_once`` trials at once, of ``workers`` each that lose nothing to each other. Both are None
    without data, whose number of images they need.
    """

    device: str
    images_per_s: float
    macs: int
    hours_per_million_images: float
    device_hours: float | None
    at_once: int
    workers: int
    hours: float | None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All that ``plan`` says; ``warnings`` are what would stop ``run`` on this machine, or what to know before."""

    study: str
    question: str
    space: str
    networks: Survey
    within_limits: float  # share of the space's networks that keep the study's own limits, from a sample
    params: Range
    macs: Range
    trials: int
    replicates: int  # of the trials: those that train a candidate again, were all finished ones near the front
    epochs: int
    supernet_epochs: int | None  # of the supernet that is trained first, None: none is
    all_epochs: float  # of all trials together
    macs_trained: float | None  # multiply-adds of all training images, once through the network; None without data
    rungs: tuple[int, ...]  # of a search that is halved: the epochs after which trials pause, then those of the last
    num_train: int | None
    num_val: int | None
    num_classes: int
    training: Training | None
    audit_trainings: int  # networks trained alone after the search
    audit: Training | None  # how long these take
    run_mib: float
    cache_mib: float
    free_mib: float
    warnings: tuple[str, ...]
    data_note: str | None
    data_findings: tuple[str, ...]  # which folder or file is what, and what was passed over


def make_plan(study: Study, runs: Path = RUNS) -> Plan:
    """A checked study's cost. Data and GPUs that are not here are warnings.

    Raises InputError for faulty data, and where no candidate keeps the limits.
    """
    warnings: list[str] = []
    try:
        study = study.with_data()
    except SetupError as error:
        warnings.append(f"{error}; `run` needs it (without it the hours are not known)")
    check_feasible(study)
    check_audit(study)
    cells = own_cells(study, warnings)
    archs, share = _sampled(study) if study.file.equal_cost is None else ([cell.arch for cell in cells], 1.0)
    macs = sorted((cost(arch).macs, arch.id, arch) for arch in archs if arch.stages)
    if not macs:
        raise InputError(f"study {study.name}: its runs follow from its data; see the warnings: {'; '.join(warnings)}")
    params = [cost(arch).params for _, _, arch in macs]
    survey = study.space.survey
    asked = study.file.search.trials or 0
    candidates = 0 if study.file.equal_cost else min(asked, survey.size) if survey.exact else asked
    searched = candidates + in_full(study, candidates)
    mean = float(np.mean([value for value, _, _ in macs]))
    work = image_macs(study, cells, candidates, mean)
    shared = supernet_image_macs(study)
    trials = searched + len(cells)
    device = _device(study, warnings)
    middle = macs[len(macs) // 2][2]
    training = _training(study, middle, trials, work, shared, device, warnings)
    alone = audit_trainings(study, warnings)
    audited = audit_image_macs(study, alone, mean)
    audit = _training(study, middle, alone, audited, 0.0, device, warnings) if alone else None
    needed, cached, free = _disk(study, trials, alone, max(params), training.at_once if training else 1, runs, warnings)
    summary = study.summary
    return Plan(
        study=study.name,
        question=study.file.question,
        space=study.space.name,
        networks=survey,
        within_limits=share,
        params=_range(params),
        macs=_range([value for value, _, _ in macs]),
        trials=trials,
        replicates=replicates(study, candidates),
        epochs=study.budget.epochs,
        supernet_epochs=study.file.supernet.epochs if study.file.supernet else None,
        all_epochs=search_epochs(study, candidates) + sum(cell.budget.epochs for cell in cells),
        macs_trained=macs_trained(study, cells, candidates, mean),
        rungs=study.halving.rungs if study.halving else (),
        num_train=summary.num_train if summary else None,
        num_val=summary.num_val if summary else None,
        num_classes=study.space.file.num_classes,
        training=training,
        audit_trainings=alone,
        audit=audit,
        run_mib=needed,
        cache_mib=cached,
        free_mib=free,
        warnings=tuple(warnings),
        data_note=summary.note if summary else None,
        data_findings=summary.findings if summary else (),
    )


def keep_plan(plan: Plan, runs: Path = RUNS) -> Path | None:
    """Writes the plan into the folder that the study's RUN will have, where ``report`` sets beside it what was used; a
    study that has begun keeps the plan that it began with (None then)."""
    path = runs / plan.study / PLAN
    if record_path(path.parent).exists():
        return None
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, dataclasses.asdict(plan))
    return path


def _sampled(study: Study) -> tuple[list[Arch], float]:
    """Random candidates that keep the study's limits on costs, and the share of the draws that did."""
    rng = np.random.default_rng(study.file.search.seed)
    kept: list[Arch] = []
    reason, drawn = "", 0
    while len(kept) < SAMPLED and drawn < DRAWN:
        candidate = study.space.sample(rng)
        drawn += 1
        reasons = study.refusals(study.space.exact(candidate))
        if reasons:
            reason = reasons[0]
        else:
            kept.append(study.space.decode(candidate))
    if not kept:
        raise InputError(
            f"study {study.name}: limits: none of {drawn} random networks keeps them; for example: {reason}"
        )
    return kept, len(kept) / drawn


def _disk(study: Study, trials: int, alone: int, params: int, at_once: int, runs: Path,
          warnings: list[str]) -> tuple[float, float, float]:  # fmt: skip
    """MiB that the RUN and the cache of data will take, and that are free; what is too little is a warning."""
    free = shutil.disk_usage(existing(runs)).free / MIB
    checkpoints = checkpoint_bytes(study, trials, params, at_once) / MIB
    needed, cached = run_bytes(study, trials + alone) / MIB + checkpoints, cache_bytes(study) / MIB
    allowed = study.file.faults.checkpoints_gib
    if allowed is not None and checkpoints > 1024 * allowed:
        warnings.append(f"faults.checkpoints_gib is {allowed:g}, and checkpoints may take {checkpoints / 1024:.2g} GiB"
                        f"{': paused trials keep theirs' if study.halving else ''}")  # fmt: skip
    if needed + cached > free:
        warnings.append(f"about {needed + cached:,.0f} MiB of disk are needed and {free:,.0f} MiB are free")
    return needed, cached, free


def _range(values: list[int]) -> Range:
    return Range(min=min(values), median=float(np.median(values)), max=max(values))


def _device(study: Study, warnings: list[str]) -> str:
    """The device that is here for a trial; what the study asks for beyond that is a warning."""
    resources = study.file.resources
    cores = os.cpu_count() or 1
    if resources.cpus * resources.workers > cores:
        warnings.append(f"resources.cpus is {resources.cpus:g}{_each(resources)} and this machine has {cores} "
                        "CPUs; `run` needs a larger machine or --address")  # fmt: skip
    if not resources.gpus:
        return "cpu"
    here = torch.cuda.device_count()
    if here < math.ceil(resources.gpus * resources.workers):
        warnings.append(f"resources.gpus is {resources.gpus:g}{_each(resources)} and torch sees {here} GPUs "
                        "here; `run` needs a machine with more, --address, or --set resources.gpus=0")  # fmt: skip
    return "cuda" if here else "cpu"


def _each(resources: Resources) -> str:
    return f" for each of {resources.workers} workers" if resources.workers > 1 else ""


def _training(study: Study, arch: Arch, trials: int, work: float | None, shared: float | None, device: str,
              warnings: list[str]) -> Training | None:  # fmt: skip
    """Speed and hours from a few steps of ``arch``; None where nothing is trained, or by a trainer of the user's.
    ``work``: of all trials, ``shared``: of the supernet before them."""
    if study.evaluator is not None or not (study.budget.epochs or study.file.supernet):
        return None
    resources = study.file.resources
    at_once, threads = trials_at_once(resources, resources.gpus if device == "cuda" else 0)
    own = cost(arch).macs
    try:
        speed = training_speed(arch, own, study.recipe, device, threads)
    except SetupError as error:
        warnings.append(str(error))
        return None
    at_once = min(at_once, trials)
    hours = None if work is None else (trials * resources.workers * START_S + work / own / speed) / 3600
    first = 0.0 if shared is None else shared / own / speed / 3600
    workers = min(study.file.supernet.workers, trials_at_once(resources, 0)[0]) if study.file.supernet else 1
    if device == "cuda":
        name = describe(torch.device(device))
    else:
        name = f"cpu ({threads} thread{'s' if threads > 1 else ''})"
        name += ", in place of the GPU that is not here" if resources.gpus else ""
    return Training(
        device=name,
        images_per_s=speed,
        macs=own,
        hours_per_million_images=1e6 / speed / 3600,
        device_hours=hours + first if hours is not None else None,
        at_once=at_once,
        workers=resources.workers,
        hours=hours / (at_once * resources.workers) + first / workers if hours is not None else None,
    )


def trials_at_once(resources: Resources, gpus: float) -> tuple[int, int]:
    """How many trials this machine runs at once whose workers have ``gpus`` each, and the CPU threads of a worker."""
    cores = os.cpu_count() or 1
    cpus, gpus = resources.cpus * resources.workers, gpus * resources.workers
    fits = [cores / cpus if cpus else math.inf, torch.cuda.device_count() / gpus if gpus else math.inf]
    smallest = min(fits)
    threads = max(1, min(cores, math.floor(resources.cpus)))
    return max(1, math.floor(smallest)) if math.isfinite(smallest) else cores, threads


def layouts(survey: Survey) -> Mapping[str, int]:
    """How many networks of each layout, the most first."""
    return dict(sorted(survey.layouts.items(), key=lambda item: -item[1]))
