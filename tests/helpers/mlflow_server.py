"""A real MLflow server as a process, cut off or killed at will, and the check that it mirrors a record."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from coatnet_search.record.fold import read_events
from coatnet_search.record.mirror.uploads import Planner


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def until(condition: Callable[[], Any], limit_s: float = 150.0) -> Any:
    end = time.monotonic() + limit_s
    while not (value := condition()):
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.1)
    return value


class RealServer:
    """``mlflow server`` on loopback with SQLite; may be killed and started again."""

    def __init__(self, folder: Path, *words: str) -> None:
        self.folder, self.port, self.words = folder, free_port(), words
        self.uri = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port),
                   "--workers", "1", "--backend-store-uri", f"sqlite:///{self.folder}/mlflow.db",
                   "--artifacts-destination", str(self.folder / "artifacts"), *self.words]  # fmt: skip
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                command, cwd=self.folder, stdout=log, stderr=log, start_new_session=True,
                env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            )  # fmt: skip

    def healthy(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def kill(self) -> None:
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


class Forwarder:
    """A port that leads to another one, may be cut with all its connections, and loses answers on demand."""

    def __init__(self, target: int) -> None:
        self.target, self.port = target, free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self.answers_to_lose = 0
        self._open: list[socket.socket] = []

    def open(self) -> None:
        self._open = [listener := socket.create_server(("127.0.0.1", self.port))]
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def cut(self) -> None:
        for each in self._open:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                client = listener.accept()[0]
                server = socket.create_connection(("127.0.0.1", self.target))
                self._open += [client, server]
                threading.Thread(target=self._pump, args=(client, server, False), daemon=True).start()
                threading.Thread(target=self._pump, args=(server, client, True), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, answers: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                if answers and self.answers_to_lose:
                    self.answers_to_lose -= 1
                    break
                sink.sendall(data)
        for each in (source, sink):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


@pytest.fixture(scope="session")
def started_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealServer]:
    server = RealServer(tmp_path_factory.mktemp("mlflow"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
def real_server(started_server: RealServer) -> RealServer:
    if started_server.process is None:
        started_server.start()
    until(started_server.healthy)
    return started_server


def _runs(uri: str, experiment: str) -> tuple[Any, list[Any], list[Any]]:
    """(client, parent runs, child runs) of an experiment."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    found = client.get_experiment_by_name(experiment)
    runs = list(client.search_runs([found.experiment_id])) if found else []
    children = [run for run in runs if "mlflow.parentRunId" in run.data.tags]
    return client, [run for run in runs if run not in children], children


def check_mirror_equals_record(uri: str, experiment: str, run: Path) -> None:
    client, (parent,), children = _runs(uri, experiment)
    wanted = {upload.identity: upload for upload in Planner("small").plan(read_events(run))}
    assert parent.info.status == "FINISHED"
    assert Counter(child.data.tags["coatnet_search.trial"] for child in children) == Counter(list(wanted))
    for child in children:
        upload = wanted[child.data.tags["coatnet_search.trial"]]
        names = {point.name for point in upload.points}
        sent = [
            (metric.key, metric.value, metric.timestamp, metric.step)
            for name in names
            for metric in client.get_metric_history(child.info.run_id, name)
        ]
        assert sorted(sent) == sorted(upload.points)
        assert child.data.params == upload.params
        assert child.info.status == upload.status
        assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert child.data.tags["state"] == upload.tags["state"]
