import http.server
import json
import math
import random
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from mlflow_server import (
    Forwarder,
    RealServer,
    _runs,
    check_mirror_equals_record,
    free_port,
    real_server,
    started_server,
    until,
)

from coatnet_search.cli import doctor
from coatnet_search.core.errors import InputError, SetupError
from coatnet_search.record.fold import Record, read_events
from coatnet_search.record.mirror import process as mirroring
from coatnet_search.record.mirror.mlflow import Server, mirror, start_mirror
from coatnet_search.record.mirror.process import Gone, Mirror, MirrorProcess, Refused, default_uri, unsent_events
from coatnet_search.record.mirror.uploads import Planner, Upload, clean_name

__all__ = ["real_server", "started_server"]  # fixtures
ARCH = {"image_size": 32, "stages": [{"block": "mbconv", "depth": 2, "width": 32, "stride": 1}]}


def trial(number: int, epochs: int = 2, state: str = "done", **final: float) -> list[dict[str, Any]]:
    who = {"number": number, "key": f"key{number}"}
    return [
        {
            **who,
            "event": "started",
            "candidate": {"s1.depth": 2, "s1 block?": "C"},
            "arch": ARCH,
            "arch_id": f"arch{number}",
            "layout": "C",
            "budget": {"epochs": epochs, "num_images": None, "seed": 0},
            "metrics": {"params": 1000 + number, "macs": 20_000},
        },
        *(
            {**who, "event": "report", "metrics": {"epoch": epoch, "val_loss": 1 / epoch + number}}
            for epoch in range(1, epochs + 1)
        ),
        {
            **who,
            "event": "terminal",
            "state": state,
            "metrics": {"val_loss": 1 / epochs + number, "val_top1": 0.5, **final},
            "failure": {"kind": "nan", "message": "loss is nan"} if state == "failed" else None,
            "timings": {"wall_s": 1.5},
        },
    ]


def write(run: Path, *events: Mapping[str, Any]) -> Path:
    with Record(run) as record:
        for event in events:
            record.append(event)
    return run


def write_study(run: Path, trials: int) -> Path:
    write(run, {"event": "session", "host": run.name}, *(event for number in range(trials) for event in trial(number)))
    (run / "study.yaml").write_text("name: small\nquestion: How many?\ntracking: {uri: 'https://a:pass9@h/'}\n")
    return run


def uploads_of(run: Path) -> list[Upload]:
    return Planner("small").plan(read_events(run))


# ---- what is sent: no server


def test_a_trial_is_sent_with_its_params_metrics_tags_and_state(tmp_path: Path) -> None:
    write(tmp_path, *trial(3))

    (upload,) = uploads_of(tmp_path)

    assert upload.params == {
        "s1.depth": "2", "s1 block_": "C", "arch_id": "arch3", "layout": "C", "budget.epochs": "2", "budget.seed": "0",
    }  # fmt: skip
    assert upload.tags.items() >= {"study": "small", "state": "done", "key": "key3", "front": "false"}.items()
    assert [(p.name, p.value, p.step) for p in upload.points] == [
        ("params", 1003, 0), ("macs", 20_000, 0), ("val_loss", 4.0, 1), ("val_loss", 3.5, 2), ("val_top1", 0.5, 2),
        ("wall_s", 1.5, 2),
    ]  # fmt: skip
    assert (upload.status, upload.arch) == ("FINISHED", ARCH)
    assert upload.end_ms is not None
    assert upload.end_ms >= upload.start_ms > 1.6e12


def test_the_same_record_gives_the_same_uploads_however_it_is_cut(tmp_path: Path) -> None:
    write(tmp_path, *trial(0), *trial(1, epochs=5), *trial(2, state="failed"))
    events = read_events(tmp_path)
    whole = {upload.identity: upload for upload in Planner("s").plan(events)}

    rng, planner = random.Random(0), Planner("s")
    pieces: dict[str, list[Upload]] = {identity: [] for identity in whole}
    while events:
        cut = rng.randint(1, 4)
        for upload in planner.plan(events[:cut]):
            pieces[upload.identity].append(upload)
        events = events[cut:]

    for identity, upload in whole.items():
        assert [point for piece in pieces[identity] for point in piece.points] == upload.points
        assert {k: v for piece in pieces[identity] for k, v in piece.tags.items()} == upload.tags
        assert {piece.start_ms for piece in pieces[identity]} == {upload.start_ms}
    assert planner.running == set()


