"""What to run next: values of runs against known answers, the order they are bought in, when to stop."""

import json
import math
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from coatnet_search.core.errors import InputError
from coatnet_search.curves.next_run import MIN_SIZES, Beliefs, Run, _drop, rank_runs, settled

SIZES = (1000, 2000, 4000, 8000, 16000)


def hours(run: Run) -> float:
    return run.num_images / 1000


def runs_of(layout: str, start: float, exponent: float, sizes=SIZES, instances=(0,), seeds=(0,), noise=0.01):
    """Runs along a power law."""
    rng = np.random.default_rng([len(layout), ord(layout[-1])])
    return [Run(layout=layout, num_images=size, instance=instance, seed=seed,
                error=start * (size / SIZES[0]) ** -exponent * math.exp(rng.normal(0, noise)))
            for size in sizes for instance in instances for seed in seeds]  # fmt: skip


def unknown_runs(layouts=("A", "B"), sizes=SIZES, instances=(0, 1), seeds=(0, 1)):
    return [Run(layout=layout, num_images=size, instance=instance, seed=seed)
            for layout in layouts for size in sizes for instance in instances for seed in seeds]  # fmt: skip


@pytest.mark.parametrize("gap", [0.0, 0.3, 2.0])
def test_the_worth_of_a_result_is_the_known_one_for_two_arms(gap: float) -> None:
    slopes = np.array([0.4, -0.3])
    spread, distance = 0.7, gap / 0.7
    known = spread * (stats.norm.pdf(distance) - distance * stats.norm.sf(distance))

    assert _drop(np.array([1.0, 1.0 + gap]), slopes) == pytest.approx(known, rel=1e-3)


def test_a_result_that_changes_no_choice_is_worth_nothing() -> None:
    assert _drop(np.array([0.1, 0.5]), np.zeros(2)) == 0
    assert _drop(np.array([0.1, 0.5]), np.array([0.2, 0.2])) == pytest.approx(0, abs=1e-12)


def test_arms_without_enough_data_sizes_come_first_and_cheapest_first() -> None:
    observed = runs_of("A", 0.5, 0.3, SIZES[:3])

    ranked = rank_runs(observed, unknown_runs(), 64_000, hours)

    assert [(each.run.layout, each.run.num_images) for each in ranked] == [("B", size) for size in SIZES[:MIN_SIZES]]
    assert [each.drop for each in ranked] == [None] * MIN_SIZES
    assert settled(observed, unknown_runs(), 64_000).reason.startswith("fewer than 3 data sizes were run of B (size 1)")


def test_all_arms_get_one_data_size_before_any_gets_its_second_and_all_the_same_sizes() -> None:
    dear = {("A", SIZES[0]): 100.0}  # what this run would take is out of line

    ranked = rank_runs([], unknown_runs(), 64_000, lambda run: hours(run) * dear.get((run.layout, run.num_images), 1.0))

    sizes = [each.run.num_images for each in ranked]
    assert {frozenset(each.run.layout for each in ranked[at : at + 2]) for at in (0, 2, 4)} == {frozenset("AB")}
    assert sizes[::2] == sizes[1::2] == list(SIZES[1 : MIN_SIZES + 1])


def test_arms_that_may_be_best_are_run_and_a_hopeless_one_is_not() -> None:
    observed = [*runs_of("A", 0.50, 0.30, SIZES[:3]), *runs_of("B", 0.50, 0.30, SIZES[:3]),
                *runs_of("C", 0.95, 0.02, SIZES[:3])]  # fmt: skip

    ranked = rank_runs(observed, unknown_runs(("A", "B", "C")), 64_000, hours)
    best = {layout: max(each.drop or 0 for each in ranked if each.run.layout == layout) for layout in "ABC"}

    assert ranked[0].run.layout in "AB"
    assert max(best["A"], best["B"]) > 10 * best["C"]
    assert [each.per_hour for each in ranked] == sorted((each.per_hour for each in ranked), reverse=True)


