"""Clusters: nodes that come and go, storage that is not shared, types of GPU, a study handed over as a job."""

import contextlib
import http.server
import importlib.util
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
import zipfile
from pathlib import Path

import pytest
from command_line import call

from coatnet_search.core.errors import SetupError
from coatnet_search.record.fold import read_events, read_trials
from coatnet_search.search.ray.jobs import _named
from coatnet_search.search.ray.nodes import answers, bundle, fitting, has, look
from coatnet_search.search.ray.tune import _SETTINGS, _cause
from coatnet_search.study.sections import Resources

SMALL = ["search.trials=3", "search.strategy=random", "measure=[]", "recipe.epochs=1", "tracking.enabled=false"]


def _node(alive=True, **resources):
    return {"Alive": alive, "NodeID": "0" * 56, "Resources": {"CPU": 8.0, **resources}}


H100 = {"GPU": 4.0, "accelerator_type:H100": 1.0}
A100 = {"GPU": 2.0, "accelerator_type:A100": 1.0}


def test_only_living_nodes_with_the_type_of_gpu_count():
    nodes = [_node(**H100), _node(**A100), _node(), _node(alive=False, **H100)]

    assert fitting(nodes, "H100") == {"CPU": 8.0, "GPU": 4.0}
    assert fitting(nodes, None) == {"CPU": 24.0, "GPU": 6.0}
    assert bundle(Resources(cpus=2, gpus=1, accelerator="H100")) == {"CPU": 2, "GPU": 1, "accelerator_type:H100": 0.001}


def test_a_type_of_gpu_that_no_node_has_is_told_with_those_that_there_are():
    with pytest.raises(SetupError, match="of type B200 and the cluster has A100, H100; change"):
        fitting([_node(**H100), _node(**A100)], "B200")


def test_a_node_that_sees_another_folder_or_no_data_says_so(tmp_path):
    (tmp_path / "shared").mkdir()
    mark = tmp_path / "shared" / "mark"
    mark.write_text("token")

    assert look(str(mark), "token") is None
    assert "does not share" in look(str(tmp_path / "elsewhere" / "mark"), "token")
    assert "has another" in look(str(mark), "other")
    for there, elsewhere in (("", "/no/such/data"), ("file://", "file:///no/such/data")):
        assert has(f"{there}{tmp_path}") is None
        assert has(elsewhere).endswith(f"has no {elsewhere}")
    assert list((tmp_path / "shared").iterdir()) == [mark]


def test_a_lost_node_is_told_from_a_killed_process():
    lost, lost_counts = _cause("The actor died because its node has died. Node Id: 4711")
    gone, gone_counts = _cause("The actor is unavailable: Socket closed", nodes_there=False)
    killed, killed_counts = _cause("The actor is unavailable: Socket closed")

    assert (lost.kind, lost_counts, gone.kind, gone_counts) == ("lost", False, "lost", False)
    assert (killed.kind, killed_counts, _cause(None)[0].kind) == ("killed", True, "killed")