def test_an_epoch_that_was_trained_again_is_sent_once(tmp_path: Path) -> None:
    start, one, two, end = trial(0)
    write(tmp_path, start, one, two, start, two, end)

    (upload,) = uploads_of(tmp_path)

    assert [(p.name, p.step) for p in upload.points if p.name == "val_loss"] == [("val_loss", 1), ("val_loss", 2)]


def test_what_is_no_finite_number_is_not_sent() -> None:
    values = {"epoch": 1, "a": math.inf, "b": -math.inf, "c": math.nan, "d": None, "e": "text", "f": True, "g": 2}
    event = {"event": "report", "number": 0, "key": "k", "time": "2026-01-01T00:00:00.000Z", "metrics": values}

    (upload,) = Planner("s").plan([event])

    assert [point.name for point in upload.points] == ["g"]


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ("val top-1", "val top-1"),
        ("acc@5%", "acc_5_"),
        ("../x", "_x"),
        ("a//b", "a__b"),
        ("/a", "_a"),
        ("é" * 9, "_" * 9),
    ],
)
def test_names_are_made_such_that_mlflow_takes_them(given: str, sent: str) -> None:
    name = clean_name(given)

    assert name == sent


def test_long_values_are_cut(tmp_path: Path) -> None:
    start, *_rest, end = trial(0, state="failed")
    start["candidate"] = {"x": "y" * 9000}
    end["failure"] = {"kind": "error", "message": "z" * 9000}
    write(tmp_path, start, end)

    (upload,) = uploads_of(tmp_path)

    assert len(upload.params["x"]) == 6000
    assert len(upload.tags["failure_message"]) == 5000


# ---- when it is sent: a server in memory that fails on demand


class Memory:
    """A tracking server in memory; ``errors`` are raised by the next calls, one each."""

    def __init__(self) -> None:
        self.errors: list[Exception] = []
        self.stale, self.notes, self.page = False, ["a note"], "#/experiments/1/runs/a"
        self.points: Counter[tuple[str, str, int]] = Counter()
        self.states: dict[str, str] = {}
        self.front: set[str] = set()
        self.status = ""
        self.calls = 0
        self.deleted = False

    def complete(self, ended: Mapping[str, str]) -> set[str]:
        return {identity for identity, state in ended.items() if self.states.get(identity) == state}

    def apply(self, upload: Upload) -> None:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        self.points.update((upload.identity, point.name, point.step) for point in upload.points)
        self.states[upload.identity] = upload.tags.get("state", "running")

    def mark_front(self, keys: set[str]) -> None:
        self.front = keys

    def check_experiment(self) -> None:
        if self.deleted:
            raise Refused("experiment 'small' is deleted there")

    def set_status(self, status: str) -> None:
        self.status = status


def at_once(_seconds: float) -> mirroring.Wish:
    return "finish"


def mirror_to(server: Memory, run: Path) -> Mirror:
    return Mirror(run, "memory", "small", lambda: server)


