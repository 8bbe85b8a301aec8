"""When a search ends early, and which candidates are trained again: rules, the end line, resuming, noise."""

import json

import numpy as np
import pandas as pd
import pytest
from command_line import call

from coatnet_search.analysis.frame import complete
from coatnet_search.analysis.front_noise import hypervolume, near_front, on_front
from coatnet_search.analysis.insights import growth
from coatnet_search.core.errors import InputError
from coatnet_search.record.fold import hours_of, read_record
from coatnet_search.record.trial import Trial
from coatnet_search.search import session
from coatnet_search.search.run import run
from coatnet_search.search.stop_rules import device_hours, little_to_gain, observed_gain, spent
from coatnet_search.strategies.problem import Suggestion
from coatnet_search.study.load import load_study
from coatnet_search.study.sections import Resources, StopSpec

SMALL = ("search.strategy=random", "measure=[]", "recipe.epochs=2", "tracking.enabled=false")
BOTH = {"error": "min", "macs": "min"}


def study(*more, trials=6, trainer="good"):
    return load_study("quickstart", [*SMALL, f"search.trials={trials}", *more], f"trainers:{trainer}")


def trial(number, error=0.5, macs=1.0, **more):
    return Trial({"n": number}, {"error": error, "macs": macs}, "done", number=number, **more)


def test_device_hours_count_the_part_of_a_device_that_a_trial_asks_for():
    trials = [trial(0, timings={"wall_s": 1800.0}), trial(1, timings={"wall_s": 5400.0}), trial(2)]

    assert device_hours(trials, Resources(cpus=1)) == 2.0
    assert device_hours(trials, Resources(gpus=0.25)) == 0.5
    assert "2 device-hours are used" in spent(StopSpec(device_hours=1.5), trials, Resources(), 0.0)
    assert spent(StopSpec(device_hours=2.5, wall_hours=3), trials, Resources(), 2.9) is None
    assert "ran for 3 hours" in spent(StopSpec(wall_hours=3), trials, Resources(), 3.0)


def test_hours_of_sessions_leave_out_the_time_between_them():
    moments = [("session", "00:00"), ("started", "01:00"), ("terminal", "01:30"), ("session", "09:00"),
               ("terminal", "09:30")]  # fmt: skip

    assert hours_of([{"event": kind, "time": f"2026-01-01T{at}:00Z"} for kind, at in moments]) == 2.0
    assert hours_of([]) == 0.0


def test_what_the_strategy_expects_decides_and_else_what_was_seen():
    expecting = [trial(n, attributes={"expected_gain": 0.1 if n < 3 else 0.001}) for n in range(8)]
    growing = [trial(n, error=1 - n / 30, macs=1.0 + n) for n in range(30)]
    flat = [trial(n, error=0.5 if n else 0.1, macs=2.0 if n else 1.0) for n in range(30)]

    assert little_to_gain(0.01, expecting, BOTH) and little_to_gain(0.01, expecting[:7], BOTH) is None
    assert little_to_gain(0.001, growing, BOTH) is None
    assert observed_gain(flat, BOTH) == 0.0 and little_to_gain(0.001, flat, BOTH)
    assert observed_gain(flat[:19], BOTH) is None and little_to_gain(None, flat, BOTH) is None


