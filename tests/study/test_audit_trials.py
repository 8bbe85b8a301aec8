"""What an audit runs: equal numbers by layout and cost, a function of the record, kept apart from the search."""

import dataclasses
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from coatnet_search.analysis.audit import NUM_BANDS
from coatnet_search.architecture.arch import Arch
from coatnet_search.core.document import dump
from coatnet_search.core.errors import InputError
from coatnet_search.record.fold import Record, fold, read_events, read_record, read_trials
from coatnet_search.record.trial import AUDIT, DRAWN, Failure, Trial
from coatnet_search.search.session import Session
from coatnet_search.search.task import Report, Task
from coatnet_search.study.audit_trials import AuditPlan, check_audit
from coatnet_search.study.load import load_study
from coatnet_search.study.run_folder import differences
from coatnet_search.study.study import Study

STUDY: dict[str, Any] = {
    "question": "?", "space": "digits", "data": {"name": "digits", "val_fraction": 0.2}, "evaluate": "inherited",
    "supernet": {"epochs": 1}, "recipe": {"name": "digits"}, "objectives": {"error": "min", "macs": "min"},
    "measure": [], "search": {"strategy": "random", "trials": 60, "seed": 3},
    "audit": {"candidates": 24, "seeds": 2, "epochs": 2, "num_images": 500}, "tracking": {"enabled": False},
}  # fmt: skip


def study_of(folder: Path, **changes: Any) -> Study:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "s.yaml").write_text(yaml.safe_dump({**STUDY, **changes}, sort_keys=False))
    return load_study(folder / "s.yaml").with_data()


def answer(task: Task) -> Report:
    """Made-up scores that follow from the network, the budget and the seed."""
    rng = np.random.default_rng([int(task.arch.id, 16), task.budget.epochs, task.budget.seed])
    error = float(rng.uniform(0.1, 0.5))
    metrics = {"error": error, "val_top1": 1 - error, "val_loss": 2 * error}
    return Report(metrics=metrics, state="done", device="cpu", timings={"wall_s": 2.0})


def drive(study: Study, run: Path, most: int = 10_000) -> Session:
    """Runs a study with made-up scores, at most so many trials; goes on with what is there."""
    run.mkdir(parents=True, exist_ok=True)
    with Record(run) as record:
        session = Session(study, run, record, fold(read_events(run)), [])
        while most and (task := session.next()):
            session.take(task, answer(task))
            most -= 1
    return session


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, Path]:
    folder = tmp_path_factory.mktemp("audit")
    study = study_of(folder)
    session = drive(study, folder / "run")
    assert session.complete and session.wanted == len(session.finished)
    return study, folder / "run"


def alone(trials: list[Trial]) -> list[Trial]:
    return [trial for trial in trials if AUDIT in trial.attributes]


def test_networks_are_audited_in_equal_numbers_of_layouts_and_bands(ran: tuple[Study, Path]) -> None:
    study, run = ran
    trials = read_trials(run)

    picks = AuditPlan(study).picks(trials)

    assert len(picks) == 24 and {pick.number is None for pick in picks} == {False}
    assert set(Counter(pick.place for pick in picks).values()) == {2}  # 4 layouts, 3 bands
    assert len({pick.place for pick in picks}) == 4 * NUM_BANDS


def test_every_network_is_trained_alone_with_two_seeds_after_the_search(ran: tuple[Study, Path]) -> None:
    study, run = ran

    frame = read_record(run)
    rows = frame[[AUDIT in one for one in frame["attributes"]]]

    assert len(rows) == 48 and set(rows["origin"]) == {"audit"} and frame["key"].is_unique
    assert set(zip(rows["epochs"], rows["num_images"], strict=True)) == {(2, 500)}
    assert sorted(rows["seed"]) == [3] * 24 + [4] * 24 and list(rows["seed"]) == sorted(rows["seed"])
    assert rows["number"].min() > frame[frame["origin"] == "random"]["number"].max()
    archs = frame.set_index("number")["arch_id"]
    assert all(archs[one["of"]] == arch for one, arch in zip(rows["attributes"], rows["arch_id"], strict=True))
    assert rows["key"].iloc[0] == study.audit_key(Arch.from_dict(rows["arch"].iloc[0]), study.audit_budget())


