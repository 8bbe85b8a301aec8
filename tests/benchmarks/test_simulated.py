"""A whole search under hundreds of workers in seconds: the session, halving and strategies on a simulated clock."""

import dataclasses
from collections import Counter

import pytest

from benchmarks.simulated_clock import replay
from coatnet_search.record.fold import Record, fold, read_events, read_trials
from coatnet_search.search.session import Session
from coatnet_search.search.task import Report
from coatnet_search.study.load import load_study
from coatnet_search.study.planned_trials import planned

SETS = ("search.strategy=random", "measure=[]", "recipe.epochs=9", "tracking.enabled=false", "search.trials=54")
HALVING = "search.halving={first: 1, factor: 3}"


@pytest.fixture(scope="module")
def study():
    return load_study("quickstart", [*SETS, HALVING]).with_data()


def work(task):
    """An epoch takes as long as the network is large; attention learns late; a few trials fail."""
    chance = int(task.arch.id[:6], 16) / 0xFFFFFF
    if chance > 0.95:
        return 0.1, [Report(metrics={}, state="failed")]
    late = 0.6 if task.arch.layout.endswith("T") else 0.1
    last = task.until or task.budget.epochs
    first = last // 3 if task.measured else 0
    losses = [0.2 + chance / 4 + late * (1 - epoch / 9) + 1 / (1 + epoch) for epoch in range(first + 1, last + 1)]
    seconds = (last - first) * (1.0 + 5 * chance)
    end = Report(
        metrics={"val_loss": losses[-1]}, state="paused" if task.until else "done", timings={"wall_s": seconds}
    )
    return seconds, [*(Report(metrics={"epoch": first + n, "val_loss": loss}) for n, loss in enumerate(losses, 1)), end]


def run(study, folder, workers):
    with Record(folder) as record:
        session = Session(study, folder, record, fold(read_events(folder)), planned(study))
        found = replay(session, work, workers)
        assert session.complete
    return found, read_trials(folder)


@pytest.fixture(scope="module")
def replays(study, tmp_path_factory):
    return {workers: run(study, tmp_path_factory.mktemp("run"), workers) for workers in (1, 8, 256)}


@pytest.mark.parametrize("workers", [1, 8, 256])
def test_halving_keeps_its_promises_under_any_number_of_workers(replays, workers):
    _, trials = replays[workers]

    states = Counter(trial.state for trial in trials)
    reached = [sum(len(trial.curve) >= epochs for trial in trials) for epochs in (1, 3, 9)]
    assert len(trials) == 54 == len({trial.key for trial in trials}) and set(states) <= {"done", "stopped", "failed"}
    assert reached[0] == 54 - states["failed"] and reached[2] == states["done"]
    assert reached[0] // 3 <= reached[1] <= reached[0] * 0.7 and reached[1] // 3 <= reached[2] <= reached[1] * 0.8
    full = {trial.label for trial in trials if trial.state == "done"}
    assert full == {trial.label for trial in trials if trial.curve}, "a place is kept for each layout"


def test_more_workers_end_sooner_and_are_kept_busy(replays):
    alone, some, many = (replays[workers][0] for workers in (1, 8, 256))

    assert alone.seconds > 5 * some.seconds > 5 * many.seconds
    assert alone.busy == pytest.approx(1.0) and some.busy > 0.7


def test_half_of_the_epochs_find_nearly_the_best_of_full_training(study, replays, tmp_path):
    file = dataclasses.replace(study.file, search=dataclasses.replace(study.file.search, halving=None))
    full = dataclasses.replace(study, file=file)

    _, halved = replays[8]
    _, whole = run(full, tmp_path, 8)

    best = [min(trial.metrics["val_loss"] for trial in trials if trial.state == "done") for trials in (halved, whole)]
    epochs = [sum(len(trial.curve) for trial in trials) for trials in (halved, whole)]
    assert best[0] <= best[1] + 0.02 and epochs[0] < 0.5 * epochs[1]