def test_a_node_answers_while_its_port_does(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        node = {"NodeID": "a", "Alive": True, "NodeManagerAddress": "127.0.0.1", "NodeManagerPort": port}
        monkeypatch.setattr("ray.nodes", lambda: [node, {**node, "NodeID": "b", "Alive": False}])
        there = answers("a"), answers("b"), answers("c")

    assert there == (True, False, False)
    assert not answers("a")


@pytest.mark.ray
@pytest.mark.full
@pytest.mark.timeout(900)
def test_a_node_that_is_killed_and_one_that_is_added_change_no_number_of_trials(tmp_path):
    from ray.cluster_utils import Cluster

    os.environ.update(_SETTINGS)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    folder = tmp_path / "quickstart"
    try:
        lost, _ = cluster.add_node(num_cpus=1), cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()
        driver = _search(cluster.address, tmp_path)
        _wait(lambda: sum(event["event"] == "report" for event in read_events(folder)) >= 6 and _trials_on(lost))
        added = cluster.add_node(num_cpus=1)
        cluster.remove_node(lost, allow_graceful=False)
        _wait(lambda: _trials_on(added) or driver.poll() is not None)
        used, code = bool(_trials_on(added)), driver.wait()
    finally:
        cluster.shutdown()

    trials, events = read_trials(folder), read_events(folder)
    moved = [event for event in events if event["event"] == "interrupted"]
    assert code == 0 and used and [trial.state for trial in trials] == ["done"] * 9
    assert all([row["epoch"] for row in trial.curve] == list(range(1, 25)) for trial in trials)
    assert [event["failure"]["kind"] for event in moved] == ["lost"]
    assert sorted(event["number"] for event in events if event["event"] == "terminal") == list(range(9))


def _search(address, runs):
    """A search of nine small trainings as a process of its own: nodes come and go from this one's main thread."""
    words = ["run", "quickstart", "--address", address, "--runs", runs, "--set", *SMALL, "search.trials=9",
             "recipe.epochs=24"]  # fmt: skip
    return subprocess.Popen([sys.executable, "-m", "coatnet_search", *map(str, words)],
                            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip


def _trials_on(node):
    """The processes of a node that run trials: children of its raylet."""
    parent = str(node.all_processes["raylet"][0].process.pid)
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            fields = (process / "stat").read_text().rpartition(")")[2].split()
            if fields[1] == parent and b"TrialActor" in (process / "cmdline").read_bytes():
                found.append(int(process.name))
    return found


def _wait(condition, seconds=300):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.2)


class _Jobs(http.server.BaseHTTPRequestHandler):
    """As much of Ray's job server as a submission without following needs."""

    submitted: list[dict] = []  # noqa: RUF012 (one server a test)
    sent: list[bytes] = []  # noqa: RUF012
    refusal: tuple[int, str] | None = None
    busy = 0  # so many submissions find no node that could take them

    def _answer(self, status, value=None):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        import ray

        known = {
            "/api/version": {"version": "4", "ray_version": ray.__version__, "ray_commit": "", "session_name": "s"}
        }
        if self.refusal:
            self._answer(*self.refusal)
        else:
            self._answer(200 if self.path in known else 404, known.get(self.path))

    def do_PUT(self):
        self.sent.append(self.rfile.read(int(self.headers["Content-Length"])))
        self._answer(200)

    def do_POST(self):
        job = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if _Jobs.busy:
            _Jobs.busy -= 1
            self._answer(500, "No available agent to submit job, please try again later.")
            return
        self.submitted.append(job)
        self._answer(200, {"job_id": "job_1", "submission_id": "job_1"})

    def log_message(self, *_):
        """Nothing."""


@pytest.fixture
def jobs():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Jobs)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    _Jobs.submitted.clear()
    _Jobs.sent.clear()
    _Jobs.refusal, _Jobs.busy = None, 0
    yield f"http://127.0.0.1:{server.server_address[1]}", _Jobs.submitted
    server.shutdown()
    server.server_close()


def test_a_study_is_submitted_with_its_files_settings_and_variables(jobs, tmp_path, monkeypatch, capsys):
    address, submitted = jobs
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "token-of-mine")
    words = [
        "--address",
        address,
        "--runs",
        "/shared/runs",
        "--env",
        "MLFLOW_TRACKING_TOKEN",
        "--no-wait",
        "--workers",
        "4",
    ]

    printed = call(capsys, "submit", "quickstart", "--set", *SMALL, *words)

    entry = submitted[0]["entrypoint"]
    assert printed.code == 0 and "job_1" in printed.err and "token-of-mine" not in printed.err + printed.out
    assert entry.startswith("python -m coatnet_search run quickstart --address auto --set search.trials=3")
    assert entry.endswith("--workers 4 --runs /shared/runs")
    assert submitted[0]["runtime_env"]["env_vars"] == {"MLFLOW_TRACKING_TOKEN": "token-of-mine"}
    assert submitted[0]["runtime_env"]["working_dir"].startswith("gcs://")


def test_a_trainer_travels_without_what_is_private_around_it_and_that_is_said(jobs, tmp_path, monkeypatch, capsys):
    address, submitted = jobs
    monkeypatch.chdir(tmp_path)
    (tmp_path / "trainer.py").write_text("def train(): ...\n")
    (tmp_path / ".env").write_text("PASSWORD=hunter22")
    (tmp_path / "lost").symlink_to("nowhere")

    words = ["--address", address, "--runs", "/shared/runs", "--no-wait", "--evaluator", "trainer:train"]
    printed = call(capsys, "submit", "quickstart", *words)

    (archive,) = _Jobs.sent
    with zipfile.ZipFile(io.BytesIO(archive[archive.index(b"PK") :])) as found:
        names = {Path(name).name for name in found.namelist() if not name.endswith("/")}
    assert printed.code == 0 and len(submitted) == 1
    assert names == {"trainer.py"}
    assert f"1 files of {tmp_path} (0 KiB) go along: trainer.py; stay here: 1 hidden, 1 links" in printed.err


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--runs", "runs"], 2, "a job starts in a folder of its own; give an absolute path"),
        (["--runs", "/shared", "--env", "NOT_SET"], 2, "--env NOT_SET: this variable is not set here"),
        (["--runs", "/shared"], 3, "no job server of Ray at http://127.0.0.1:9"),
        (["--runs", "/shared", "--address", "127.0.0.1:8265"], 2, "as http://HOST:8265"),
    ],
)
def test_what_cannot_be_submitted_is_one_line(words, code, message, capsys):
    printed = call(capsys, "submit", "quickstart", "--address", "http://127.0.0.1:9", *words)

    assert printed.code == code and message in printed.error