@pytest.fixture
def no_sleep(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    slept: list[float] = []
    monkeypatch.setattr(mirroring, "time", SimpleNamespace(sleep=slept.append, monotonic=time.monotonic))
    return slept


def test_the_mirror_sends_all_and_says_so(tmp_path: Path) -> None:
    write_study(tmp_path, 300)
    (tmp_path / "front.json").write_text('["key1", "key7"]')
    server = Memory()

    mirror_to(server, tmp_path).follow(at_once)

    assert set(server.points.values()) == {1}
    assert len(server.points) == 300 * 6
    assert server.front == {"key1", "key7"}
    assert server.status == "FINISHED"
    status = json.loads((tmp_path / "mirror.json").read_text())
    assert status["page"] == server.page
    assert (status["last_error"], status["refused"], unsent_events(tmp_path, status["sent_offset"])) == (None, False, 0)


def test_errors_are_survived_with_growing_pauses_and_everything_is_sent_once(tmp_path: Path) -> None:
    write_study(tmp_path, 4)
    server = Memory()
    server.errors = [ConnectionError("refused"), TimeoutError("slow"), RuntimeError("500"), RuntimeError("429")] * 3
    pauses: list[float] = []

    def wait(seconds: float) -> mirroring.Wish:
        if seconds:
            pauses.append(seconds)
        return "finish" if not server.errors else "go on"

    mirror_to(server, tmp_path).follow(wait)

    assert set(server.points.values()) == {1}
    assert len(server.points) == 4 * 6
    assert server.stale
    assert pauses[0] < pauses[2] < pauses[4] <= max(pauses) <= 1.2 * mirroring.LONGEST_PAUSE_S


def test_a_refusal_is_not_tried_again_and_what_is_unsent_is_known(tmp_path: Path) -> None:
    write_study(tmp_path, 4)
    server = Memory()
    server.errors = [Refused("403 Forbidden")]
    road = mirror_to(server, tmp_path)

    road.follow(lambda _seconds: "go on")

    assert server.calls == 1
    assert (road.refused, road.error) == (True, "403 Forbidden")
    assert unsent_events(tmp_path, road.sent_offset) == 1 + 4 * 4


@pytest.mark.usefixtures("no_sleep")
def test_a_server_that_lost_everything_gets_everything_again(tmp_path: Path) -> None:
    write_study(tmp_path, 200)
    servers = [Memory(), Memory()]
    servers[0].errors = [Gone("no such run")]
    used = iter(servers)

    Mirror(tmp_path, "memory", "small", lambda: next(used)).follow(at_once)

    assert len(servers[1].points) == 200 * 6


def test_an_experiment_that_was_deleted_there_meanwhile_is_told_at_the_end(tmp_path: Path) -> None:
    write_study(tmp_path, 3)
    server = Memory()
    server.deleted = True
    handle = MirrorProcess(tmp_path, "memory", [sys.executable, "-c", ""], {})
    road = mirror_to(server, tmp_path)

    road.follow(at_once)
    line = handle.close()

    assert (road.refused, server.status) == (True, "RUNNING")
    assert line is not None and "experiment 'small' is deleted there; `coatnet-search mirror" in line


def test_a_second_mirror_sends_only_what_is_not_complete(tmp_path: Path) -> None:
    write_study(tmp_path, 20)
    write(tmp_path, *trial(20)[:3])
    server = Memory()
    mirror_to(server, tmp_path).follow(at_once)
    write(tmp_path, trial(20)[3])
    server.calls = 0

    mirror_to(server, tmp_path).follow(at_once)

    assert server.calls == 1
    assert server.states["20:key20"] == "done"


def test_a_search_with_running_trials_is_marked_as_killed(tmp_path: Path) -> None:
    write(tmp_path, {"event": "session"}, *trial(0)[:2])
    server = Memory()

    mirror_to(server, tmp_path).follow(at_once)

    assert server.status == "KILLED"


def test_an_orphan_gives_up_at_the_first_error(tmp_path: Path) -> None:
    write_study(tmp_path, 2)
    server = Memory()
    server.errors = [ConnectionError("refused")] * 5

    mirror_to(server, tmp_path).follow(lambda _seconds: "orphan")

    assert len(server.errors) == 4


@pytest.mark.usefixtures("no_sleep")
def test_secrets_do_not_reach_the_status_file(tmp_path: Path) -> None:
    write_study(tmp_path, 1)
    server = Memory()
    server.errors = [Refused("cannot reach https://ann:hunter22@host/")]

    Mirror(tmp_path, "https://ann:hunter22@host/", "small", lambda: server).follow(at_once)

    assert "hunter22" not in (tmp_path / "mirror.json").read_text()


# ---- how it is sent: MLflow's client, stub servers, a real server


@pytest.fixture
def stub() -> Iterator[Callable[[int, str, float], tuple[str, list[str]]]]:
    """``stub(status, body, delay_s)``: a server that always gives this answer -> (its address, the paths asked for)."""
    servers: list[http.server.ThreadingHTTPServer] = []

    def start(status: int, body: str, delay_s: float) -> tuple[str, list[str]]:
        asked: list[str] = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def answer(self) -> None:
                asked.append(self.path)
                time.sleep(delay_s)
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body.encode())

            do_GET = do_POST = answer

            def log_message(self, *_: object) -> None: ...

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_address[1]}", asked

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (403, "Invalid Host header - possible DNS rebinding attack detected", "Invalid Host header"),
        (401, "You are not authenticated.", "not authenticated"),
        (403, '{"message":"Forbidden"}', "Forbidden"),
        (403, '{"error_code":"PERMISSION_DENIED","message":"not yours"}', "not yours"),
    ],
)
def test_a_server_that_refuses_is_asked_once(
    tmp_path: Path, stub: Callable[[int, str, float], tuple[str, list[str]]], status: int, body: str, said: str
) -> None:
    write_study(tmp_path, 2)
    uri, asked = stub(status, body, 0)

    with pytest.raises(SetupError, match=f"9 events not sent: .*{said}"):
        mirror(tmp_path, uri, "small")

    assert len(asked) == 1


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_server_in_trouble_is_asked_again(
    tmp_path: Path, stub: Callable[[int, str, float], tuple[str, list[str]]], status: int, no_sleep: list[float]
) -> None:
    write_study(tmp_path, 2)
    uri, asked = stub(status, "trouble", 0)

    with pytest.raises(SetupError, match=r"9 events not sent: .*too many"):
        mirror(tmp_path, uri, "small", patience_s=0.3)

    assert len(asked) == len(no_sleep) + 1 > 2


