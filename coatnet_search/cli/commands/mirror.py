"""``mirror RUN``: a whole record to MLflow; what is there already is not sent again."""

import argparse

from coatnet_search.cli.commands.records import run_record
from coatnet_search.core.screen import Screen
from coatnet_search.record.mirror.mlflow import mirror
from coatnet_search.record.mirror.process import default_uri


def main(given: argparse.Namespace) -> int:
    screen = Screen()
    _, study = run_record(given.run)
    tracking = study.get("tracking") or {}
    uri = given.uri or tracking.get("uri") or default_uri(given.run)
    experiment = given.experiment or tracking.get("experiment") or study.get("name") or given.run.name
    screen.say(mirror(given.run, uri, experiment))
    return 0
