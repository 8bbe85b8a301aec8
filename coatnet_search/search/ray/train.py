"""Runs a function on many workers with Ray Train, restarted where one is lost.

The folder of the training must be on a disk that all nodes see: the workers' checkpoints lie there, and a worker group
that lost a member starts again from the last one.
"""

import contextlib
import logging
import os
import shutil
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, wait
from pathlib import Path
from typing import Any

import ray
import torch
from ray import train as ray_train
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train import torch as ray_torch
from ray.train.torch import TorchTrainer

from coatnet_search.core.cores import usable_cores
from coatnet_search.core.errors import InputError, SetupError
from coatnet_search.search.ray.last_words import last_words
from coatnet_search.training.loop import TrainingFailed
from coatnet_search.training.process_group import ProcessGroup

MAX_FAILURES = 3  # lost workers and nodes; a mistake in what is asked ends the training at once
MISTAKE = "mistake.txt"  # what a worker could not go on from, in the training's folder
LOOK_S = 0.5  # between two looks whether a worker wrote one
LET_GO_S = "5"  # for workers to leave their process group; one that waits for another that is gone never does

Work = Callable[[Any, torch.device, ProcessGroup], None]  # what is asked as plain values, a worker's device, its place


def on_workers(
    work: Work, asked: Any, out: Path, workers: int, *, gpus: bool, cpus: float = 1.0, threads: int | None = None,
    address: str | None = None, max_failures: int = MAX_FAILURES,
) -> None:  # fmt: skip
    """``work(asked, device, group)`` on ``workers`` workers at once, one GPU each with ``gpus``.

    ``work`` keeps its checkpoints below ``out`` and goes on from them. ``threads``: of a worker; None: its share of
    its node's cores. Raises SetupError where the cluster does not hold the workers, or they were lost more than
    ``max_failures`` times, InputError for what each of them would stumble over again.
    """
    out = out.resolve()
    (out / MISTAKE).unlink(missing_ok=True)
    shutil.rmtree(out / "ray", ignore_errors=True)  # what Ray kept of an earlier start: the workers go on by themselves
    with cluster(address):
        check_room(ray.cluster_resources(), workers, gpus)
        trainer = TorchTrainer(
            _work,
            train_loop_config={"work": work, "asked": asked, "out": str(out),
                               "threads": threads},
            scaling_config=ScalingConfig(num_workers=workers, use_gpu=gpus,
                                         resources_per_worker={"CPU": cpus, **({"GPU": 1} if gpus else {})}),
            run_config=RunConfig(name="workers", storage_path=str(out / "ray"),
                                 failure_config=FailureConfig(max_failures=max_failures)),
        )  # fmt: skip
        try:
            _fit(trainer, out / MISTAKE)
        except Exception as error:
            if (out / MISTAKE).is_file():
                raise InputError((out / MISTAKE).read_text(encoding="utf-8")) from None
            first = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
            raise SetupError(f"training on {workers} workers failed: {first.strip()[:300]}; the same command goes on "
                             "after the last whole epoch") from error  # fmt: skip
    if (out / MISTAKE).is_file():
        raise InputError((out / MISTAKE).read_text(encoding="utf-8"))


def _fit(trainer: TorchTrainer, mistake: Path) -> None:
    """Until the workers are done, or one has written its mistake: Ray would first wait for the others, who wait for
    that one. It ends them meanwhile, or with the cluster."""
    os.environ.setdefault("TORCH_PROCESS_GROUP_SHUTDOWN_TIMEOUT_S", LET_GO_S)
    done: Future[None] = Future()

    def fit() -> None:
        try:
            trainer.fit()
        except BaseException as error:  # told by the thread that waits
            done.set_exception(error)
        else:
            done.set_result(None)

    threading.Thread(target=fit, daemon=True).start()
    while not done.done():
        wait([done], timeout=LOOK_S)
        if mistake.is_file():
            return
    done.result()


def check_room(resources: Mapping[str, float], workers: int, gpus: bool) -> None:
    """Raises SetupError, with what there is, where the workers do not fit: Ray itself would wait for ever."""
    name = "GPU" if gpus else "CPU"
    if (have := int(resources.get(name, 0))) < workers:
        raise SetupError(f"{workers} workers: each needs a {name}, and there are {have}; ask for fewer or add nodes")


def gpus_in_cluster(address: str) -> int:
    """Raises SetupError where there is no cluster."""
    with cluster(address):
        return int(ray.cluster_resources().get("GPU", 0))


@contextlib.contextmanager
def cluster(address: str | None) -> Iterator[None]:
    """The Ray at ``address``, or one of our own on this machine; one that is running in this process is used."""
    if ray.is_initialized():
        yield
        return
    for name in ("ray", "ray.train", "ray.tune"):
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Ray's own deprecations
            ray.init(address=address or "local", log_to_driver=False, logging_level="ERROR",
                     **({} if address else {"include_dashboard": False, "num_cpus": usable_cores()}))  # fmt: skip
    except Exception as error:  # Ray raises plain ones too, such as of a node that did not start in time
        first = next(iter(str(error).splitlines()), type(error).__name__)
        raise SetupError(f"Ray did not start{f' at {address}' if address else ''}: {first}") from None
    try:
        with last_words(os.getpid()):
            yield
    finally:
        ray.shutdown()


def _work(config: dict[str, Any]) -> None:
    """What each worker does. A mistake of the user's is written down and ends the run: it would only come again.

    It is raised too, for another worker may not meet it and would wait for this one: Ray then ends all and starts them
    again, and they find it written.
    """
    context = ray_train.get_context()
    torch.set_num_threads(config["threads"] or max(1, usable_cores() // context.get_local_world_size()))
    group = ProcessGroup(context.get_world_rank(), context.get_world_size())
    mistake = Path(config["out"]) / MISTAKE
    if mistake.is_file():
        return
    try:
        config["work"](config["asked"], ray_torch.get_device(), group)
    except (InputError, SetupError) as error:
        mistake.write_text(str(error), encoding="utf-8")
        raise
    except TrainingFailed as error:
        if error.kind in ("nan", "out_of_memory"):
            mistake.write_text(str(error), encoding="utf-8")
        if error.kind != "nan":  # all workers see the same loss; the rest befalls one, and the others wait for it
            raise