def test_a_rule_ends_a_search_says_so_and_may_change_on_resume(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["run", "quickstart", "--local", "--evaluator", "trainers:slow", "--set", *SMALL, "search.trials=4"]

    early = call(capsys, *words, "stop.device_hours=1.0e-5")
    again = call(capsys, *words, "stop.device_hours=1.0e-5")
    more = call(capsys, *words)

    assert early.code == again.code == more.code == 0
    assert "1 trial finished; ended early:" in early.out and "stop.device_hours is 1e-05" in early.out
    assert len(read_record("runs/quickstart")) == 4 and "ended early" not in more.out


def test_little_to_gain_ends_a_predictors_search(tmp_path):
    outcome = run(study("search.strategy=predictor", "stop.hypervolume_gain=0.5", trials=30), local=True, runs=tmp_path)

    frame = read_record(outcome.run)
    gains = [one["expected_gain"] for one in frame["attributes"] if "expected_gain" in one]
    assert outcome.complete and "expected to gain" in outcome.ended_early
    assert len(frame) == 8 + 5 == 8 + len(gains) and max(gains) < 0.5


def test_gains_and_fronts_are_not_asked_of_scaling_studies():
    with pytest.raises(InputError, match="no front to grow"):
        study("equal_cost={macs: 1.0e+5}", "stop.hypervolume_gain=0.1", "search={}")


def test_the_probability_of_being_on_the_front_follows_the_noise():
    means, rng = np.array([[0.5, 1.0], [0.5, 1.0], [0.9, 2.0], [0.4, 3.0]]), np.random.default_rng(0)
    draws = np.repeat(means[None], 1000, axis=0)
    noisy = draws.copy()
    noisy[:, :2, 0] += 0.1 * rng.standard_normal((1000, 2))

    chances = on_front(noisy)
    value, low, high = hypervolume(noisy)

    assert chances[:2] == pytest.approx([0.5, 0.5], abs=0.05)
    assert chances[2] == pytest.approx(0.0, abs=0.01) and chances[3] > 0.6
    assert low < value < high
    assert hypervolume(draws) == (pytest.approx(0.8347, abs=1e-4),) * 3


def test_near_the_front_are_those_that_noise_may_have_kept_off_it():
    values = {"front": [0.50, 0.52, 0.51], "close": [0.515], "far": [0.9]}
    rows = pd.DataFrame(
        [{"arch_id": name, "error": error, "macs": 1.0} for name, own in values.items() for error in own]
    )
    rows = complete(rows.assign(number=range(5), state="done", layout="C"))

    assert near_front(rows, BOTH, 0.1) == {0: True, 1: True, 2: True, 3: True, 4: False}
    alone = rows[rows["number"].isin([0, 3, 4])].reset_index(drop=True)
    assert near_front(alone, BOTH, 0.1) == {0: True, 3: False, 4: False}, "no network was trained twice yet"


def test_a_random_baseline_is_drawn_after_the_search_and_never_seen_by_it(tmp_path):
    plain = run(study("search.strategy=tpe", trials=6), local=True, runs=tmp_path / "plain")
    beside = run(study("search.strategy=tpe", "search.baseline=4", trials=6), local=True, runs=tmp_path)
    more = run(study("search.strategy=tpe", "search.baseline=4", trials=9), local=True, runs=tmp_path)

    frame = read_record(more.run)
    assert (beside.finished, beside.wanted, more.finished, more.wanted) == (10, 10, 13, 13)
    assert list(frame["origin"]) == ["tpe"] * 6 + ["baseline"] * 4 + ["tpe"] * 3
    assert frame["key"].is_unique
    assert list(read_record(plain.run)["key"]) == list(frame["key"][:6])


def test_a_baseline_that_draws_what_was_trained_repeats_it_at_no_cost(tmp_path, monkeypatch):
    searched = run(study("search.strategy=tpe", trials=6), local=True, runs=tmp_path / "first")
    first = read_record(searched.run)

    class Again:
        def suggest(self, problem, trials, rng, count):
            return [Suggestion(first["candidate"][2])]

    real = session.make_strategy
    monkeypatch.setattr(session, "make_strategy", lambda name, **more: Again() if name == "random" else real(name))
    beside = run(study("search.strategy=tpe", "search.baseline=2", trials=6), local=True, runs=tmp_path)

    frame = read_record(beside.run)
    again = frame[frame["origin"] == "baseline"]
    assert beside.complete and len(again) == 2 and again["wall_s"].isna().all() and frame["key"].is_unique
    assert (again["error"] == frame["error"][2]).all() and [one["repeats"] for one in again["attributes"]] == [2, 2]
    rows = growth(frame, BOTH)
    assert len(rows[rows["origin"] == "baseline"]) == 2 and len(rows[rows["origin"] == "search"]) == 6
    assert rows[rows["origin"] == "baseline"]["device_hours"].max() == 0


def test_only_candidates_near_the_front_are_trained_again(tmp_path):
    outcome = run(study("replicates=3", trials=8), local=True, runs=tmp_path)
    every = run(study("replicates=2", "near_front=0", trials=8), local=True, runs=tmp_path / "all")

    frame = read_record(outcome.run)
    again = frame[frame["origin"] == "replicate"]
    assert outcome.complete and 2 <= len(again) < 16 and len(again) % 2 == 0
    assert set(again["seed"]) == {1, 2} and outcome.wanted == outcome.finished == len(frame)
    assert every.finished == 16
    assert json.dumps(frame["attributes"].tolist())
