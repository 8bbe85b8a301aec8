"""Looks at the nodes of a Ray cluster: which hold a trial, how many at once, which see the same files."""

import importlib.metadata
import math
import os
import platform
import socket
import subprocess
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import ray
import torch
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from coatnet_search.core.errors import InputError, SetupError
from coatnet_search.core.storage import Storage
from coatnet_search.study.run_folder import code_version
from coatnet_search.study.sections import Resources

T = TypeVar("T")
TYPE = "accelerator_type:"  # how Ray names a node's type of GPU among its resources
LOOK_AGAIN_S = 5.0  # between two looks at which nodes there are
REACH_S = 5.0  # for a connection to a node
ANSWER_S = 60.0  # for a node to say what it sees


def bundle(resources: Resources) -> dict[str, float]:
    """What Ray reserves for one worker of a trial."""
    asked = {"CPU": resources.cpus, "GPU": resources.gpus}
    wanted = {name: count for name, count in asked.items() if count}
    return {**wanted, f"{TYPE}{resources.accelerator}": 0.001} if resources.accelerator else wanted


def fitting(nodes: Iterable[Mapping[str, Any]], accelerator: str | None) -> dict[str, float]:
    """CPUs and GPUs of the living nodes (as ``ray.nodes`` lists them) that have this type of GPU. Raises SetupError
    that names the types that there are, where none has it."""
    alive = [node["Resources"] for node in nodes if node["Alive"]]
    held = [one for one in alive if not accelerator or f"{TYPE}{accelerator}" in one]
    if alive and not held:
        known = sorted({name.removeprefix(TYPE) for one in alive for name in one if name.startswith(TYPE)})
        there = ", ".join(known) or "none"
        raise SetupError(f"a trial asks for GPUs of type {accelerator} and the cluster has {there}; change "
                         "resources.accelerator, or start with such a node")  # fmt: skip
    return {name: sum(one.get(name, 0.0) for one in held) for name in ("CPU", "GPU")}


def answers(node: str) -> bool:
    """Whether a node's own process of Ray still takes calls. The cluster notices a lost node only after a while."""
    found = next((one for one in ray.nodes() if one["NodeID"] == node and one["Alive"]), None)
    if found is None:
        return False
    try:
        socket.create_connection((found["NodeManagerAddress"], found["NodeManagerPort"]), timeout=REACH_S).close()
        return True
    except OSError:
        return False


def capacity(cluster: Mapping[str, float], resources: Resources, workers: int | None) -> int:
    """How many trials run at once, at most ``workers``. Raises SetupError, with what exists, where not one fits."""
    fits = math.inf
    for name, each in (("CPU", resources.cpus), ("GPU", resources.gpus)):
        asked = each * resources.workers
        if asked:
            have = cluster.get(name, 0)
            if have < asked:
                raise SetupError(f"a trial asks for {asked:g} {name}s and the cluster has {have:g} in all; change "
                                 f"resources.{name.lower()}s{' or resources.workers,' * (resources.workers > 1)} or "
                                 "start with more nodes")  # fmt: skip
            fits = min(fits, math.floor(have / asked + 1e-9))
    if workers is not None and workers > fits:
        raise SetupError(f"{workers} trials at once do not fit: the cluster's CPUs and GPUs hold {fits:g}")
    return int(workers or fits)


class Room:
    """How many trials run at once while nodes come and go. The first look raises SetupError where not one fits.

    ``elastic`` (a cluster that we joined): more ``workers`` than fit are what an autoscaler is to make room for.
    """

    def __init__(self, resources: Resources, workers: int | None, elastic: bool) -> None:
        self._resources = resources
        asked = None if elastic else workers
        self._now = capacity(fitting(ray.nodes(), resources.accelerator), resources, asked)
        self._workers = workers
        self._looked = time.monotonic()

    def now(self) -> int:
        if self._workers is not None:
            return self._workers
        if time.monotonic() - self._looked > LOOK_AGAIN_S:
            self._looked = time.monotonic()
            try:
                have = fitting(ray.nodes(), self._resources.accelerator)
                self._now = capacity(have, self._resources, None)
            except SetupError:
                self._now = 1  # all such nodes are gone: one trial waits for the next
        return self._now


