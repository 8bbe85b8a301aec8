"""Runs a full training on many workers."""

from pathlib import Path
from typing import Any

import torch

from coatnet_search.full.plan import Plan
from coatnet_search.full.train import train_plan
from coatnet_search.search.ray.train import MAX_FAILURES, on_workers
from coatnet_search.training.process_group import ProcessGroup


def train_distributed(
    plan: Plan, out: Path, workers: int, *, gpus: bool, address: str | None = None, max_failures: int = MAX_FAILURES
) -> None:
    """``train_plan`` on ``workers`` workers, one GPU each with ``gpus``; goes on where it was left.

    Raises SetupError where the cluster does not hold them, or the workers were lost more than ``max_failures`` times.
    """
    on_workers(_work, {"plan": plan.to_dict(), "out": str(out.resolve())}, out, workers, gpus=gpus, address=address,
               max_failures=max_failures)  # fmt: skip


def _work(asked: dict[str, Any], device: torch.device, group: ProcessGroup) -> None:
    train_plan(Plan.from_dict(asked["plan"]), Path(asked["out"]), device, group)
