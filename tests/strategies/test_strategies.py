"""The contract that every strategy keeps, parametrised over the menu; what single strategies know; that they work."""

import dataclasses
import json
import time
import warnings
from typing import ClassVar

import numpy as np
import optuna
import pytest

from coatnet_search import strategies
from coatnet_search.core.errors import InputError
from coatnet_search.record.trial import Failure, Trial
from coatnet_search.strategies import STRATEGIES, Problem, Suggestion, make_strategy
from coatnet_search.strategies.problem import look_back
from coatnet_search.study.load import load_study
from coatnet_search.training.budget import Budget

NAMES = sorted(STRATEGIES)
STAGES = ("s1", "s2", "s3", "s4")


def stage_choices():
    choices = {}
    for stage in STAGES:
        choices |= {f"{stage}.block": ("C", "T"), f"{stage}.depth": (1, 2, 3), f"{stage}.width": (16, 32, 48)}
        choices |= {f"{stage}.kernel": (3, 5)}
    return choices


def canonical(candidate):
    """A kernel size means nothing where the stage is attention."""
    unused = {f"{stage}.kernel": 3 for stage in STAGES if candidate[f"{stage}.block"] == "T"}
    return {**candidate, **unused}


def problems(candidate):
    blocks = "".join(candidate[f"{stage}.block"] for stage in STAGES)
    return ["attention before convolution"] if "TC" in blocks else []


def macs(candidate):
    return {"macs": float(sum(candidate[f"{s}.depth"] * candidate[f"{s}.width"] ** 2 for s in STAGES))}


def stage_problem(**changes):
    parts = {"choices": stage_choices(), "objectives": {"error": "min", "macs": "min"}, "exact": macs,
             "problems": problems, "canonical": canonical, "limits": {"macs": [1000, 12_000]}}  # fmt: skip
    return Problem(**{**parts, **changes})


def error(candidate, rng):
    attention = sum(candidate[f"{stage}.block"] == "T" for stage in STAGES)
    return 0.5 - 0.04 * np.log(macs(candidate)["macs"]) + 0.02 * abs(attention - 2) + 0.001 * rng.normal()


def trials(problem, count, *, state="done", seed=0):
    """A history of random candidates, with everything else that a study would write."""
    rng = np.random.default_rng(seed)
    found = make_strategy("random").suggest(problem, [], rng, count)
    return [finished(suggestion, rng, number, state) for number, suggestion in enumerate(found)]


def finished(suggestion, rng, number=0, state="done"):
    metrics = {"error": error(suggestion, rng), **macs(suggestion)} if state == "done" else {}
    return Trial(dict(suggestion), metrics, state, number, attributes=suggestion.attributes)


def stored(trial):
    """The trial as a record's text gives it back."""
    fields = {name: getattr(trial, name) for name in ("candidate", "metrics", "attributes")}
    return dataclasses.replace(trial, **json.loads(json.dumps(fields)))


def suggest(name, problem, history, count, seed=0, **options):
    return make_strategy(name, **options).suggest(problem, history, np.random.default_rng(seed), count)


def keys(candidates):
    return [frozenset(candidate.items()) for candidate in candidates]


def assert_contract(problem, history, batch):
    seen = {frozenset(problem.canonical(trial.candidate).items()) for trial in history}
    for suggestion in batch:
        assert isinstance(suggestion, Suggestion)
        assert suggestion == problem.canonical(suggestion)
        assert problem.problems(suggestion) == []
        assert not any(problem.excess(problem.exact(suggestion)).values())
        assert json.loads(json.dumps(suggestion.attributes)) == suggestion.attributes
    assert len(set(keys(batch))) == len(batch)
    assert not seen & set(keys(batch))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("done", [0, 3, 60])
def test_a_batch_is_legal_canonical_unseen_and_distinct(name, done):
    problem = stage_problem()
    history = trials(problem, done)

    batch = suggest(name, problem, history, 6)

    assert len(batch) == 6
    assert_contract(problem, history, batch)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_record_and_generator_give_the_same_batch(name):
    problem, again = stage_problem(), stage_problem()
    strategy = make_strategy(name)
    strategy.suggest(
        problem, trials(problem, 20, seed=5), np.random.default_rng(9), 3
    )  # what it remembers is no matter
    history = trials(problem, 30)

    first = strategy.suggest(problem, history, np.random.default_rng(1), 4)
    second = suggest(name, again, [stored(trial) for trial in history], 4, seed=1)

    assert first == second
    assert [one.attributes for one in first] == [one.attributes for one in second]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("state", ["pending", "running", "paused", "stopped", "failed", "refused"])