def test_more_data_tells_more_and_hours_count() -> None:
    observed = [*runs_of("A", 0.50, 0.30, SIZES[:3], noise=0.0), *runs_of("B", 0.55, 0.33, SIZES[:3], noise=0.0)]

    by_drop = {each.run.num_images: each.drop for each in rank_runs(observed, unknown_runs(), 64_000, hours)
               if each.run.layout == "A" and each.run.instance == 1}  # fmt: skip
    free = rank_runs(observed, unknown_runs(), 64_000, lambda run: 1.0)

    assert by_drop[16_000] > 2 * max(by_drop[4_000], by_drop[1_000])
    assert free[0].run.num_images == 16_000


def test_a_new_network_tells_of_the_level_and_a_known_one_of_the_slope_where_networks_differ() -> None:
    factors = {0: 1.0, 1: 1.12, 2: 0.9}
    observed = [run for layout, start in (("A", 0.50), ("B", 0.51)) for instance, factor in factors.items()
                for run in runs_of(layout, start * factor, 0.3, SIZES[:3], (instance,), (0, 1, 2), 0.003)]  # fmt: skip

    def drops(target: float, size: int) -> dict[object, float]:
        ranked = rank_runs(observed, unknown_runs(sizes=(size,), instances=(0, 3), seeds=(7,)), target, hours)
        return {each.run.instance: each.drop or 0 for each in ranked if each.run.layout == "A"}

    level, slope = drops(4000, 4000), drops(64_000, 16_000)

    assert level[3] > level[0]
    assert slope[0] > slope[3]


def test_what_was_run_is_not_proposed_again_even_if_it_failed() -> None:
    observed = [*runs_of("A", 0.50, 0.30, SIZES[:3]), *runs_of("B", 0.50, 0.30, SIZES[:3]),
                Run(layout="A", num_images=16_000)]  # fmt: skip

    ranked = rank_runs(observed, unknown_runs(), 64_000, hours)

    done = {run.key for run in observed}
    assert len(ranked) == len(unknown_runs()) - sum(run.key in done for run in unknown_runs())
    assert done.isdisjoint(each.run.key for each in ranked)


def test_runs_that_make_pairs_come_before_equal_ones_that_do_not() -> None:
    observed = [*runs_of("A", 0.50, 0.30, SIZES[:3], seeds=(5,)), *runs_of("B", 0.51, 0.31, SIZES[:3], seeds=(5,))]
    possible = [Run(layout="A", num_images=4000, instance=1, seed=seed) for seed in (0, 5)]

    ranked = rank_runs(observed, possible, 64_000, hours)

    assert ranked[0].per_hour == ranked[1].per_hour
    assert [each.run.seed for each in ranked] == [5, 0]


def test_it_is_settled_where_one_arm_is_far_better() -> None:
    observed = [*runs_of("A", 0.50, 0.50), *runs_of("B", 0.60, 0.20)]

    answer = settled(observed, [], 32_000)

    assert answer.settled
    assert answer.best == ("A", 1.0)
    assert answer.probability_best["A", 1.0] > 0.95
    assert sum(answer.probability_best.values()) == pytest.approx(1)


def test_twins_are_not_settled_by_probability_but_by_regret() -> None:
    a = runs_of("A", 0.50, 0.30)
    observed = [*a, *(replace(run, layout="B", error=(run.error or 0) * 1.001) for run in a)]

    by_probability, by_regret = settled(observed, [], 32_000), settled(observed, [], 32_000, regret=0.05)

    assert not by_probability.settled
    assert "its expected regret is" in by_probability.reason
    assert by_regret.settled
    assert "less than asked for" in by_regret.reason


def test_beyond_the_calibrated_distance_nothing_is_settled_unless_asked_for() -> None:
    observed = [*runs_of("A", 0.50, 0.60), *runs_of("B", 0.90, 0.05)]

    careful, bold = settled(observed, [], 1e6), settled(observed, [], 1e6, beyond=True)

    assert not careful.settled
    assert "62.5 times the data" in careful.reason
    assert bold.settled