@pytest.mark.parametrize(
    ("refusal", "message"),
    [
        (
            (401, "Unauthorized: Missing authentication token"),
            "asks for the cluster's token: export RAY_AUTH_MODE=token",
        ),
        ((404, "Not found"), "the job server of Ray at http://127.0.0.1:"),
    ],
)
def test_a_job_server_that_refuses_is_one_line(jobs, refusal, message, capsys):
    address, submitted = jobs
    _Jobs.refusal = refusal

    printed = call(capsys, "submit", "quickstart", "--address", address, "--runs", "/shared")

    assert printed.code == 3 and message in printed.error and not submitted


def test_a_cluster_that_has_only_just_started_is_waited_for(jobs, capsys, monkeypatch):
    address, submitted = jobs
    _Jobs.busy = 2

    printed = call(capsys, "submit", "quickstart", "--address", address, "--runs", "/shared", "--no-wait")
    _Jobs.busy = 2
    monkeypatch.setattr("coatnet_search.search.ray.jobs.PATIENCE_S", 0.0)
    refused = call(capsys, "submit", "quickstart", "--address", address, "--runs", "/shared", "--no-wait")

    assert printed.code == 0 and len(submitted) == 1
    assert refused.code == 3 and "No available agent" in refused.error


def test_a_job_that_failed_is_told_with_its_own_message():
    with pytest.raises(SetupError, match=r"^job 7 failed: no space$"), _named("http://127.0.0.1:9"):
        raise SetupError("job 7 failed: no space")


def _ray(*words, env):
    """Runs the command ``ray``; the id of its session, in which all processes stay that it starts."""
    command = [shutil.which("ray", path=str(Path(sys.executable).parent)), *words]
    started = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                               start_new_session=True)  # fmt: skip
    assert started.wait(240) == 0
    return started.pid


@pytest.mark.ray
@pytest.mark.full
@pytest.mark.timeout(900)
@pytest.mark.skipif(importlib.util.find_spec("aiohttp_cors") is None, reason="needs the extra `cluster` (ray[default])")
def test_a_job_on_two_real_ray_processes_runs_a_study_to_its_end(tmp_path, free_ports):
    port, dashboard = free_ports
    # the path of a socket has at most 107 bytes; and a folder a node, as on two machines: in one that they share, the
    # second node unpacks the job's files anew, under the feet of the job
    short, other = (tempfile.mkdtemp(prefix="ray-", dir="/tmp") for _ in range(2))
    environment = {**os.environ, **_SETTINGS, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
                   "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": uuid.uuid4().hex}  # fmt: skip
    head = ["start", "--head", "--node-ip-address=127.0.0.1", f"--port={port}", "--dashboard-host=127.0.0.1",
            f"--dashboard-port={dashboard}", "--num-cpus=1", f"--temp-dir={short}"]  # fmt: skip
    sessions = set()
    try:
        sessions.add(_ray(*head, env=environment))
        sessions.add(_ray("start", f"--address=127.0.0.1:{port}", "--num-cpus=1", f"--temp-dir={other}",
                          env=environment))  # fmt: skip
        submit = [sys.executable, "-m", "coatnet_search", "submit", "quickstart", "--set", *SMALL, "--address",
                  f"http://127.0.0.1:{dashboard}", "--runs", str(tmp_path / "runs")]  # fmt: skip
        printed = subprocess.run(submit, check=False, env=environment, capture_output=True, text=True, timeout=600)
    finally:
        for pid in _processes(sessions):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    assert printed.returncode == 0 and "3 trials finished" in printed.stdout, printed.stdout + printed.stderr
    assert [trial.state for trial in read_trials(tmp_path / "runs" / "quickstart")] == ["done"] * 3


@pytest.fixture
def free_ports():
    import socket

    with socket.socket() as one, socket.socket() as two:
        one.bind(("127.0.0.1", 0))
        two.bind(("127.0.0.1", 0))
        ports = one.getsockname()[1], two.getsockname()[1]
    return ports


def _processes(sessions):
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if os.getsid(int(process.name)) in sessions:
                found.append(int(process.name))
    return found