def test_a_history_in_which_nothing_is_done_is_served(name, state):
    problem = stage_problem()
    history = trials(problem, 15, state=state)

    batch = suggest(name, problem, history, 4)

    assert len(batch) == 4
    assert_contract(problem, history, batch)


@pytest.mark.parametrize("name", NAMES)
def test_trials_without_a_finite_objective_count_as_failed(name):
    problem = stage_problem()
    good = trials(problem, 24)
    bad = [
        dataclasses.replace(trial, metrics={**trial.metrics, "error": value})
        for trial, value in zip(
            trials(problem, 40)[24:], [float("nan"), None, float("inf"), float("-inf")] * 4, strict=True
        )
    ]
    failed = [
        dataclasses.replace(trial, metrics={}, state="failed", failure=Failure(kind="nan", message="epoch 2"))
        for trial in bad
    ]

    batch = suggest(name, problem, good + bad, 4)

    assert batch == suggest(name, problem, good + failed, 4)
    assert_contract(problem, good + bad, batch)


@pytest.mark.parametrize("name", NAMES)
def test_a_space_with_one_candidate_is_served_once(name):
    problem = Problem(choices={"depth": (2,)}, objectives={"error": "min"})

    batch = suggest(name, problem, [], 3)

    assert batch == [{"depth": 2}]
    assert suggest(name, problem, [Trial(batch[0], {"error": 0.5}, "done")], 3) == []


@pytest.mark.parametrize("name", NAMES)
def test_one_dimension_is_exhausted_without_repeats(name):
    problem = Problem(choices={"width": tuple(range(8, 72, 8))}, objectives={"error": "min", "macs": "max"},
                      exact=lambda candidate: {"macs": candidate["width"] ** 2.0})  # fmt: skip
    history = []

    for turn in range(10):
        for one in suggest(name, problem, history, 3, seed=turn):
            history.append(Trial(dict(one), {"error": 1 / one["width"]}, "done", attributes=one.attributes))

    assert sorted(trial.candidate["width"] for trial in history) == list(range(8, 72, 8))
    assert suggest(name, problem, history, 3) == []


@pytest.mark.parametrize("name", NAMES)
def test_a_small_space_with_networks_that_are_equal_is_exhausted(name):
    problem = Problem(choices={"block": ("C", "T"), "kernel": (3, 5, 7), "depth": (1, 2)}, objectives={"error": "min"},
                      problems=lambda one: ["too deep"] if one == {"block": "C", "kernel": 7, "depth": 2} else [],
                      canonical=lambda one: {**one, "kernel": 3} if one["block"] == "T" else one)  # fmt: skip
    history = []

    for turn in range(6):
        batch = suggest(name, problem, history, 4, seed=turn)
        assert_contract(problem, history, batch)
        history += [Trial(dict(one), {"error": 0.1 * one["depth"]}, "done", attributes=one.attributes) for one in batch]

    assert len(history) == 7
    assert suggest(name, problem, history, 1) == []


@pytest.mark.parametrize("name", NAMES)
def test_a_space_of_a_billion_combinations_is_never_enumerated(name):
    choices = {f"d{place}": tuple(range(10)) for place in range(9)}
    problem = Problem(choices=choices, objectives={"error": "min", "macs": "min"},
                      exact=lambda one: {"macs": float(sum(one.values()))})  # fmt: skip
    history = [Trial(dict(one), {"error": 1.0 / (1 + one["d0"])}, "done", attributes=one.attributes)
               for one in suggest("random", problem, [], 30)]  # fmt: skip

    batch = suggest(name, problem, history, 5)

    assert len(batch) == 5
    assert_contract(problem, history, batch)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dimensions", [3, 9])
def test_limits_that_nothing_meets_give_no_batch_in_bounded_time(name, dimensions):
    choices = {f"d{place}": tuple(range(10)) for place in range(dimensions)}
    problem = Problem(choices=choices, objectives={"error": "min"}, limits={"macs": 5.0},
                      exact=lambda one: {"macs": 10.0 + sum(one.values())})  # fmt: skip
    started = time.monotonic()

    batch = suggest(name, problem, [], 4)

    assert batch == []
    assert time.monotonic() - started < 60


