"""Answers from samples: order, regret, crossover, data needed; compute-optimal size and the iso-FLOP parabola."""

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from coatnet_search.core.errors import InputError
from coatnet_search.curves import compare
from coatnet_search.curves.compute_optimal import compute_optimal, isoflop_parabola
from coatnet_search.curves.fitting import fit_form

X = np.geomspace(1e3, 1e6, 61)


def lines(*curves):
    """Samples (draws, curves, points) of power laws, each given as (error at 1e3, exponents of the draws)."""
    return np.stack([level * (X / 1e3) ** -np.asarray(c)[:, None] for level, c in curves], axis=1)


def test_probabilities_of_two_curves_add_up_and_ties_count_half():
    samples = np.array([[[1.0], [2.0]], [[2.0], [1.0]], [[1.0], [1.0]], [[1.0], [3.0]]])

    assert compare.probability_better(samples, 0, 1) == pytest.approx([0.625])
    assert compare.probability_better(samples, 1, 0) == pytest.approx([0.375])


def test_probabilities_of_being_best_add_up_at_every_size():
    samples = np.exp(np.random.default_rng(0).standard_normal((200, 4, 5)))

    best = compare.probability_best(samples)

    assert best.shape == (4, 5) and best.sum(axis=0) == pytest.approx(1.0)


def test_regret_is_what_a_choice_costs_against_the_best_of_each_draw():
    samples = np.array([[[0.3], [0.2]], [[0.1], [0.2]]])

    assert compare.expected_regret(samples) == pytest.approx(np.array([[0.05], [0.05]]))


def test_a_crossover_is_where_the_lines_meet():
    samples = lines((0.5, [0.1, 0.1]), (1.0, [0.3, 0.4]))

    found = compare.crossover(samples, X, 0, 1)

    assert found.sizes == pytest.approx([1e3 * 2**5, 1e3 * 2 ** (1 / 0.3)], rel=1e-6)
    assert found.not_in_range == 0.0
    assert found.density(10)[1].sum() == pytest.approx(1.0)


def test_a_crossover_outside_the_range_is_an_answer_that_says_who_is_better():
    samples = lines((0.5, [0.1, 0.1, 0.3, 0.1]), (1.0, [0.3, 0.1, 0.1, 0.1]))

    found = compare.crossover(samples, X, 0, 1)

    assert found.not_in_range == found.always_a == 0.75 and found.always_b == 0.0
    assert found.quantile(0.5) is None and found.quantile(0.1) == pytest.approx(1e3 * 2**5, rel=1e-6)


def test_the_data_needed_is_where_the_curve_reaches_the_target():
    samples = lines((0.5, [0.5, 0.25, 0.01]))

    found = compare.data_needed(samples, X, 0, 0.1)

    assert found.sizes[:2] == pytest.approx([25e3, 625e3], rel=1e-6)
    assert found.not_in_range == pytest.approx(1 / 3)
    assert compare.data_needed(samples, X, 0, 0.6).sizes == pytest.approx([1e3] * 3)


def test_sizes_out_of_order_and_targets_that_mean_nothing_are_refused():
    samples = lines((0.5, [0.5]), (0.5, [0.4]))

    with pytest.raises(InputError, match="sizes: expected at least two, ascending"):
        compare.crossover(samples, X[::-1], 0, 1)
    with pytest.raises(InputError, match="target error: expected a positive number"):
        compare.data_needed(samples, X, 0, 0.0)


def test_the_compute_optimal_size_minimises_the_joint_form():
    n, d = (part.ravel() for part in np.meshgrid(np.geomspace(1e7, 1e9, 5), np.geomspace(1e8, 1e11, 6)))
    noise = np.exp(0.002 * np.random.default_rng(0).standard_normal(30))
    fit = fit_form("joint", np.stack([n, d], axis=1), (1.8 + 480 * n**-0.35 + 2100 * d**-0.37) * noise)

    found = compute_optimal(fit, [1e20, 1e21])

    for i, budget in enumerate((1e20, 1e21)):
        loss = minimize_scalar(lambda s, b=budget: fit.value([[np.exp(s), b / 6 / np.exp(s)]])[0], bounds=(15, 25))
        assert found.size[i] == pytest.approx(np.exp(loss.x), rel=1e-2)
        assert found.loss[i] == pytest.approx(loss.fun)
    assert found.size * found.data * 6 == pytest.approx([1e20, 1e21])
    assert (np.quantile(found.draws, 0.05, axis=0) < found.size).all()
    assert (np.quantile(found.draws, 0.95, axis=0) > found.size).all()


def test_compute_optimal_sizes_come_from_the_joint_form_alone():
    with pytest.raises(InputError, match="expected a fit of form 'joint', got 'power'"):
        compute_optimal(fit_form("power", X, X**-0.3), [1e20])


def test_a_parabola_finds_its_own_minimum():
    size = np.geomspace(1e7, 1e9, 7)

    found = isoflop_parabola(size, 2.0 + 0.05 * (np.log(size) - np.log(8e7)) ** 2)

    assert found.size == pytest.approx(8e7) and found.loss == pytest.approx(2.0)


@pytest.mark.parametrize("loss", [lambda u: 3 - 0.1 * u, lambda u: 3 - 0.01 * u**2, lambda u: 3 + 0.01 * (u - 9) ** 2])
def test_a_parabola_without_a_minimum_inside_is_refused(loss):
    u = np.linspace(0.0, 5.0, 6)

    with pytest.raises(InputError, match="no interior minimum within the sizes measured"):
        isoflop_parabola(1e7 * np.exp(u), loss(u))


def test_a_parabola_needs_four_sizes():
    with pytest.raises(InputError, match="needs 4 distinct sizes, got 3"):
        isoflop_parabola([1e7, 2e7, 4e7], [3.0, 2.0, 3.0])
