"""Sends a record to MLflow from a process of its own, so that no search waits for it or dies with it.

The record is the spool: the mirror reads it from its beginning, and everything that it sends may be sent again. A run
is found by its tags, a metric that is there already (same name, time, step, value) is not added, and a trial whose tag
``state`` is final is complete. So a server may be down, be killed or lose everything, and nothing has to be kept here.
"""

import argparse
import contextlib
import logging
import os
import select
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial, wraps
from pathlib import Path
from typing import Any, Literal, ParamSpec, TypeVar

import yaml
from filelock import FileLock, Timeout

from coatnet_search.core.canonical import digest
from coatnet_search.core.errors import InputError, SetupError
from coatnet_search.core.redact import Redactor
from coatnet_search.core.sqlite_uri import misread_folders, sqlite_file
from coatnet_search.record.fold import read_events, record_path, study_of
from coatnet_search.record.mirror.process import (
    Gone,
    Mirror,
    MirrorProcess,
    Refused,
    Wish,
    command_environment,
    one_line,
    python_module,
    unsent_events,
)
from coatnet_search.record.mirror.uploads import Upload, clean_name, time_ms

__all__ = ["MirrorProcess", "Server", "mirror", "start_mirror"]

SEARCH_TAG, TRIAL_TAG = "coatnet_search.search", "coatnet_search.trial"
_MAX_PARAMS = 100  # in one call; of metrics 1,000 are allowed, but few trials have more than 100 at once
# One call may not hold the mirror for MLflow's default of minutes; the pauses between calls are ours.
_ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
_BROKEN_RULE = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST")
_logger = logging.getLogger(__name__)
P = ParamSpec("P")
R = TypeVar("R")


def _code(error: Exception) -> str:
    """MLflow's name for an error, whether a server or the client found it; empty for other errors."""
    return str(getattr(error, "error_code", ""))


def _meaning(error: Exception) -> Exception:
    """``error`` as Refused, Gone or itself, which then is worth another try."""
    code = _code(error)
    answer = getattr(error, "json", None) or {}
    if isinstance(error, ModuleNotFoundError):
        return Refused(f"{error}; install what the tracking URI needs")
    if code in ("PERMISSION_DENIED", "UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED"):
        return Refused(one_line(error))
    if answer and "error_code" not in answer and str(answer.get("message")).lower() in ("forbidden", "unauthorized"):
        return Refused(one_line(error))  # a gateway's answer, which MLflow takes for an internal error
    if code == "RESOURCE_DOES_NOT_EXIST":
        return Gone(one_line(error))
    return error


