"""Measures finished networks where a trial would run: the driver may lack such a device, or have another."""

import math
import platform
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ray

from coatnet_search.core.errors import InputError, SetupError
from coatnet_search.search.evaluate import Evaluator
from coatnet_search.search.ray.nodes import Room, bundle
from coatnet_search.search.task import Fault, Task
from coatnet_search.study.load import study_of_values
from coatnet_search.study.study import Study
from coatnet_search.training.measurements.conditions import MeasurementFailed


class ClusterMeasuring:
    """``measure`` as ``Evaluator`` has it, in a worker with the CPUs and the GPU of a trial. Raises SetupError where
    the cluster holds none, or the worker's node lacks what it needs."""

    def __init__(self, study: Study, folder: Path, address: str | None) -> None:
        resources = study.file.resources
        Room(resources, None, elastic=address is not None)  # where nothing fits, Ray would wait for ever
        asked = bundle(resources)
        self._options = {"num_cpus": asked.get("CPU", 0), "num_gpus": asked.get("GPU", 0), "resources": {
            name: count for name, count in asked.items() if name not in ("CPU", "GPU")}}  # fmt: skip
        paths = sys.path if study.evaluator else []  # where a user's own trainer lies
        self._given = (study.values(), str((folder / "checkpoints").resolve()), paths)
        self._retries = study.file.faults.retries
        self._worker: Any = None

    def measure(self, task: Task) -> tuple[dict[str, float], dict[str, Any]]:
        """Raises MeasurementFailed, and Fault where the worker is lost each time: the network keeps its result."""
        for _ in range(self._retries + 1):
            self._worker = self._worker or ray.remote(Measurer).options(**self._options).remote(*self._given)
            try:
                told: dict[str, Any] = ray.get(self._worker.measure.remote(task.to_dict()))
            except ray.exceptions.RayActorError:
                self._worker = None
                continue
            if "refused" in told:
                raise SetupError(told["refused"])
            if "failed" in told:
                raise MeasurementFailed(*told["failed"])
            return told["metrics"], told["attributes"]
        raise Fault("killed", "the worker that measured it was lost, as often as faults.retries allows")


class Measurer:
    """A worker process that measures networks of one study, one after another."""

    def __init__(self, study: Mapping[str, Any], checkpoints: str, paths: Sequence[str] = ()) -> None:
        sys.path.extend(path for path in paths if path not in sys.path)
        self._study, self._checkpoints = study_of_values(study), Path(checkpoints)
        self._evaluator: Evaluator | None = None

    def measure(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """``metrics`` and ``attributes``; or ``failed``, a kind and a message; or ``refused``, what the node lacks.
        (Plain values: what it raises would lose its fields on the way.)"""
        resources = self._study.file.resources
        try:
            self._evaluator = self._evaluator or Evaluator(
                self._study, self._checkpoints, device="cuda" if resources.gpus else "cpu",
                threads=max(1, math.floor(resources.cpus)))  # fmt: skip
            metrics, attributes = self._evaluator.measure(Task.from_dict(asked))
        except (MeasurementFailed, Fault) as error:
            return {"failed": (error.kind, str(error))}
        except (InputError, SetupError) as error:
            return {"refused": f"{platform.node()}: {error}"}
        return {"metrics": metrics, "attributes": attributes}