def test_the_choice_may_be_among_the_arms_of_one_size() -> None:
    small = [*runs_of("A", 0.50, 0.30), *runs_of("B", 0.55, 0.30)]
    observed = [*small, *(replace(run, size=4.0, error=(run.error or 0) * 0.7) for run in small)]

    one, every = settled(observed, [], 32_000, target_size=1.0), settled(observed, [], 32_000)

    assert set(one.probability_best) == {("A", 1.0), ("B", 1.0)}
    assert every.best is not None and every.best[1] == 4.0


def test_the_same_runs_give_the_same_ranking() -> None:
    observed = [*runs_of("A", 0.50, 0.30, SIZES[:3]), *runs_of("B", 0.50, 0.30, SIZES[:3])]

    once, again = (rank_runs(observed, unknown_runs(), 64_000, hours) for _ in range(2))

    assert once == again


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"target_images": 0}, "target_images: expected a number above 0, got 0"),
        ({"target_images": math.nan}, "target_images: expected a number above 0, got nan"),
        ({"target_size": 3.0}, "target_size: no run has the size 3; sizes: 1"),
        ({"hours": lambda run: 0.0}, "hours of A on 1000 images: expected a number above 0, got 0.0"),
        ({"possible": unknown_runs(sizes=SIZES[:2])}, "and only 2 can be run; add data sizes or leave it out"),
    ],
)
def test_what_cannot_be_ranked_is_named(change, message: str) -> None:
    given = {"observed": [], "possible": unknown_runs(), "target_images": 64_000, "hours": hours, **change}

    with pytest.raises(InputError) as raised:
        rank_runs(**given)

    assert message in str(raised.value)


def test_it_needs_neither_torch_nor_ray() -> None:
    code = "import sys, coatnet_search.curves.next_run; print({'torch', 'ray', 'timm'} & set(sys.modules))"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "set()"


# --- the benchmark's replay ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bench():
    import importlib.machinery
    import importlib.util
    from pathlib import Path

    path = Path(__file__).parents[2] / "benchmarks" / "settle.py"
    spec = importlib.util.spec_from_file_location("bench_settle", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["bench_settle"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_a_record_of_runs_is_replayed_without_its_largest_data_size(bench, tmp_path) -> None:
    rows = [{"layout": run.layout, "num_images": run.num_images, "seed": run.seed, "arch_id": f"n{run.instance}",
             "error": run.error, "wall_s": 3.6 * run.num_images}
            for run in (*runs_of("A", 0.5, 0.3, seeds=(0, 1)), *runs_of("B", 0.5, 0.2, seeds=(0, 1)))]  # fmt: skip
    path = tmp_path / "runs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))

    world = bench.replayed(bench.read_rows(path), seed=0)
    regrets, end = bench.settle(world, [1.0, 40.0], seed=0)

    assert world.target == 16_000
    assert max(run.num_images for run in world.possible) == 8_000
    assert len(world.possible) == 8
    assert world.truth["A"] < world.truth["B"]
    assert regrets[-1] == 0
    assert 0 < end["hours"] <= 40


def test_strategies_spend_no_more_than_they_may(bench) -> None:
    world = bench.synthetic(3)

    regrets = [strategy(world, [1.0], 0) for strategy in (bench.grid, bench.largest)]

    assert all(0 <= each[0] <= 100 for each in regrets)
    assert bench.largest(world, [0.01], 0) == [world.regret(None)]


def test_beliefs_hold_variances_of_seeds_and_networks() -> None:
    rng = np.random.default_rng(0)
    observed = []
    for instance in range(6):
        effect = rng.normal(0, 0.05)
        observed += [
            Run(layout="A", num_images=size, instance=instance, seed=seed,
                error=0.5 * (size / 1000) ** -0.3 * math.exp(effect + rng.normal(0, 0.01)))
            for size in SIZES[:3] for seed in range(3)
        ]  # fmt: skip

    beliefs = Beliefs(observed, [], 8000)

    assert math.sqrt(beliefs.seed_variance) == pytest.approx(0.01, rel=0.3)
    assert 0.02 < math.sqrt(beliefs.instance_variance) < 0.1