@pytest.mark.parametrize("name", [name for name in NAMES if name != "grid"])
def test_tight_limits_in_a_large_space_are_met(name):
    choices = {f"d{place}": tuple(range(10)) for place in range(9)}
    problem = Problem(choices=choices, objectives={"error": "min"}, limits={"macs": [10, 12]},
                      exact=lambda one: {"macs": float(sum(one.values()))})  # fmt: skip

    batch = suggest(name, problem, [], 4)

    assert len(batch) == 4
    assert_contract(problem, [], batch)


@pytest.mark.parametrize("name", NAMES)
def test_limits_on_measured_metrics_do_not_stop_a_search(name):
    problem = stage_problem(limits={"macs": 12_000, "throughput_images_per_s": 500})
    history = [
        dataclasses.replace(trial, metrics={**trial.metrics, "throughput_images_per_s": 300.0 + 10 * trial.number})
        for trial in trials(problem, 40)
    ]

    batch = suggest(name, problem, history, 4)

    assert len(batch) == 4
    assert_contract(problem, history, batch)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("objectives", [{"error": "min"}, {"macs": "min"}, {"val_top1": "max", "macs": "min"},
                                        {"error": "min", "macs": "min", "throughput_images_per_s": "max"}])  # fmt: skip
def test_one_to_three_objectives_in_either_direction_are_served(name, objectives):
    problem = stage_problem(objectives=objectives)
    history = [
        dataclasses.replace(
            trial,
            metrics={
                **trial.metrics,
                "val_top1": 1 - trial.metrics["error"],
                "throughput_images_per_s": 1e6 / trial.metrics["macs"],
            },
        )
        for trial in trials(problem, 30)
    ]

    batch = suggest(name, problem, history, 4)

    assert len(batch) == 4
    assert_contract(problem, history, batch)


@pytest.mark.parametrize("name", NAMES)
def test_a_candidate_of_another_space_and_a_replicate_are_no_trouble(name):
    problem = stage_problem()
    history = trials(problem, 30)
    history += [Trial({"depth": 3}, {"error": 0.1, "macs": 5.0}, "done"), Trial({}, {}, "failed")]
    history += [dataclasses.replace(trial, budget=None, number=40 + place) for place, trial in enumerate(history[:3])]

    batch = suggest(name, problem, history, 4)

    assert len(batch) == 4
    assert_contract(problem, [trial for trial in history if len(trial.candidate) > 1], batch)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_printed_and_no_setting_of_optuna_is_left_changed(name, capfd):
    problem, level = stage_problem(), optuna.logging.get_verbosity()
    history = trials(problem, 30)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        suggest(name, problem, history, 2)

    assert optuna.logging.get_verbosity() == level
    assert capfd.readouterr() == ("", "")


def test_an_unknown_strategy_or_option_is_refused_with_the_known_ones():
    with pytest.raises(InputError, match="no strategy named 'nsga'; did you mean 'nsga2'"):
        make_strategy("nsga")
    with pytest.raises(InputError, match=r"strategy nsga2: .*'populaton'; did you mean 'population'"):
        make_strategy("nsga2", populaton=8)
    with pytest.raises(InputError, match="strategy nsga2: population: expected a whole number, got '8'"):
        make_strategy("nsga2", population="8")
    with pytest.raises(InputError, match="strategy nsga2: population: expected at least 2, got 1"):
        make_strategy("nsga2", population=1)
    with pytest.raises(InputError, match="strategy random: takes no options, got 'seed'"):
        make_strategy("random", seed=1)


@dataclasses.dataclass(frozen=True)
class OneObjective:
    """What a third party may install."""

    most_objectives: ClassVar[int] = 1


def test_a_strategy_that_cannot_serve_several_objectives_is_refused_with_its_line(tmp_path, monkeypatch):
    installed = {**STRATEGIES, "single": "test_strategies:OneObjective"}
    monkeypatch.setattr(strategies, "menu", lambda: installed)
    text = (
        "question: Which?\nspace: digits\ndata: {name: digits}\nrecipe: {name: digits}\nobjectives: {OBJECTIVES}\n"
        "search:\n  strategy: single\n  trials: 4\n"
    )
    one, two = tmp_path / "one.yaml", tmp_path / "two.yaml"
    one.write_text(text.replace("OBJECTIVES", "error: min"))
    two.write_text(text.replace("OBJECTIVES", "error: min, macs: min"))

    load_study(one)

    words = r"two.yaml:7: search.strategy: strategy single serves one objective, and the study has 2; take one of evol"
    with pytest.raises(InputError, match=words):
        load_study(two)


