"""How often an audit's interval of Kendall's tau holds the truth: networks drawn alone, or seeds within them as well.

``python benchmarks/audit_intervals.py [--worlds 400]``. Made-up networks with two seeds; the truth: the tau of 20,000.
"""

import argparse

import numpy as np
from scipy.stats import kendalltau

from coatnet_search.analysis.rank_agreement import draws, figure, kendall

NOISES = (
    (0.5, 0.7),
    (1.0, 0.7),
    (0.3, 0.2),
)  # standard deviation between seeds, and of the supernet, per unit of truth


def world(networks: int, seeds: float, supernet: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Scores by the supernet, (networks,), and of two trainings alone, (networks, 2)."""
    quality = rng.normal(size=networks)
    alone = quality[:, None] + seeds * rng.normal(size=(networks, 2))
    return quality + supernet * rng.normal(size=networks), alone


def with_seeds(inherited: np.ndarray, alone: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
    """The interval where each drawn network's seeds are drawn too."""
    weights, values = draws(len(inherited), rng), []
    for row in weights[1:]:
        picked = alone[np.arange(len(alone))[:, None], rng.integers(2, size=alone.shape)].mean(axis=1)
        values.append(kendall(row[None], inherited, picked)[0])
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--worlds", type=int, default=400)
    count, rng = parser.parse_args().worlds, np.random.default_rng(0)
    print("networks  seed noise  supernet noise  true tau  covered: networks alone  with seeds")
    for networks in (24, 36):
        for seeds, supernet in NOISES:
            inherited, alone = world(20_000, seeds, supernet, rng)
            truth, held = kendalltau(inherited, alone.mean(axis=1)).statistic, np.zeros(2)
            for _ in range(count):
                inherited, alone = world(networks, seeds, supernet, rng)
                found = figure(kendall(draws(networks, rng), inherited, alone.mean(axis=1)), networks)
                low, high = with_seeds(inherited, alone, rng)
                held += [(found.low or 0) <= truth <= (found.high or 0), low <= truth <= high]
            print(
                f"{networks:8}  {seeds:10}  {supernet:14}  {truth:8.2f}  {held[0] / count:23.3f}  {held[1] / count:.3f}"
            )


if __name__ == "__main__":
    main()
