"""What is wrong with a machine, and the mend."""

import http.server
import importlib
import importlib.metadata
import socket
import threading
from pathlib import Path
from typing import Any

import pytest
from command_line import call

from coatnet_search.cli import doctor, doctor_cluster
from coatnet_search.cli.doctor import examine
from coatnet_search.cli.finding import Finding

STEP = doctor.STEP


def found(findings: list[Finding], check: str) -> Finding:
    return next(finding for finding in findings if finding.check == check)


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty folder, and no library that is slow to import (those are other tests' business)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(doctor, "HEAVY", ("torch", "torchvision", "timm"))
    monkeypatch.setattr(doctor, "STEP", "pass")


def refuse(monkeypatch: pytest.MonkeyPatch, name: str, error: Exception) -> None:
    """Importing ``name`` raises ``error``."""
    ours = importlib.import_module

    def load(wanted: str, *given: Any) -> Any:
        if wanted == name:
            raise error
        return ours(wanted, *given)

    monkeypatch.setattr(importlib, "import_module", load)


def test_this_machine_is_fine(capsys: pytest.CaptureFixture[str]) -> None:
    shown, told = call(capsys, "doctor", "quickstart"), call(capsys, "doctor", "--json")

    assert shown.code == 0, shown.out
    assert "nothing stands in the way" in shown.out
    assert "next: coatnet-search run quickstart" in shown.out
    assert {"python", "torch", "ray", "gpu", "disk", "cache"} <= {row["check"] for row in told.json}
    assert all(row["state"] in ("fine", "warning") for row in told.json)


def test_a_torchvision_of_another_torch_is_told_with_the_mend(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(monkeypatch, "torchvision", RuntimeError("operator torchvision::nms does not exist"))

    shown = call(capsys, "doctor", "--json")

    assert shown.code == 3
    row = next(row for row in shown.json if row["check"] == "torchvision")
    assert row["state"] == "problem"
    assert "operator torchvision::nms does not exist" in row["found"]
    assert "pip install --force-reinstall torch torchvision" in row["mend"]


def test_a_library_that_is_missing_or_too_old_is_told_with_the_version(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {"optuna": None, "mlflow": "3.1.0"}
    ours = importlib.metadata.version

    def version(name: str) -> str:
        if name in versions and versions[name] is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return versions.get(name) or ours(name)

    monkeypatch.setattr(importlib.metadata, "version", version)

    findings = examine()

    assert found(findings, "optuna").found == "not installed"
    assert found(findings, "optuna").mend.startswith("pip install 'optuna")
    assert found(findings, "mlflow").state == "problem"
    assert "3.1.0, expected" in found(findings, "mlflow").found


def test_a_torch_that_does_not_import_ends_what_needs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    refuse(monkeypatch, "torch", OSError("libcudart.so.13: cannot open shared object file"))

    findings = examine("quickstart")

    assert "libcudart.so.13" in found(findings, "torch").found
    assert found(findings, "study").mend == "mend the above first"
    assert "gpu" not in {finding.check for finding in findings}


def test_a_step_of_training_ends_well_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "STEP", STEP)

    finding = doctor._training()

    assert (finding.state, finding.mend) == ("fine", ""), finding.found


@pytest.mark.parametrize(
    ("step", "how", "mend"),
    [
        ("import os; os.kill(os.getpid(), 11)", "SIGSEGV", "another build of it"),
        ("import os; os.getenv('ONEDNN_MAX_CPU_ISA') or os.kill(os.getpid(), 11)", "SIGSEGV", "export ONEDNN_MAX_CPU"),
        ("raise RuntimeError('no kernel image')", "RuntimeError: no kernel image", "another build of it"),
        ("import time; time.sleep(60)", "nothing within 0.2 s", "another build of it"),
    ],
)
def test_a_step_of_training_that_crashes_is_told_and_ends_nothing_else(
    step: str, how: str, mend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "STEP", step)
    monkeypatch.setattr(doctor, "STEP_TIMEOUT_S", 0.2 if "sleep" in step else 60.0)

    finding = found(examine(), "training")

    assert finding.state == "problem"
    assert how in finding.found
    assert mend in finding.mend


@pytest.mark.parametrize(
    ("here", "cuda", "state", "message"),
    [
        (None, None, "fine", "none; trials run on the CPU"),
        ("NVIDIA H200, driver 550.1", None, "warning", "this torch is built for CPUs"),
        ("NVIDIA H200, driver 450.1", "13.0", "problem", "torch does not see it"),
    ],
)
def test_a_gpu_that_torch_does_not_see_is_told(here: str | None, cuda: str | None, state: str, message: str,
                                               monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.version.cuda", cuda)
    monkeypatch.setattr(doctor, "_driver", lambda: here)

    finding = found(examine(), "gpu")

    assert finding.state == state
    assert message in finding.found
    assert bool(finding.mend) == (state != "fine")


def test_shared_memory_must_hold_what_data_workers_decode_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": 10 << 30, "total": 1 << 30})()
    monkeypatch.setattr("shutil.disk_usage", lambda _path: usage)

    finding = next(iter(doctor._shared_memory(importable=True)))
    monkeypatch.setattr("coatnet_search.data.stream.BUDGET_BYTES", 0)

    assert finding.state == "warning" and "the data workers of each training up to 1,024 MiB" in finding.mend
    assert next(iter(doctor._shared_memory(importable=True))).state == "fine"


def test_little_disk_little_shared_memory_and_no_cache_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("COATNET_SEARCH_CACHE", str(tmp_path / "file" / "cache"))
    small = type("Usage", (), {"free": 500 << 20, "total": 64 << 20})()
    monkeypatch.setattr("shutil.disk_usage", lambda _path: small)

    findings = examine()

    assert found(findings, "disk").state == "problem"
    assert found(findings, "/dev/shm").state == "warning"
    assert "--shm-size" in found(findings, "/dev/shm").mend
    assert found(findings, "cache").state == "problem"
    assert "COATNET_SEARCH_CACHE" in found(findings, "cache").mend


def test_a_study_is_held_against_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    with socket.socket() as free:  # a port that nobody listens on
        free.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{free.getsockname()[1]}"

        findings = examine("imagenet-layouts", [f"tracking.uri={uri}", "resources.cpus=1e6"])

    assert found(findings, "data").state == "problem"
    assert "--set data.path" in found(findings, "data").found
    assert "asks for 1, this machine has 0" in found(findings, "gpus").found
    assert "asks for 1e+06" in found(findings, "cpus").found
    assert found(findings, "mlflow server").state == "problem"


OWN = {"python": "3.11.7", "ray": "2.60.0", "torch": "2.13.0", "timm": "1.0.31", "coatnet-search": "0.1.0+a"}


def test_nodes_with_other_versions_are_told() -> None:
    told = [{**OWN, "host": "one"}, {**OWN, "host": "two", "ray": "2.59.0", "torch": "2.12.0"}]

    findings = list(doctor_cluster.versions(OWN, told))

    assert found(findings, "cluster").found == "2 nodes: one, two"
    assert found(findings, "ray of nodes").state == "problem"
    assert found(findings, "ray of nodes").found == "2.60.0 here, 2.59.0 on two"
    assert found(findings, "torch of nodes").state == "warning"
    assert len(findings) == 3


@pytest.mark.parametrize(("clock", "state"), [(100.5, "fine"), (103.5, "fine"), (130.0, "warning"), (60.0, "warning")])
def test_a_clock_that_is_off_by_more_than_the_answer_took_is_told(clock: float, state: str) -> None:
    finding = doctor_cluster.clocks(100.0, 2.0, [{"host": "one", "clock": 101.0}, {"host": "two", "clock": clock}])

    assert finding.state == state
    assert ("two" in finding.found) == (state == "warning")


def test_storage_that_is_not_shared_and_a_cluster_that_is_not_there_are_told() -> None:
    shared = doctor_cluster.shared(Path("runs"), 2, ["node two does not share runs"])
    gone, have = doctor_cluster.cluster_findings("127.0.0.1:9", Path("runs"))

    assert shared.state == "problem"
    assert "--runs on storage" in shared.mend
    assert [finding.state for finding in gone] == ["problem"]
    assert "no Ray at 127.0.0.1:9" in gone[0].found
    assert not have


def gpu(name: str, capability: str) -> dict[str, str]:
    return {"name": name, "memory": "81559 MiB", "driver": "550.1", "capability": capability}


def test_gpus_are_those_of_the_nodes_and_types_that_differ_are_told() -> None:
    built = ["sm_75", "sm_80", "sm_90", "compute_90"]
    one = {"host": "one", "built_for": built, "gpus": [gpu("H100", "9.0"), gpu("H100", "9.0")]}
    two, bare = {**one, "host": "two", "gpus": [gpu("A40", "8.6")]}, {**one, "host": "bare", "gpus": []}
    old = {**one, "host": "old", "gpus": [gpu("GTX 1080", "6.1")]}

    alike = list(doctor_cluster.gpus([one, one, bare]))
    mixed = list(doctor_cluster.gpus([one, two]))
    foreign = list(doctor_cluster.gpus([old]))

    assert [finding.state for finding in alike] == ["fine"]
    assert alike[0].found == "2 nodes with 2 x H100 (81559 MiB, driver 550.1); 1 node with no GPU"
    assert [finding.state for finding in mixed] == ["warning"] and "resources.accelerator" in mixed[0].mend
    assert found(foreign, "torch for gpus").state == "problem"
    assert found(foreign, "torch for gpus").found.startswith("GTX 1080 on old, whose torch is built for sm_75")


@pytest.mark.parametrize(
    ("built_for", "capability", "runs"),
    [(["sm_80"], "8.6", True), (["sm_86"], "8.0", False), (["sm_80"], "9.0", False), (["compute_80"], "12.0", True),
     (["sm_90a"], "9.0", True), ([], "9.0", False)],
)  # fmt: skip
def test_a_torch_runs_on_cards_that_it_was_built_for(built_for: list[str], capability: str, runs: bool) -> None:
    assert doctor_cluster.runs_on(built_for, capability) is runs


def test_a_study_is_held_against_the_cluster_where_one_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    there = {"CPU": 64.0, "GPU": 2.0}
    monkeypatch.setattr(doctor, "cluster_findings", lambda *_given: ([], there))

    fine = examine("quickstart", ["resources.gpus=1"], address="10.0.0.1:6379")
    small = examine("quickstart", ["resources.gpus=4"], address="10.0.0.1:6379")

    assert not [finding for finding in fine if finding.check in ("gpus", "gpu")]
    assert found(small, "gpus").found == "a trial asks for 4, the cluster has 2 in all"


def test_whoever_computes_on_a_gpu_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_smi", lambda _query: ["4711, python, 2048 MiB"])
    busy = doctor._busy()
    monkeypatch.setattr(doctor, "_smi", lambda _query: [])
    idle = doctor._busy()

    assert (busy.state, busy.found) == ("warning", "pid 4711 python with 2048 MiB")
    assert (idle.state, idle.mend) == ("fine", "")


@pytest.mark.parametrize(
    ("status", "body", "mend"),
    [
        (403, "Invalid Host header - possible DNS rebinding attack detected", "--allowed-hosts"),
        (401, "You are not authenticated", "MLFLOW_TRACKING_TOKEN"),
    ],
)
def test_a_tracking_server_that_refuses_is_told_with_the_mend(status: int, body: str, mend: str) -> None:
    class Refusing(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        finding = doctor._server(f"http://127.0.0.1:{server.server_address[1]}")[0]
        server.shutdown()

    assert finding.state == "warning"
    assert str(status) in finding.found
    assert mend in finding.mend


def test_a_study_with_a_mistake_is_bad_input(capsys: pytest.CaptureFixture[str]) -> None:
    shown = call(capsys, "doctor", "quickstart", "--set", "search.trails=1")

    assert shown.code == 2
    assert "did you mean 'trials'?" in shown.error