def test_within_a_cell_networks_are_spread_over_their_inherited_scores(tmp_path: Path) -> None:
    study = study_of(tmp_path, search={"strategy": "random", "trials": 240, "seed": 0},
                     audit={**STUDY["audit"], "candidates": 48})  # fmt: skip
    session = drive(study, tmp_path / "run", most=240)
    trials = [session.trials[number] for number in sorted(session.trials)]

    picks = [pick for pick in AuditPlan(study).picks(trials) if pick.number is not None]

    places = {trial.number: place for place, trial in
              enumerate(sorted(trials, key=lambda trial: trial.metrics["error"] or 0))}  # fmt: skip
    picked = np.array([places[pick.number] for pick in picks]) / len(trials)
    assert len(picks) >= 40 and np.histogram(picked, bins=4, range=(0, 1))[0].min() >= 0.12 * len(picks)


def test_a_cell_that_the_search_left_empty_gets_random_networks_scored_first(tmp_path: Path) -> None:
    few = {"strategy": "random", "trials": 12, "seed": 0}
    study = study_of(tmp_path, search=few)

    session = drive(study, tmp_path / "run")

    trials = [session.trials[number] for number in sorted(session.trials)]
    drawn = [trial for trial in trials if DRAWN in trial.attributes]
    assert session.complete and len(drawn) >= 8 and len(session.candidates) == 12
    assert {trial.budget.epochs for trial in drawn} == {0} and all(
        trial.number < alone(trials)[0].number for trial in drawn
    )
    assert set(Counter(pick.place for pick in AuditPlan(study).picks(trials)).values()) == {2}


def test_a_drawn_network_that_fails_is_replaced(tmp_path: Path) -> None:
    study = study_of(tmp_path, search={"strategy": "random", "trials": 12, "seed": 0})
    drive(study, tmp_path / "run", most=12)
    with Record(tmp_path / "run") as record:
        session = Session(study, tmp_path / "run", record, read_trials(tmp_path / "run"), [])
        first = session.next()
        session.take(first, Report(metrics={}, state="failed", failure=Failure(kind="nan", message="epoch 1")))

        after = session.next()

    assert DRAWN in session.trials[first.number].attributes
    assert DRAWN in session.trials[after.number].attributes and after.arch.id != first.arch.id
    assert all(pick.arch.id != first.arch.id for pick in AuditPlan(study).picks(list(session.trials.values())))


@pytest.mark.parametrize("stop", [30, 61, 75, 107])
def test_an_interrupted_audit_goes_on_to_the_same_record(ran: tuple[Study, Path], tmp_path: Path, stop: int) -> None:
    study, run = ran

    drive(study, tmp_path / "run", most=stop)
    drive(study, tmp_path / "run")

    names = ["number", "key", "arch_id", "seed", "epochs", "error", "attributes"]
    first, again = (read_record(folder)[names] for folder in (run, tmp_path / "run"))
    assert first.equals(again)


def test_a_larger_audit_keeps_what_is_audited_and_adds_to_it(ran: tuple[Study, Path], tmp_path: Path) -> None:
    _, run = ran
    small = {trial.arch.id for trial in alone(read_trials(run))}
    drive(study_of(tmp_path), tmp_path / "run")

    session = drive(study_of(tmp_path, audit={**STUDY["audit"], "candidates": 36, "seeds": 3}), tmp_path / "run")

    trials = list(session.trials.values())
    seeds = Counter(trial.arch.id for trial in alone(trials))
    assert session.complete and small <= set(seeds) and len(seeds) == 36 and set(seeds.values()) == {3}


