"""Trials that share a GPU: one that runs out of memory there is tried again alone before that is held against it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from quickstarts import study

from coatnet_search.record.fold import Record, read_events
from coatnet_search.record.trial import Failure
from coatnet_search.search.session import Session
from coatnet_search.search.task import Report

FULL = Report(metrics={}, state="failed", failure=Failure(kind="out_of_memory", message="64 images do not fit"))
OTHER = Report(metrics={}, state="failed", failure=Failure(kind="nan", message="the loss is nan"))


@pytest.fixture
def record(tmp_path: Path) -> Iterator[Record]:
    with Record(tmp_path) as opened:
        yield opened


def a_session(tmp_path: Path, record: Record, gpus: float) -> Session:
    return Session(study(6, None, f"resources.gpus={gpus}"), tmp_path, record, [], [])


def test_it_waits_for_the_others_and_then_runs_alone(tmp_path: Path, record: Record) -> None:
    session = a_session(tmp_path, record, 0.5)
    first, second = session.next(), session.next()
    assert first and second

    session.take(first, FULL)

    assert session.trials[first.number].state == "running"
    assert session.next() is None
    session.take(second, OTHER)
    again = session.next()
    assert again and (again.number, again.alone, again.key) == (first.number, True, first.key)
    assert session.next() is None
    session.take(again, OTHER)
    following = session.next()
    assert following and not following.alone


def test_what_it_did_beside_others_is_not_held_against_its_network(tmp_path: Path, record: Record) -> None:
    session = a_session(tmp_path, record, 0.5)
    first = session.next()
    assert first

    session.take(first, FULL)

    assert session.finished == []
    assert [event["event"] for event in read_events(tmp_path)][-1] == "interrupted"


def test_out_of_memory_alone_is_the_trials_result(tmp_path: Path, record: Record) -> None:
    session = a_session(tmp_path, record, 0.5)
    first = session.next()
    assert first
    session.take(first, FULL)
    again = session.next()
    assert again

    session.take(again, FULL)

    assert [trial.failure.kind for trial in session.finished if trial.failure] == ["out_of_memory"]


@pytest.mark.parametrize("gpus", [0, 1])
def test_on_a_device_of_its_own_nothing_is_tried_again(tmp_path: Path, record: Record, gpus: float) -> None:
    session = a_session(tmp_path, record, gpus)
    first = session.next()
    assert first

    session.take(first, FULL)

    assert session.trials[first.number].state == "failed"
