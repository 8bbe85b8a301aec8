"""Rank correlation, regret and reliability: checked by brute force, by known answers, and in simulated worlds."""

import itertools
import math

import numpy as np
import pytest
from scipy.stats import kendalltau, spearmanr

from coatnet_search.analysis import rank_agreement as ranking
from coatnet_search.analysis.rank_agreement import draws, figure, kendall, mean, permuted, regret, without_noise


def pairwise(first: np.ndarray, second: np.ndarray, places: list[tuple[int, int]]) -> float:
    """Kendall's tau-b over these pairs, by its definition."""
    agree = one = other = 0.0
    for a, b in places:
        x, y = np.sign(first[a] - first[b]), np.sign(second[a] - second[b])
        agree, one, other = agree + x * y, one + abs(x), other + abs(y)
    return agree / math.sqrt(one * other)


@pytest.mark.parametrize("levels", [4, 1000])
def test_tau_is_that_of_the_definition_with_and_without_ties(levels: int) -> None:
    rng = np.random.default_rng(levels)
    first, second = rng.integers(levels, size=(2, 25)).astype(float)

    found = kendall(np.ones((1, 25)), first, second)[0]

    assert found == pytest.approx(pairwise(first, second, list(itertools.combinations(range(25), 2))))
    assert found == pytest.approx(kendalltau(first, second, variant="b").statistic)


def test_a_draw_counts_pairs_by_weight_and_no_network_with_itself() -> None:
    rng = np.random.default_rng(3)
    first, second = rng.normal(size=(2, 6))
    weights = np.array([[2.0, 0, 1, 1, 2, 0]])
    copies = [0, 0, 2, 3, 4, 4]

    found = kendall(weights, first, second)[0]

    pairs = [(a, b) for a, b in itertools.combinations(copies, 2) if a != b]
    assert found == pytest.approx(pairwise(first, second, pairs))


def test_tau_within_bands_looks_at_pairs_of_one_band_alone() -> None:
    rng = np.random.default_rng(4)
    first, second = rng.normal(size=(2, 12))
    band = np.arange(12) % 3

    found = kendall(np.ones((1, 12)), first, second, np.equal.outer(band, band))[0]

    pairs = [(a, b) for a, b in itertools.combinations(range(12), 2) if band[a] == band[b]]
    assert found == pytest.approx(pairwise(first, second, pairs))


def test_a_constant_score_has_no_tau() -> None:
    none = figure(kendall(draws(12, np.random.default_rng(0)), np.ones(12), np.arange(12.0)), 12)

    assert none.value is None and "equal" in none.note


def test_regret_is_what_the_network_ranked_first_lacks() -> None:
    predicted, actual = np.array([3.0, 2.0, 1.0]), np.array([0.5, 0.6, 0.9])

    every = regret(np.array([[1.0, 1, 1], [0, 1, 1], [1, 0, 0]]), predicted, actual)

    np.testing.assert_allclose(every, [0.4, 0.3, 0.0])


def test_means_are_weighted_and_missing_where_nothing_was_drawn() -> None:
    found = mean(np.array([[1.0, 1], [3, 1], [0, 0]]), np.array([1.0, 5.0]))

    np.testing.assert_allclose(found, [3.0, 2.0, np.nan])


def test_labels_without_meaning_are_seldom_significant_and_real_ones_are() -> None:
    rng = np.random.default_rng(5)
    labels, bands = ["a", "b", "c"] * 8, [0] * 8 + [1] * 8 + [2] * 8

    by_chance = [permuted(rng.normal(size=24) + np.array(bands), labels, bands, rng) for _ in range(60)]
    real = permuted(rng.normal(size=24) + 3.0 * (np.array(labels) == "b"), labels, bands, rng)

    assert np.mean(np.array(by_chance) < 0.05) < 0.15 and 0.3 < np.mean(by_chance) < 0.7
    assert real < 0.01


def test_correction_for_noise_finds_the_correlation_without_it() -> None:
    rng = np.random.default_rng(6)
    quality = rng.normal(size=300)
    predicted = quality + 0.5 * rng.normal(size=300)
    alone = quality[:, None] + 0.6 * rng.normal(size=(300, 2))

    found = without_noise(predicted, alone, rng)

    truth = spearmanr(predicted, quality).statistic
    assert found.plain.value < truth - 0.03
    assert found.corrected.value == pytest.approx(truth, abs=0.05)
    assert found.reliability.value == pytest.approx(1 / (1 + 0.6**2 / 2), abs=0.05)  # of the mean of two seeds
    assert found.corrected.low <= truth <= found.corrected.high


def test_correction_is_refused_where_seeds_do_not_agree() -> None:
    rng = np.random.default_rng(7)

    found = without_noise(rng.normal(size=40), rng.normal(size=(40, 2)), rng)

    assert found.corrected.value is None and "reliability" in found.corrected.note
    assert found.plain.value is not None


def test_intervals_hold_the_truth_about_as_often_as_they_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranking, "DRAWS", 300)
    rng = np.random.default_rng(8)

    def world(networks: int) -> tuple[np.ndarray, np.ndarray]:
        quality = rng.normal(size=networks)
        alone = quality[:, None] + 0.5 * rng.normal(size=(networks, 2))
        return quality + 0.7 * rng.normal(size=networks), alone.mean(axis=1)

    truth = kendalltau(*world(20_000)).statistic
    found = [figure(kendall(draws(36, rng), *world(36)), 36) for _ in range(200)]

    covered = np.mean([one.low <= truth <= one.high for one in found])
    assert 0.90 <= covered <= 0.99