def test_the_strategy_never_sees_a_training_alone(ran: tuple[Study, Path]) -> None:
    study, run = ran
    with Record(run) as record:
        session = Session(study, run, record, read_trials(run), [])

    assert len(session.candidates) == 60 and not alone(session.candidates)
    assert {trial.budget.epochs for trial in session.candidates} == {0}


def test_trainings_of_other_records_count_and_are_not_repeated(ran: tuple[Study, Path], tmp_path: Path) -> None:
    study, run = ran
    other = tmp_path / "bench"
    bench = {**study.values(), "evaluate": "trained", "supernet": None, "audit": None, "name": "bench"}
    bench["recipe"] = {**bench["recipe"], "epochs": 2}
    other.mkdir()
    (other / "study.yaml").write_text(dump(bench))
    theirs = alone(read_trials(run))[:20]
    with Record(other) as record:
        for number, trial in enumerate(theirs):
            values = {"number": number, "key": f"other{number}", "candidate": trial.candidate,
                      "arch": trial.arch.to_dict(), "arch_id": trial.arch.id, "layout": trial.arch.layout,
                      "budget": dataclasses.asdict(trial.budget), "metrics": dict(trial.metrics)}  # fmt: skip
            record.append({"event": "started", **values, "attributes": {}, "origin": "grid"})
            record.append({"event": "terminal", **values, "state": "done", "device": "gpu", "timings": {"wall_s": 9.0}})

    again = study_of(tmp_path, audit={**STUDY["audit"], "records": [str(other)]})
    session = drive(again, tmp_path / "run")

    copied = [trial for trial in session.trials.values() if "elsewhere" in trial.attributes]
    trained = [trial for trial in alone(list(session.trials.values())) if trial not in copied]
    assert session.complete and len(copied) == 20 and len(trained) == 28
    assert {(one.arch.id, one.budget.seed) for one in copied} == {(one.arch.id, one.budget.seed) for one in theirs}
    assert {one.device for one in copied} == {"gpu"} and all(one.metrics["error"] for one in copied)


def test_records_that_do_not_count_and_impossible_audits_are_refused(tmp_path: Path) -> None:
    elsewhere = study_of(tmp_path, audit={**STUDY["audit"], "records": [str(tmp_path / "none")]})
    many = study_of(tmp_path, audit={**STUDY["audit"], "num_images": 100_000})
    costs = study_of(tmp_path, objectives={"macs": "min"})

    with pytest.raises(InputError, match=r"audit.records: .*none: there is no record"):
        check_audit(elsewhere)
    with pytest.raises(InputError, match=r"audit.num_images: expected 10 to 1,43"):
        check_audit(many)
    with pytest.raises(InputError, match="audit: no objective tells how good"):
        check_audit(costs)


@pytest.mark.parametrize(("changes", "message"), [
    ({"evaluate": "trained", "supernet": None}, "an audit is of inherited scores"),
    ({"audit": {"candidates": 4}}, "audit.candidates: expected a number of at least 10"),
    ({"audit": {"seeds": 1}}, "audit.seeds: expected a number of at least 2"),
    ({"audit": {"recipe": {"epochs": 3}}}, "an audit has epochs of its own"),
    ({"audit": {"recipe": {"lr": "fast"}}}, "audit.recipe.lr"),
])  # fmt: skip
def test_mistakes_in_the_study_file_are_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    (tmp_path / "s.yaml").write_text(yaml.safe_dump({**STUDY, **changes}, sort_keys=False))

    with pytest.raises(InputError, match=message):
        load_study(tmp_path / "s.yaml")


def test_what_an_audit_trains_may_not_change_but_its_size_may(tmp_path: Path) -> None:
    before = study_of(tmp_path).values()
    larger = study_of(tmp_path, audit={**STUDY["audit"], "candidates": 48, "seeds": 3}).values()
    longer = study_of(tmp_path, audit={**STUDY["audit"], "epochs": 5}).values()
    without = study_of(tmp_path, audit=None).values()

    assert list(differences(before, larger)) == [] == list(differences(without, before))
    assert list(differences(before, longer)) == ["audit.epochs: 2 -> 5"]