def check_nodes(run: Path, data: str | None, storage: Storage | None = None) -> None:
    """Asks every node whether it sees the RUN's folder as this one does, may write there, and has the data; where the
    study has a ``storage``, whether it reaches that instead.

    Raises SetupError that names the nodes and the mend. A single node is the driver's own.
    """
    if sum(node["Alive"] for node in ray.nodes()) < 2:
        return
    shared = problems(reach, storage.uri) if storage else storage_problems(run)
    place = data if not data or "://" in data else str(Path(data).expanduser().resolve())
    found = [*shared, *(problems(has, place) if place else [])]
    if found:
        raise SetupError(f"{'; '.join(found[:3])}. Give --runs (and data.path) on storage that all nodes mount at the "
                         "same place")  # fmt: skip


def storage_problems(run: Path) -> list[str]:
    """What the nodes do not see as this one does: a line for each, with its host."""
    folder, token = (run / "checkpoints").resolve(), uuid.uuid4().hex
    folder.mkdir(parents=True, exist_ok=True)
    mark = folder / f".seen-by-{token}"
    mark.write_text(token, encoding="utf-8")
    try:
        return problems(look, str(mark), token)
    finally:
        mark.unlink(missing_ok=True)


def problems(look: Callable[..., str | None], *given: Any) -> list[str]:
    """What each living node finds wrong, once."""
    return sorted({problem for problem in on_every_node(look, *given) if problem})


def on_every_node(work: Callable[..., T], *given: Any) -> list[T]:
    """What ``work(*given)`` returns on each living node. Raises SetupError where one does not answer in time."""
    task = ray.remote(num_cpus=0, max_retries=0)(work)
    places = [NodeAffinitySchedulingStrategy(node["NodeID"], soft=False) for node in ray.nodes() if node["Alive"]]
    try:
        found: list[T] = ray.get([task.options(scheduling_strategy=place).remote(*given) for place in places],
                                 timeout=ANSWER_S)  # fmt: skip
    except (ray.exceptions.RayError, TimeoutError) as error:
        raise SetupError(f"a node does not answer: {' '.join(str(error).split())[:200]}") from None
    return found


def reach(uri: str) -> str | None:
    """On a node: why it does not reach a storage; None: it does."""
    try:
        Storage(uri).check()
    except (InputError, SetupError) as error:
        return f"node {platform.node()}: {error}"
    return None


def facts() -> dict[str, Any]:
    """On a node: its name, what is installed there, its GPUs and what its torch is built for, and its clock (Unix time
    in seconds)."""
    versions = {name: importlib.metadata.version(name) for name in ("ray", "torch", "timm")}
    flags = getattr(torch._C, "_cuda_getArchFlags", lambda: None)()  # torch.cuda tells it only where a GPU is lent
    return {"host": platform.node(), "python": platform.python_version(), **versions, "gpus": gpus_of_node(),
            "built_for": (flags or "").split(), "coatnet-search": code_version(), "clock": time.time()}  # fmt: skip


def gpus_of_node() -> list[dict[str, str]]:
    """``name``, ``memory``, ``driver`` and compute ``capability`` of each GPU that nvidia-smi names, lent or not."""
    names = ("name", "memory", "driver", "capability")
    query = "--query-gpu=name,memory.total,driver_version,compute_cap"
    try:
        done = subprocess.run(["nvidia-smi", query, "--format=csv,noheader"], capture_output=True, text=True,
                              timeout=REACH_S * 4, check=False)  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return []
    lines = [line.split(", ") for line in done.stdout.splitlines() if line.strip()] if done.returncode == 0 else []
    return [dict(zip(names, line, strict=True)) for line in lines if len(line) == len(names)]


def in_all() -> dict[str, float]:
    """CPUs and GPUs of all living nodes."""
    return fitting(ray.nodes(), None)


def has(data: str) -> str | None:
    """On a node: why it has no data at a path or URI; None: it has."""
    try:
        there = bool(Storage(data, "data.path").files()) if "://" in data else Path(data).exists()
    except (InputError, SetupError) as error:
        return f"node {platform.node()}: {error}"
    return None if there else f"node {platform.node()} has no {data}"


def look(mark: str, token: str) -> str | None:
    """On a node: what is wrong with what it sees; None: nothing."""
    path, host = Path(mark), platform.node()
    try:
        seen = path.read_text(encoding="utf-8")
        own = path.with_name(f"{path.name}-{os.getpid()}")
        own.write_text(token, encoding="utf-8")
        own.unlink()
    except OSError as error:
        return f"node {host} does not share {path.parent}: {error.strerror}"
    if seen != token:
        return f"node {host} has another {path.parent}"
    return None
