"""Strategies under asynchronous workers on a small made-up table, on the simulated clock."""

import numpy as np
import pytest
from asynchronous import search
from search_quality import Table

SIDES = (4, 4, 4)


@pytest.fixture(scope="module")
def table():
    places = np.stack(np.unravel_index(np.arange(np.prod(SIDES)), SIDES), axis=1)
    costs = 1.0 + places.sum(axis=1)
    errors = 0.5 / costs[:, None] + 0.002 * np.random.default_rng(0).standard_normal((len(costs), 3))
    return Table(
        "made-up", "macs", {f"d{place}": tuple(range(side)) for place, side in enumerate(SIDES)}, errors, costs
    )


@pytest.mark.parametrize("strategy", ["random", "predictor"])
def test_workers_shorten_a_search_and_none_of_its_candidates_comes_twice(table, strategy):
    alone, crowd = (search(table, strategy, 0, 32, workers) for workers in (1, 16))

    assert len(set(alone[0].places)) == len(set(crowd[0].places)) == 32
    assert alone[1].busy == pytest.approx(1.0) and crowd[1].busy > 0.6
    assert alone[0].seconds == pytest.approx(alone[1].busy_seconds)
    assert 6 < alone[0].seconds / crowd[0].seconds < 16 * 2


def test_the_same_seed_gives_the_same_search(table):
    one, two = (search(table, "predictor", 3, 24, 8) for _ in range(2))

    assert list(one[0].places) == list(two[0].places) and one[0].seconds == two[0].seconds