def test_mirroring_needs_a_record_and_a_uri_that_mlflow_takes(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no record to mirror"):
        mirror(tmp_path, "http://127.0.0.1:1", "small")
    write_study(tmp_path, 1)

    with pytest.raises(SetupError, match="5 events not sent"):
        mirror(tmp_path, "no-such-scheme://x", "small", patience_s=0.0)


def test_the_driver_imports_no_mlflow(tmp_path: Path) -> None:
    code = "import sys, coatnet_search.record.mirror.mlflow; sys.exit('mlflow' in sys.modules)"

    result = subprocess.run([sys.executable, "-c", code], check=False, cwd=tmp_path)

    assert result.returncode == 0


@pytest.mark.mlflow
def test_a_slow_server_slows_nothing_and_the_end_says_what_is_unsent(
    tmp_path: Path, stub: Callable[[int, str, float], tuple[str, list[str]]]
) -> None:
    write_study(tmp_path, 3)
    uri, asked = stub(200, "{}", 60)

    begin = time.monotonic()
    handle = start_mirror(tmp_path, uri, "small")
    started_s = time.monotonic() - begin
    until(lambda: asked)
    begin = time.monotonic()
    line = handle.close(timeout_s=0.5)
    closed_s = time.monotonic() - begin

    assert started_s < 1
    assert closed_s < 2
    assert line is not None
    assert "13 events of the record are not sent" in line
    assert f"`coatnet-search mirror {tmp_path}` completes it" in line


@pytest.mark.mlflow
def test_a_mirror_ends_when_its_driver_is_killed(tmp_path: Path) -> None:
    write_study(tmp_path, 3)
    driver = """
    import sys, time
    from coatnet_search.record.mirror.mlflow import start_mirror
    start_mirror(sys.argv[1], sys.argv[2], "small")
    time.sleep(600)
    """
    uri = f"http://127.0.0.1:{free_port()}"
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(driver), tmp_path, uri])
    status = until(lambda: (s := _status(tmp_path)).get("last_error") and s)

    process.kill()
    process.wait()

    assert "refused" in status["last_error"]
    until(lambda: not _alive(status["pid"]), 20)


def _status(run: Path) -> dict[str, Any]:
    try:
        status: dict[str, Any] = json.loads((run / "mirror.json").read_text())
        return status
    except (OSError, ValueError):
        return {}


def _alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


@pytest.mark.mlflow
def test_a_server_that_is_dead_at_the_start_and_cut_off_midway_has_everything_exactly_once_in_the_end(
    tmp_path: Path, real_server: RealServer
) -> None:
    run = write_study(tmp_path / "small", 3)
    way = Forwarder(real_server.port)

    handle = start_mirror(run, way.uri, "flapping")
    warning = until(handle.warning)
    way.open()
    until(lambda: unsent_events(run, _status(run)["sent_offset"]) == 0)
    slowest = 0.0
    for number in range(3, 33):
        if number == 8:
            way.cut()
        if number == 13:
            way.open()
        if number in (16, 20, 24, 28):
            way.answers_to_lose = 1
        begin = time.monotonic()
        write(run, *trial(number, state="failed" if number == 30 else "done"))
        assert handle.warning() is None
        slowest = max(slowest, time.monotonic() - begin)
        time.sleep(0.1)
    (run / "front.json").write_text('["key2", "key30", "key31"]')
    line = handle.close(timeout_s=100)
    way.cut()

    assert "Connection refused; the search goes on, the record keeps everything" in warning
    assert line is None
    assert slowest < 1
    check_mirror_equals_record(real_server.uri, "flapping", run)
    _, (parent,), children = _runs(real_server.uri, "flapping")
    assert {c.data.tags["key"] for c in children if c.data.tags["front"] == "true"} == {"key2", "key31"}
    assert parent.data.tags["study"] == "small"
    assert parent.data.tags["mlflow.note.content"] == "How many?"


