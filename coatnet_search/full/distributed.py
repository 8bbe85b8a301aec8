"""Runs a full training on many workers, and scores its networks on one of them.

The process that starts it needs no GPU: the device is the cluster's, in training as in scoring.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from coatnet_search.core.errors import InputError
from coatnet_search.full.plan import Plan
from coatnet_search.full.train import RESULT, assess, train_plan
from coatnet_search.search.ray.train import MAX_FAILURES, cluster, gpus_in_cluster, on_workers
from coatnet_search.training.process_group import ProcessGroup


def cluster_has_gpus(device: str | None, address: str) -> bool:
    """Whether the workers get a GPU each: as ``--device`` says, else where the cluster at ``address`` has any.

    Raises InputError for one GPU of many, SetupError where there is no cluster.
    """
    if device is None:
        return gpus_in_cluster(address) > 0
    if device not in ("cpu", "cuda"):
        raise InputError(f"--device {device}: each worker of a cluster has a device of its own; expected cpu or cuda")
    return device == "cuda"


def train_distributed(
    plan: Plan, out: Path, workers: int, *, gpus: bool, address: str | None = None, loaded: Sequence[str] = (),
    max_failures: int = MAX_FAILURES,
) -> dict[str, Any]:  # fmt: skip
    """``train_plan`` on ``workers`` workers, one GPU each with ``gpus``, and ``assess`` on one; goes on where it was
    left. Returns the result.

    Raises SetupError where the cluster does not hold them, or the workers were lost more than ``max_failures`` times.
    """
    asked = {"plan": plan.to_dict(), "out": str(out.resolve()), "loaded": list(loaded)}
    with cluster(address):
        on_workers(_train, asked, out, workers, gpus=gpus, address=address, max_failures=max_failures)
        on_workers(_assess, asked, out, 1, gpus=gpus, address=address, max_failures=max_failures)
    result: dict[str, Any] = json.loads((out / RESULT).read_text(encoding="utf-8"))
    return result


def _train(asked: dict[str, Any], device: torch.device, group: ProcessGroup) -> None:
    train_plan(Plan.from_dict(asked["plan"]), Path(asked["out"]), device, group)


def _assess(asked: dict[str, Any], device: torch.device, _group: ProcessGroup) -> None:
    assess(Plan.from_dict(asked["plan"]), Path(asked["out"]), device, asked["loaded"])
