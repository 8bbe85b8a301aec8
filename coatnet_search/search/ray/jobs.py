"""Hands a study to a Ray cluster as a job: files go along, its lines come back, its exit code is ours."""

import asyncio
import contextlib
import os
import shlex
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ray.exceptions import AuthenticationError, RayError
from ray.job_submission import JobStatus, JobSubmissionClient

from coatnet_search.core.errors import EXIT_DONE, EXIT_ENVIRONMENT, InputError, SetupError
from coatnet_search.search.job_files import JobFiles
from coatnet_search.study.load import study_files

DEFAULT_ADDRESS = "http://127.0.0.1:8265"
PATIENCE_S = 60.0  # with a cluster that has only just started: its nodes' agents come after the job server


def submit(study: str, words: Sequence[str], address: str, *, along: JobFiles | None, env: Sequence[str],
           follow: bool, show: Callable[[str], None]) -> tuple[str, int]:  # fmt: skip
    """Submits ``run STUDY WORDS`` to the cluster whose job server is at ``address``; (the job's id, its exit code).

    The job's working directory holds the study's files, and those ``along`` (where a trainer of the user's lies).
    ``env``: names of variables of this environment that the job gets. With ``follow`` its lines go to ``show`` until it
    ends. Raises InputError for a variable that is not set, SetupError where no job server answers.
    """
    missing = [name for name in env if name not in os.environ]
    if missing:
        raise InputError(f"--env {missing[0]}: this variable is not set here")
    files = study_files(study)
    name = files[0].name if files else study
    entry = ["python", "-m", "coatnet_search", "run", name, "--address", "auto", *words]
    client = _client(address)
    with tempfile.TemporaryDirectory(prefix="coatnet-search-job-") as place:
        inner = Path(place) / "job"
        inner.mkdir()
        if along:
            along.copy(inner)
        for file in files:
            shutil.copyfile(file, inner / file.name)
        with _named(address):
            job = _accepted(client, entrypoint=shlex.join(entry), metadata={"study": Path(name).stem},
                            runtime_env={"working_dir": str(inner),
                                         "env_vars": {name: os.environ[name] for name in env}})  # fmt: skip
    if not follow:
        return job, EXIT_DONE
    with _named(address):
        asyncio.run(_follow(client, job, show))
        return job, _exit_code(client, job)


def _accepted(client: JobSubmissionClient, **job: Any) -> str:
    """The id of the job, once a node can take it."""
    end = time.monotonic() + PATIENCE_S
    while True:
        try:
            return client.submit_job(**job)
        except RuntimeError as error:
            if "No available agent" not in str(error) or time.monotonic() > end:
                raise
        time.sleep(1.0)


def _client(address: str) -> JobSubmissionClient:
    if not address.startswith(("http://", "https://")):  # Ray would take it for its other port, and wait there
        raise InputError(f"--address {address}: expected the address of the head node's dashboard, as http://HOST:8265")
    with _named(address):
        return JobSubmissionClient(address)


class _named(contextlib.AbstractContextManager[None]):
    """What a job server raises that does not want to, or is not there, as one line."""

    def __init__(self, address: str) -> None:
        self._address = address

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, AuthenticationError):
            raise SetupError(
                f"the job server of Ray at {self._address} asks for the cluster's token: export RAY_AUTH_MODE=token "
                "here too, with the token in ~/.ray/auth_token (SECURITY.md)"
            ) from None
        first = (str(error).splitlines() or [type(error).__name__])[0]
        if isinstance(error, (RuntimeError, RayError)) and not isinstance(error, SetupError):
            raise SetupError(f"the job server of Ray at {self._address}: {first[:300]}") from None
        if isinstance(error, OSError):
            raise SetupError(f"no job server of Ray at {self._address}: {first}; it is the dashboard's address of the "
                             "head node, as http://HOST:8265, and needs ray[default] there") from None  # fmt: skip


async def _follow(client: JobSubmissionClient, job: str, show: Callable[[str], None]) -> None:
    rest = ""
    async for part in client.tail_job_logs(job):
        *lines, rest = (rest + part).split("\n")
        for line in lines:
            show(line)
    if rest:
        show(rest)


def _exit_code(client: JobSubmissionClient, job: str) -> int:
    info = client.get_job_info(job)
    if info.status == JobStatus.SUCCEEDED:
        return EXIT_DONE
    code = info.driver_exit_code
    if code in (None, 1) and info.message:
        raise SetupError(f"job {job} {str(info.status).lower()}: {' '.join(str(info.message).split())[:300]}")
    return EXIT_ENVIRONMENT if code is None else int(code)
