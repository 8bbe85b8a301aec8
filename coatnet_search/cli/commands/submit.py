"""``submit STUDY``: the same as ``run``, as a job on a Ray cluster."""

import argparse
from pathlib import Path

from coatnet_search.cli.commands.shared import checked_study
from coatnet_search.core.errors import InputError
from coatnet_search.core.screen import Screen
from coatnet_search.search.job_files import job_files
from coatnet_search.search.ray.jobs import submit


def main(given: argparse.Namespace) -> int:
    screen = Screen(given.json, given.results)
    if not given.runs.is_absolute():
        raise InputError(f"--runs {given.runs}: a job starts in a folder of its own; give an absolute path")
    study = checked_study(given)  # a mistake is found here, before anything is sent
    words = ["--set", *given.sets] if given.sets else []
    words += ["--evaluator", given.evaluator] if given.evaluator else []
    for name in ("workers", "minutes"):
        value = getattr(given, name)
        words += [f"--{name}", f"{value:g}"] if value is not None else []
    words += ["--runs", str(given.runs)]
    along = job_files(Path.cwd()) if given.evaluator else None
    if along:
        screen.note(str(along))
    job, code = submit(given.study, words, given.address, along=along, env=given.env, follow=not given.no_wait,
                       show=screen.say)  # fmt: skip
    screen.note(f"job {job}; its record is {given.runs}/{study.name} on the cluster; `ray job stop {job} --address "
                f"{given.address}` ends it, and the same command goes on")  # fmt: skip
    screen.result({"job": job, "exit_code": code, "run": given.runs / study.name})
    return code