@pytest.mark.mlflow
@pytest.mark.full
def test_a_server_that_is_killed_and_comes_back_has_everything_exactly_once_in_the_end(
    tmp_path: Path, real_server: RealServer
) -> None:
    run = write_study(tmp_path / "small", 3)

    handle = start_mirror(run, real_server.uri, "killed")
    until(lambda: _status(run)["sent_offset"])
    write(run, *(event for number in range(3, 40) for event in trial(number)))
    time.sleep(1)
    real_server.kill()
    write(run, *(event for number in range(40, 50) for event in trial(number)))
    until(handle.warning)
    real_server.start()
    line = handle.close(timeout_s=150)

    assert line is None
    check_mirror_equals_record(real_server.uri, "killed", run)


@pytest.mark.mlflow
def test_a_record_is_replayed_into_an_empty_server_and_once_more_changes_nothing(
    tmp_path: Path, real_server: RealServer
) -> None:
    run = write_study(tmp_path / "small", 6)

    said = mirror(run, real_server.uri, "replayed")
    write(run, *trial(6))
    mirror(run, real_server.uri, "replayed")

    assert said.endswith(f"has all of {run}")
    check_mirror_equals_record(real_server.uri, "replayed", run)
    client, (parent,), children = _runs(real_server.uri, "replayed")
    assert {file.path for file in client.list_artifacts(children[0].info.run_id)} == {"arch.yaml"}
    study_file = client.download_artifacts(parent.info.run_id, "study.yaml", str(tmp_path))
    assert "pass9" not in Path(study_file).read_text()


@pytest.mark.mlflow
def test_params_that_differ_and_runs_that_were_deleted_there_stop_nothing(
    tmp_path: Path, real_server: RealServer
) -> None:
    run = write_study(tmp_path / "small", 2)
    write(run, *trial(2)[:2])
    mirror(run, real_server.uri, "conflicts")
    other = trial(2)
    other[0]["candidate"] = {"s1.depth": 99}

    write(run, *other)
    mirror(run, real_server.uri, "conflicts")

    _, _, children = _runs(real_server.uri, "conflicts")
    changed = next(child for child in children if child.data.tags["key"] == "key2")
    assert changed.data.params["s1.depth"] == "2"
    assert changed.data.tags["state"] == "done"
    assert "refused params" in _status(run)["notes"][0]


@pytest.mark.mlflow
def test_what_goes_to_an_experiment_that_was_deleted_meanwhile_is_not_called_sent(
    tmp_path: Path, real_server: RealServer
) -> None:
    run = write_study(tmp_path / "small", 2)
    server = Server(run, real_server.uri, "short-lived", "search", 0)
    client = pytest.importorskip("mlflow.tracking").MlflowClient(real_server.uri)
    client.delete_experiment(client.get_experiment_by_name("short-lived").experiment_id)

    road = Mirror(run, real_server.uri, "small", lambda: server)
    road.follow(at_once)

    assert road.refused and "experiment 'short-lived' is deleted there; restore it" in str(road.error)
    assert unsent_events(run, road.sent_offset) > 0


@pytest.mark.mlflow
@pytest.mark.full
def test_a_server_for_other_hosts_is_asked_once_and_doctor_knows_the_mend(tmp_path: Path) -> None:
    write_study(tmp_path, 2)
    server = RealServer(tmp_path, "--allowed-hosts", "mlflow.example")
    server.start()
    try:
        until(server.healthy)
        finding = doctor._server(server.uri)[0]
        with pytest.raises(SetupError, match=r"9 events not sent: .*Invalid Host header"):
            mirror(tmp_path, server.uri, "small")
    finally:
        server.kill()

    assert finding.state == "warning" and "--allowed-hosts" in finding.mend


@pytest.mark.mlflow
@pytest.mark.full
def test_two_mirrors_that_open_a_new_sqlite_file_at_once_both_arrive(tmp_path: Path) -> None:
    place = tmp_path / "what? 50%25"
    runs = [write_study(place / name, 3) for name in ("one", "two")]
    uri = default_uri(runs[0])

    handles = [start_mirror(run, uri, run.name) for run in runs]
    lines = [handle.close(timeout_s=120) for handle in handles]

    assert lines == [None, None]
    for run in runs:
        check_mirror_equals_record(uri, run.name, run)
    assert (place / "mlflow.db").is_file() and [path.name for path in tmp_path.iterdir()] == [place.name]
