"""The parts of model-based search: models that recover what they are shown, gains that agree with hypervolumes."""

import moocore
import numpy as np
import pytest
from scipy.linalg import cho_solve, cholesky

from coatnet_search.record.trial import Trial
from coatnet_search.strategies import Problem, make_strategy
from coatnet_search.strategies.cold_start import spread
from coatnet_search.strategies.expected_gain import (
    best_batch,
    chance_to_dominate,
    dominated,
    nondominated,
    points_to_gain,
)
from coatnet_search.strategies.features import Features
from coatnet_search.strategies.forecast import Scale, Surrogates, averaged
from coatnet_search.strategies.gaussian_process import Process
from coatnet_search.strategies.legal_candidates import draw, every
from coatnet_search.strategies.problem import look_back
from coatnet_search.strategies.surrogate import MODELS, Surrogate

CHOICES = {
    "s1_block": ("C", "T"),
    "s2_block": ("C", "T"),
    "s1_depth": (1, 2, 3),
    "s2_depth": (1, 2, 3),
    "s1_width": (16, 32, 48, 64),
    "s2_width": (16, 32, 48, 64),
    "kernel": (3, 5),
}


def exact(candidate):
    parts = [candidate[f"{s}_depth"] * candidate[f"{s}_width"] ** 2 for s in ("s1", "s2")]
    return {"macs": float(sum(parts) + 200 * candidate["kernel"])}


def error(candidate):
    """Falls with cost, with an interaction: the second stage should be attention where it is wide."""
    wide = candidate["s2_width"] >= 48
    return 0.6 - 0.035 * np.log(exact(candidate)["macs"]) + 0.03 * ((candidate["s2_block"] == "T") != wide) \
        + 0.05 * (candidate["s1_block"] == "T")  # fmt: skip


def table_problem(**changes):
    return Problem(**{"choices": CHOICES, "objectives": {"error": "min", "macs": "min"}, "exact": exact, **changes})


def finished(candidates, rng, noise=0.003):
    return [
        Trial(dict(one), {"error": error(one) + noise * rng.normal(), **exact(one)}, "done", number,
              attributes=getattr(one, "attributes", {}))
        for number, one in enumerate(candidates)
    ]  # fmt: skip


def searched(name, problem, seed, trials, batch=8):
    history, strategy = [], make_strategy(name)
    rng = np.random.default_rng(seed)
    while len(history) < trials:
        history += finished(strategy.suggest(problem, history, np.random.default_rng([seed, len(history)]), batch), rng)
    return history


def hypervolume(problem, history):
    """Of what was found, audited_record without noise, in units of the whole box."""
    both = np.array([[error(one.candidate), exact(one.candidate)["macs"]] for one in every(problem)])
    found = np.array([[error(trial.candidate), exact(trial.candidate)["macs"]] for trial in history])
    scaled = (found - both.min(axis=0)) / np.ptp(both, axis=0)
    return moocore.hypervolume(scaled, ref=[1, 1])


@pytest.mark.parametrize(
    ("name", "trials", "seeds"),
    [("evolution", 120, 4), ("nsga2", 120, 4), ("gp", 40, 2), ("predictor", 40, 2), ("tpe", 40, 2)],
)
def test_a_strategy_finds_more_than_chance_does(name, trials, seeds):
    problem = table_problem()

    found = [hypervolume(problem, searched(name, problem, seed, trials)) for seed in range(seeds)]
    by_chance = [hypervolume(problem, searched("random", problem, seed, trials)) for seed in range(8)]

    assert np.mean(found) > np.mean(by_chance)


def test_the_predictor_reaches_nearly_the_whole_front_in_thirty_two_trials():
    problem = table_problem()
    whole = hypervolume(problem, every(problem))

    shares = [hypervolume(problem, searched("predictor", problem, seed, 32)) / whole for seed in range(2)]

    assert min(shares) > 0.97


def test_a_measured_objective_and_a_measured_limit_are_predicted():
    problem = table_problem(objectives={"error": "min", "throughput_images_per_s": "max"},
                            limits={"latency_ms": 6.0})  # fmt: skip
    rng = np.random.default_rng(0)
    history = []
    for one in draw(problem, rng, 80, set()):
        cost = exact(one.candidate)["macs"]
        metrics = {"error": error(one.candidate), "throughput_images_per_s": 1e7 / cost, "latency_ms": cost / 1500}
        history.append(Trial(one.candidate, metrics, "done"))

    batch = make_strategy("predictor").suggest(problem, history, rng, 8)

    assert np.mean([exact(one)["macs"] / 1500 <= 6.6 for one in batch]) >= 0.75


def test_trials_that_all_show_the_same_are_no_trouble():
    problem = table_problem()
    rng = np.random.default_rng(0)
    history = [Trial(one.candidate, {"error": 0.5}, "done") for one in draw(problem, rng, 20, set())]

    batch = make_strategy("predictor").suggest(problem, history, rng, 4)

    assert len(batch) == 4


def test_running_trials_are_not_proposed_around_as_if_they_did_not_exist():
    problem = table_problem()
    history = finished(make_strategy("random").suggest(problem, [], np.random.default_rng(0), 40),
                       np.random.default_rng(1))  # fmt: skip
    first = make_strategy("predictor").suggest(problem, history, np.random.default_rng(2), 4)

    running = [Trial(dict(one), {}, "running") for one in first]
    second = make_strategy("predictor").suggest(problem, history + running, np.random.default_rng(2), 4)

    assert not [one for one in second if one in first]