def _classify(call: Callable[P, R]) -> Callable[P, R]:
    """The same method, raising Refused and Gone for the errors that mean it."""

    @wraps(call)
    def classified(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return call(*args, **kwargs)
        except Exception as error:
            meaning = _meaning(error)
            if meaning is error:
                raise
            raise meaning from error

    return classified


class Server:
    """One search on one tracking server: its experiment, its parent run and one child run a trial."""

    @_classify
    def __init__(self, run: Path, uri: str, experiment: str, search: str, start_ms: int) -> None:
        from mlflow.tracking import MlflowClient  # noqa: PLC0415 (a second and 100 MB that a driver never pays)

        self.notes: list[str] = []
        self.stale = False
        self._study, self._search, self._run = study_of(run), search, run
        self._artifact_failures = 0
        try:
            with _one_initialiser(uri):
                self._client = MlflowClient(tracking_uri=uri)
                self._experiment = self._find_experiment(uri, experiment)
        except Exception as error:  # a URI or a name that MLflow does not take
            raise Refused(one_line(error)) if _code(error) in _BROKEN_RULE else error from error
        self._children: dict[str, Any] = {}
        self._parent = ""
        self.load()
        if not self._parent:
            self._create_parent(start_ms)

    def _find_experiment(self, uri: str, name: str) -> str:
        found = self._client.get_experiment_by_name(name)
        if found is None:
            try:
                return str(self._client.create_experiment(name, artifact_location=_artifact_location(uri, name)))
            except Exception as error:
                if _code(error) != "RESOURCE_ALREADY_EXISTS":
                    raise
                found = self._client.get_experiment_by_name(name)
        if found.lifecycle_stage != "active":
            raise Refused(_deleted(name))
        return str(found.experiment_id)

    @_classify
    def check_experiment(self) -> None:
        """Raises Refused where somebody has deleted the experiment meanwhile: then nothing is kept of what is sent."""
        found = self._client.get_experiment(self._experiment)
        if found.lifecycle_stage != "active":
            raise Refused(_deleted(found.name))

    @property
    def page(self) -> str:
        """Where MLflow's pages show the search's run, below the server's address."""
        return f"#/experiments/{self._experiment}/runs/{self._parent}"

    def load(self) -> None:
        """Asks which runs of this search there are. A run that was made twice (a lost answer) is thrown away."""
        runs, page = [], None
        while True:
            query = f"tags.`{SEARCH_TAG}` = '{self._search}'"
            found = self._client.search_runs([self._experiment], query, max_results=500, page_token=page)
            runs += list(found)
            page = found.token
            if not page:
                break
        self._children, parents = {}, []
        for run in sorted(runs, key=lambda run: (run.info.start_time, run.info.run_id)):
            identity = run.data.tags.get(TRIAL_TAG)
            if identity is None:
                parents.append(run.info.run_id)
            elif identity in self._children:
                self._client.delete_run(run.info.run_id)
            else:
                self._children[identity] = (run.info.run_id, dict(run.data.tags))
        self._parent = parents[0] if parents else ""
        for extra in parents[1:]:
            self._client.delete_run(extra)
        self.stale = False

    def _create_parent(self, start_ms: int) -> None:
        name = str(self._study.get("name") or self._run.name)
        redactor = Redactor.from_environment()
        tags = {SEARCH_TAG: self._search, "study": name, "role": "search", "record": str(self._run)}
        if self._study.get("question"):
            tags["mlflow.note.content"] = redactor.text(str(self._study["question"]))[:5000]
        self._parent = self._client.create_run(self._experiment, start_ms, tags, run_name=name).info.run_id
        if self._study:
            text = yaml.safe_dump(redactor.value(self._study), sort_keys=False)
            self._artifact(self._parent, text, "study.yaml")

    def complete(self, ended: Mapping[str, str]) -> set[str]:
        """Of the trials that have ended, those of which everything is there: the tag ``state`` is sent last."""
        return {
            identity for identity, (_run_id, tags) in self._children.items()
            if identity in ended and tags.get("state") == ended[identity]
        }  # fmt: skip

    @_classify
    def apply(self, upload: Upload) -> None:
        """Sends one upload; may be called again with the same one after any error."""
        if self.stale:
            self.load()
        try:
            self._apply(upload)
        except Exception as error:  # a run that somebody deleted there, for one
            if _code(error) not in _BROKEN_RULE:
                raise
            self.check_experiment()
            self._note(f"the server refused trial {upload.identity}: {one_line(error)}")

    def _apply(self, upload: Upload) -> None:
        if upload.identity not in self._children:
            self._create_child(upload)
        run_id, tags = self._children[upload.identity]
        self._values(run_id, upload)
        if upload.arch is not None:
            self._artifact(run_id, yaml.safe_dump(dict(upload.arch), sort_keys=False), "arch.yaml")
        if upload.end_ms is not None:
            self._client.set_terminated(run_id, upload.status, upload.end_ms)
        elif upload.status is not None:
            self._client.update_run(run_id, status=upload.status)
        if upload.tags:
            self._send(run_id, tags=upload.tags)  # last: a final state says that all is there
            tags.update(upload.tags)

    def _create_child(self, upload: Upload) -> None:
        tags = {
            SEARCH_TAG: self._search,
            TRIAL_TAG: upload.identity,
            "mlflow.parentRunId": self._parent,
            "role": "trial",
            **{name: value for name, value in upload.tags.items() if name not in ("state", "front")},
        }
        made = self._client.create_run(self._experiment, upload.start_ms, tags, run_name=upload.run_name)
        self._children[upload.identity] = (made.info.run_id, tags)

    def _values(self, run_id: str, upload: Upload) -> None:
        params, points = list(upload.params.items()), upload.points
        for start in range(0, max(len(params), len(points)), _MAX_PARAMS):
            part = params[start : start + _MAX_PARAMS]
            self._send(run_id, params=dict(part), metrics=points[start : start + _MAX_PARAMS])

    def _send(self, run_id: str, **parts: Any) -> None:
        """One ``log_batch``. What breaks a rule of the server is noted and left out: the record still has it."""
        from mlflow.entities import Metric, Param, RunTag  # noqa: PLC0415 (as above)

        parts = {name: part for name, part in parts.items() if part}
        try:
            self._client.log_batch(
                run_id,
                metrics=[Metric(*point) for point in parts.get("metrics", ())],
                params=[Param(*pair) for pair in parts.get("params", {}).items()],
                tags=[RunTag(*pair) for pair in parts.get("tags", {}).items()],
            )
        except Exception as error:
            if _code(error) not in _BROKEN_RULE:
                raise
            if len(parts) == 1:
                self.check_experiment()
                return self._note(f"the server refused {', '.join(parts)} of a trial: {one_line(error)}")
            for name, part in parts.items():
                self._send(run_id, **{name: part})

    def _artifact(self, run_id: str, text: str, name: str) -> None:
        """A file of the run; left out after three failures in a row: a store without keys must not stop metrics."""
        if self._artifact_failures >= 3:
            return
        try:
            self._client.log_text(run_id, text, name)
            self._artifact_failures = 0
        except Exception as error:
            self._artifact_failures += 1
            if self._artifact_failures < 3:
                raise
            self._note(f"no files are stored: {one_line(error)}")

    def _note(self, line: str) -> None:
        if len(self.notes) < 5 and line not in self.notes:
            self.notes.append(line)
            _logger.warning("%s", line)

    @_classify
    def mark_front(self, keys: set[str]) -> None:
        """The tag ``front`` of every trial that has ended well, as far as it is another one now."""
        for run_id, tags in list(self._children.values()):
            wanted = "true" if tags.get("key") in keys else "false"
            if tags.get("state") == "done" and tags.get("front") != wanted:
                self._client.set_tag(run_id, "front", wanted)
                tags["front"] = wanted

    @_classify
    def set_status(self, status: Literal["RUNNING", "FINISHED", "KILLED"]) -> None:
        """The state of the search as a whole."""
        if status == "RUNNING":
            self._client.update_run(self._parent, status=status)
        else:
            self._client.set_terminated(self._parent, status)


def _deleted(name: str) -> str:
    return f"experiment {name!r} is deleted there; restore it or name another one"


def _artifact_location(uri: str, experiment: str) -> str | None:
    """Beside an SQLite file; elsewhere the server decides."""
    file = sqlite_file(uri)
    return (file.resolve().parent / "mlartifacts" / clean_name(experiment).replace("/", "_")).as_uri() if file else None


@contextlib.contextmanager
def _one_initialiser(uri: str) -> Iterator[None]:
    """The first to open an SQLite file makes its tables; two at once would race."""
    file = sqlite_file(uri)
    if file is None:
        yield
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    misread = misread_folders(uri)
    with FileLock(f"{file}.lock", timeout=300):
        yield
    for folder in misread:
        with contextlib.suppress(OSError):  # it was not made, or somebody has put something there
            folder.rmdir()


def _connect(run: Path, uri: str, experiment: str) -> Server:
    first = read_events(run)[0]
    return Server(run, uri, experiment, digest(first, 16), time_ms(first["time"]))


def _mirror_of(run: Path, uri: str, experiment: str) -> Mirror:
    study = str(study_of(run).get("name") or run.name)
    return Mirror(run, uri, study, partial(_connect, run, uri, experiment))


def mirror(run: str | Path, uri: str, experiment: str, patience_s: float = 20.0) -> str:
    """Sends a whole record, in this process; what is there already is not sent again. Returns a line to print.

    Raises InputError without a record, and SetupError where the server refuses or is not there for ``patience_s``.
    """
    folder = Path(run)
    if not record_path(folder).is_file():
        raise InputError(f"{record_path(folder)}: there is no record to mirror")
    before = dict(os.environ)
    os.environ.update({name: value for name, value in _ENVIRONMENT.items() if name not in before})
    road = _mirror_of(folder, uri, experiment)
    try:
        with FileLock(folder / "mirror.lock", timeout=patience_s):
            road.follow(lambda _seconds: "finish", patience_s)
    except Timeout:
        raise SetupError(f"{folder}: another mirror of this record is at work") from None
    finally:
        for name in _ENVIRONMENT.keys() - before.keys():
            os.environ.pop(name, None)
    shown = Redactor.from_environment().text(uri)
    if road.error is not None:
        raise SetupError(f"MLflow at {shown}: {unsent_events(folder, road.sent_offset)} events not sent: {road.error}")
    return f"MLflow at {shown} has all of {folder}"


def start_mirror(run: str | Path, uri: str, experiment: str) -> MirrorProcess:
    """Starts a process that mirrors RUN's record while it grows; returns at once and raises nothing.

    It ends after ``close`` or when this process is gone. The URI travels in the environment, which others cannot list.
    """
    command = python_module(
        "coatnet_search.record.mirror.mlflow", Path(run), "--experiment", experiment, "--follow", os.getpid()
    )
    environment = command_environment(_ENVIRONMENT) | {"MLFLOW_TRACKING_URI": uri}
    return MirrorProcess(Path(run), uri, command, environment)


def _wait(driver: int, seconds: float) -> Wish:
    """Sleeps until the driver closes our input, at most ``seconds``; the parent of an orphan is another process."""
    closed = bool(select.select([sys.stdin], [], [], seconds)[0])
    if os.getppid() != driver:
        return "orphan"
    return "finish" if closed else "go on"


def _follow(run: Path, uri: str, experiment: str, driver: int) -> None:
    """The mirror's process: waits for the mirror of an earlier driver to end, then follows the record."""
    os.nice(10)
    lock = FileLock(run / "mirror.lock")
    while True:
        with contextlib.suppress(Timeout):
            lock.acquire(timeout=0)
            break
        if _wait(driver, 1.0) == "orphan":
            return
        time.sleep(0.1)  # a closed input no longer sleeps
    _mirror_of(run, uri, experiment).follow(partial(_wait, driver))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m coatnet_search.record.mirror.mlflow", description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--uri", default=os.environ.get("MLFLOW_TRACKING_URI"))
    parser.add_argument("--experiment", required=True)
    parser.add_argument("--follow", type=int, metavar="PID", required=True, help="the driver, which is our parent")
    given = parser.parse_args()
    _follow(given.run, given.uri, given.experiment, given.follow)


if __name__ == "__main__":
    main()