def test_a_place_that_stands_for_no_value_gives_the_row_of_the_candidate_that_it_is_read_as():
    problem = stage_problem()
    beyond = (max(problem.sizes), *[0] * (len(problem.sizes) - 1))

    known = problem.look(beyond)

    assert known.row == problem.look([0] * len(problem.sizes)).row == problem.row(known.candidate)


def test_a_problem_that_makes_no_sense_is_refused():
    with pytest.raises(InputError, match="dimension depth has no values"):
        Problem(choices={"depth": ()}, objectives={"error": "min"})
    with pytest.raises(InputError, match="no objectives"):
        Problem(choices={"depth": (1,)}, objectives={})
    with pytest.raises(InputError, match="objective error: expected min or max, got 'down'"):
        Problem(choices={"depth": (1,)}, objectives={"error": "down"})
    with pytest.raises(InputError, match="limit of macs"):
        Problem(choices={"depth": (1,)}, objectives={"error": "min"}, limits={"macs": [1, 2, 3]})


def test_a_single_number_limits_costs_from_above_and_rising_metrics_from_below():
    problem = stage_problem(limits={"macs": 100, "throughput_images_per_s": 50, "params": [None, 7]})

    inside = problem.excess({"macs": 90.0, "throughput_images_per_s": 60.0, "params": 7.0})
    outside = problem.excess({"macs": 150.0, "throughput_images_per_s": 40.0, "params": None})

    assert inside == {"macs": 0, "throughput_images_per_s": 0, "params": 0}
    assert outside == pytest.approx({"macs": 0.5, "throughput_images_per_s": 0.2})


def test_trials_with_values_outside_the_choices_are_left_out():
    def strict(candidate):
        if candidate["depth"] not in (1, 2):
            raise InputError("depth is not among [1, 2]")
        return candidate

    problem = Problem(choices={"depth": (1, 2)}, objectives={"error": "min"}, canonical=strict)
    history = [Trial({"depth": depth}, {"error": 0.1}, "done") for depth in (1, 7)]

    past = look_back(problem, history)

    assert [seen.known.candidate for seen in past] == [{"depth": 1}]


def test_trials_of_another_budget_have_no_values():
    problem = stage_problem()
    full, short = Budget(epochs=9), Budget(epochs=3)
    history = [dataclasses.replace(trial, budget=short if trial.number < 4 else full) for trial in trials(problem, 12)]

    past = look_back(problem, history)

    assert [seen.state for seen in past] == ["stopped"] * 4 + ["done"] * 8


def test_the_grid_covers_the_space_evenly_from_the_start():
    choices = {f"d{place}": (0, 1, 2) for place in range(8)}
    problem = Problem(choices=choices, objectives={"error": "min"})

    batch = suggest("grid", problem, [], 81)

    for name in choices:
        counts = np.bincount([one[name] for one in batch], minlength=3)
        assert counts.min() >= 20


def test_nsga2_breeds_from_the_best_of_any_history():
    """Children of two parents with at most two dimensions changed: near the best, which random candidates are not."""
    choices = {f"d{place}": tuple(range(10)) for place in range(9)}
    problem = Problem(choices=choices, objectives={"a": "min", "b": "min"})
    rng = np.random.default_rng(0)
    drawn = [{name: int(rng.integers(10)) for name in choices} for _ in range(300)]
    total = [sum(one.values()) for one in drawn]
    history = [Trial(one, {"a": float(sum(one.values())), "b": float(max(one.values()))}, "done") for one in drawn]

    batch = suggest("nsga2", problem, history, 10, population=6)

    assert len(batch) == 10 and not any(dict(one) in drawn for one in batch)
    assert np.mean([sum(one.values()) for one in batch]) < np.quantile(total, 0.1)


def test_nsga2_proposes_the_same_from_a_record_read_back():
    problem = stage_problem(limits={})
    history = trials(problem, 60)
    stored = [Trial(**json.loads(json.dumps(dataclasses.asdict(trial)))) for trial in history]

    assert [dict(one) for one in suggest("nsga2", problem, history, 5)] == [
        dict(one) for one in suggest("nsga2", problem, stored, 5)
    ]