@pytest.mark.parametrize("name", MODELS)
def test_a_model_ranks_what_it_was_not_shown(name):
    problem = table_problem()
    pool, rng = every(problem), np.random.default_rng(0)
    values = np.array([error(known.candidate) for known in pool])
    shown = rng.choice(len(pool), 100, replace=False)
    features = Features(problem, pool)

    model = Surrogate(features, [pool[place] for place in shown], values[shown], [name], rng)
    mean, std = model.predict(pool)

    assert np.corrcoef(mean, values)[0, 1] > 0.85
    assert (std > 0).all()


def test_left_out_predictions_are_those_of_a_process_without_the_trial():
    rng = np.random.default_rng(0)
    linear, spatial = rng.normal(size=(25, 3)), rng.normal(size=(25, 2))
    values = linear[:, 0] + np.sin(2 * spatial[:, 0]) + 0.1 * rng.normal(size=25)
    process = Process(linear, spatial, np.array([0, 1]), values, rng)
    kernel = process._kernel(linear, spatial, linear, spatial) + (process.noise + 1e-6) * np.eye(25)
    rest = np.arange(1, 25)

    factor = cholesky(kernel[np.ix_(rest, rest)], lower=True)
    alone = process.mean + process.spread * kernel[0, rest] @ cho_solve((factor, True), process.values[rest])

    assert process.left_out()[0] == pytest.approx(alone)


def test_a_process_is_sure_where_it_was_shown_and_not_far_away():
    spatial = np.linspace(0, 1, 20)[:, None]
    values = np.sin(6 * spatial[:, 0])
    process = Process(np.ones((20, 1)), spatial, np.array([0]), values, np.random.default_rng(0))

    mean, std = process.predict(np.ones((2, 1)), np.array([[0.525], [4.0]]))

    assert mean[0] == pytest.approx(np.sin(6 * 0.525), abs=0.05)
    assert std[1] > 5 * std[0]


def test_a_scale_maps_there_and_back_in_order():
    values = np.array([0.01, 0.2, 0.21, 0.9])
    scale = Scale.of(values)

    there = scale.to(values)

    assert (np.diff(there) > 0).all()
    assert scale.back(there) == pytest.approx(values)


def test_exactly_known_gains_are_shares_of_hypervolume():
    rng = np.random.default_rng(0)
    points = rng.random((200_000, 2))
    candidates = np.array([[0.2, 0.7], [0.5, 0.5], [0.8, 0.1]])

    chances = chance_to_dominate(candidates, np.zeros_like(candidates), points)
    covered = 1 - np.prod(1 - chances, axis=0)

    assert covered.mean() == pytest.approx(moocore.hypervolume(candidates, ref=[1, 1]), abs=0.005)


def test_an_uncertain_gain_is_the_mean_over_outcomes():
    rng = np.random.default_rng(0)
    points = rng.random((4000, 2))
    mean, std = np.array([[0.5, 0.4]]), np.array([[0.1, 0.0]])

    expected = chance_to_dominate(mean, std, points).mean()
    outcomes = [np.maximum(0, 1 - (0.5 + 0.1 * draw)) * 0.6 for draw in rng.normal(size=4000)]

    assert expected == pytest.approx(np.mean(outcomes), abs=0.02)


def test_a_batch_does_not_take_the_same_gain_twice():
    chances = np.array([[1, 1, 1, 0, 0], [1, 1, 1, 0, 0], [0, 0, 0, 1, 1], [0, 0, 0, 0, 0]], float)

    batch = [place for place, _ in best_batch(chances, np.zeros(5), 4)]

    assert batch == [0, 2]


def test_points_lie_between_what_is_reached_and_what_is_hoped_for():
    front, optimistic = np.array([[0.5, 0.5]]), np.array([[0.2, 0.6], [0.6, 0.2]])

    points, share = points_to_gain(front, optimistic, np.array([1.0, 1.0]), np.random.default_rng(0))

    assert len(points) > 1000 and share == pytest.approx(0.375, abs=0.02)
    assert not dominated(points, front).any()
    assert dominated(points, optimistic).all()
    assert len(nondominated(np.vstack([optimistic, front]))) == 3


def test_first_candidates_have_the_extremes_and_every_layout():
    problem = table_problem()
    pool = every(problem)

    chosen = spread(problem, pool, [], 10, np.random.default_rng(0))

    costs = [known.exact["macs"] for known in pool]
    assert [known.exact["macs"] for known in chosen[:2]] == [min(costs), max(costs)]
    assert len({(known.candidate["s1_block"], known.candidate["s2_block"]) for known in chosen}) == 4
    assert len({known.key for known in chosen}) == 10


def test_replicates_count_as_one_trial_with_the_mean():
    problem = table_problem()
    one = every(problem)[5]
    history = [Trial(one.candidate, {"error": value}, "done") for value in (0.2, 0.3, 0.4)]

    done = averaged(problem, look_back(problem, history))

    assert len(done) == 1
    assert done[0].losses == pytest.approx([0.3, one.exact["macs"]])


def test_an_outlook_knows_exact_costs_and_predicts_the_rest():
    problem = table_problem(limits={"macs": 30_000})
    rng = np.random.default_rng(0)
    pool = every(problem)
    history = finished([known.candidate for known in draw(problem, rng, 40, set())], rng)
    done = averaged(problem, look_back(problem, history))

    surrogates = Surrogates(problem, Features(problem, pool), done, ("process",), rng)
    mean, std = surrogates.predict(pool)

    assert (mean[:, 1] == [known.exact["macs"] for known in pool]).all()
    assert (std[:, 1] == 0).all()
    assert (std[:, 0] > 0).all()
    assert (surrogates.feasible(pool) == 1).all()
    assert surrogates.back(surrogates.to_scale(surrogates.losses)) == pytest.approx(surrogates.losses)
