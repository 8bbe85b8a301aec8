"""Would constants that are learned from other curves predict better than those that the curve model ships with?

    python benchmarks/curve_constants.py --curves development.csv           # shares of forms and of deviations
    python benchmarks/curve_constants.py --decisions lcdb_development.parquet  # how much the slopes of arms differ

--curves: of each curve the evidence of every form and pair of deviations (``curves/posterior.py``) for six points with
and without the one to be predicted: every sixth curve of language models, all of width, and simulated ones. Shares are
learned on all groups but one by the log density of what was to be predicted (published and simulated curves each half
of the weight, groups alike), and scored on the one that is left out, beside those that ship.
--decisions: shares of the spreads of slopes, wanders, walks and fades (``curves/arms.py``: each as likely), learned by
expectation maximisation on the likelihood of all points and the truth of five sixths of the data sets, and scored by
the order of the arms in the others. ``oracle`` is the order by the mean of all (up to 125) runs at the last size that
is shown: what no noise would leave to be told by looking at the last size.
"""

import argparse
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

import numpy as np
import pandas as pd
from curve_fits import FORMS, RELATIVE, cases, law_of, right, six_points
from scipy.optimize import minimize
from scipy.special import log_softmax, logsumexp

from coatnet_search.curves import arms as model
from coatnet_search.curves.points import check_points
from coatnet_search.curves.posterior import ALONE, NOISE, SHARES, WANDER, Seen, infer
from coatnet_search.curves.summary import Curve, Summary, alone, summarise

TOLD = 0.003  # sd of log error of what is to be predicted
PULL = 2.0  # curves that all shares are alike is worth
FOLDS = 6

# --- shares of forms and of deviations --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Evidence:
    """Of one curve, ``without`` and ``with_it`` (forms, pairs): the log evidence without and with the last point."""

    group: str
    without: np.ndarray
    with_it: np.ndarray


def weigh(group: str, x: np.ndarray, y: np.ndarray, target: float, truth: float) -> Evidence:
    curve = Curve("curve", x, y, [str(i) for i in range(len(x))])
    seen = alone(summarise([curve], [check_points(x, y, curve.runs, "curve")]), 0)
    sizes = len(seen.u)
    noise, known = (np.pad(part, (0, 1)) for part in (seen.noise, seen.known))
    known[sizes, sizes] = TOLD**2
    longer = Seen(np.append(seen.u, np.log(target / x.max())), np.append(seen.z, np.log(truth)), noise, known,
                  seen.log_noise, seen.slope)  # fmt: skip
    parts = [[infer(each, wander=one).evidence - np.log(list(SHARES.values())) for one in np.eye(len(WANDER))]
             for each in (seen, longer)]  # fmt: skip
    return Evidence(group, np.array(parts[0]).T, np.array(parts[1]).T)


def published(path: Path) -> Iterator[Evidence]:
    for number, ((family, group, name), rows) in enumerate(pd.read_csv(path).groupby(["family", "group", "curve"])):
        if family != "width" and number % 6:
            continue
        means = rows.groupby("x")["loss"].mean()
        x, y = means.index.to_numpy(dtype=float), means.to_numpy()
        for factor in (2.0, 4.0, 8.0, 16.0):
            chosen = six_points(x, factor)
            if chosen is not None:
                rng = np.random.default_rng([crc32(str(name).encode()), int(factor)])
                noisy = y[chosen] * np.exp(0.01 * rng.standard_normal(len(chosen)))
                yield weigh(f"{family} {group}", x[chosen], noisy, x[-1], y[-1])


def simulated() -> Iterator[Evidence]:
    """Curves of other seeds than those of ``curve_fits.py --simulated``."""
    for place, form in enumerate(FORMS):
        for noise in (0.01, 0.03, 0.08, 0.2):
            for seeds in (1, 2, 5):
                for i, factor in enumerate((2.0, 4.0, 8.0, 16.0, 2.0)):
                    rng = np.random.default_rng([912, place, i, seeds, int(noise * 1000)])
                    law = law_of(form, rng)
                    x = np.repeat(RELATIVE, seeds)
                    y = law(x) * np.exp(noise * rng.standard_normal(len(x)))
                    yield weigh(f"simulated {form}", x, y, factor, float(law(np.array([factor]))[0]))


def scores(rows: list[Evidence], log_shares: np.ndarray) -> np.ndarray:
    """The log density of each point that was to be predicted."""
    return np.array([logsumexp(each.with_it + log_shares) - logsumexp(each.without + log_shares) for each in rows])


def learn(rows: list[Evidence]) -> np.ndarray:
    """Log shares (forms, pairs), each a product of a form's and a pair's."""
    counts = Counter(each.group for each in rows)
    weights = np.array([1 / counts[each.group] for each in rows])
    ours = np.array([each.group.startswith("simulated") for each in rows])
    for half in (ours, ~ours):
        weights[half] *= len(rows) / 2 / weights[half].sum()

    def shares(free: np.ndarray) -> np.ndarray:
        return np.add.outer(log_softmax(free[: len(SHARES)]), log_softmax(free[len(SHARES) :]))

    def loss(free: np.ndarray) -> float:
        log_shares = shares(free)
        return -float(weights @ scores(rows, log_shares)) - PULL * float(log_shares.mean())

    found = minimize(loss, np.zeros(len(SHARES) + len(WANDER)), method="L-BFGS-B")
    return shares(found.x)


def show_shares(path: Path) -> None:
    rows = [*published(path), *simulated()]
    ships = np.log(np.outer(list(SHARES.values()), ALONE))
    table = {}
    for group in sorted({each.group for each in rows}):
        learned = learn([each for each in rows if each.group != group])
        left = [each for each in rows if each.group == group]
        table[group] = {"curves": len(left), "learned": scores(left, learned).mean(),
                        "ships": scores(left, ships).mean(),
                        "no deviation": np.exp(logsumexp(learned[:, 0]))}  # fmt: skip
    frame = pd.DataFrame(table).T
    print(frame.round(3).to_string())
    print("mean over groups\n" + frame.groupby(lambda name: name.split()[0]).mean().round(3).to_string())
    everything = np.exp(learn(rows))
    print("learned on all: forms", dict(zip(SHARES, everything.sum(axis=1).round(2).tolist(), strict=True)))
    print("learned on all: pairs of deviations", everything.sum(axis=0).round(2).tolist())


# --- how much the slopes of arms differ -------------------------------------------------------------------------------

NODES = np.array([(slopes, wanders, walks, fade) for slopes in model.SLOPES for wanders in model.WANDERS
                  for walks in model.WALKS for fade in model.FADES])  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One data set at one factor: ``seen`` and ``told`` (nodes,): log likelihood without and with the truth;
    ``ahead`` (nodes, arms): the mean departure at the target; ``last`` (arms,): the mean log error at the last size."""

    dataset: int
    factor: int
    seen: np.ndarray
    told: np.ndarray
    noise: np.ndarray
    ahead: np.ndarray
    last: np.ndarray
    truth: np.ndarray


def departures(summary: Summary, u: np.ndarray) -> np.ndarray:
    """The prior covariance (nodes, m, m) of departures at u."""
    found = np.empty((len(NODES), len(u), len(u)))
    for fade in model.FADES:
        mine = NODES[:, 3] == fade
        found[mine] = model.prior(np.c_[np.zeros(mine.sum()), NODES[mine, :3]], u, u, fade)
    return found


def likelihood(covariance: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of z (arms, m) under each node, the common curve free: log likelihood, precision and residuals."""
    precision = np.linalg.inv(covariance)
    total = precision.sum(axis=1)
    middle = np.linalg.solve(total, np.einsum("hamn,an->hm", precision, z)[:, :, None])[:, :, 0]
    residual = z - middle[:, None]
    logs = -0.5 * np.linalg.slogdet(covariance)[1].sum(axis=1) - 0.5 * np.linalg.slogdet(total)[1]
    return logs - 0.5 * np.einsum("ham,hamn,han->h", residual, precision, residual), precision, residual


def case(dataset: int, factor: int, x: np.ndarray, top: float, names: list[str], errors: np.ndarray,
         truth: np.ndarray) -> Case:  # fmt: skip
    seeds = errors.shape[2]
    labels = [f"seed {i}" for i in range(seeds)] * len(x)
    curves = [Curve(name, np.repeat(x, seeds), np.maximum(each, 1e-3).ravel(), labels)
              for name, each in zip(names, errors, strict=True)]  # fmt: skip
    summary = summarise(curves, [check_points(each.x, each.error, each.runs, each.name) for each in curves])
    log_noise = np.where(NOISE < model.LEAST_OWN, -np.inf, summary.log_noise())
    kept = np.flatnonzero(log_noise > log_noise.max() - model.LEAST)
    sizes, u = len(summary.u), np.append(summary.u, np.log(top / summary.x_last))
    z = np.c_[summary.z, np.log(np.maximum(truth, 1e-3)) - summary.excess]
    base, seen, told, ahead = departures(summary, u), [], [], []
    for noise in NOISE[kept]:
        around = np.zeros((len(curves), sizes + 1, sizes + 1))
        around[:, :sizes, :sizes] = noise**2 * summary.noise + summary.known[:, :, None] * np.eye(sizes)
        around[:, sizes, sizes] = TOLD**2
        covariance = base[:, None] + around
        logs, precision, residual = likelihood(covariance[:, :, :sizes, :sizes], summary.z)
        seen.append(logs)
        told.append(likelihood(covariance, z)[0])
        ahead.append(np.einsum("hm,hamn,han->ha", base[:, sizes, :sizes], precision, residual) + summary.excess)
    last = np.log(np.maximum(errors.mean(axis=2), 1e-3))[:, -1]
    return Case(dataset, factor, np.array(seen), np.array(told), log_noise[kept], np.array(ahead), last, truth)


def order(one: Case, shares: np.ndarray) -> np.ndarray:
    logs = one.seen + one.noise[:, None] + np.log(shares)
    weights = np.exp(logs - logsumexp(logs))
    found: np.ndarray = np.einsum("nh,nha->a", weights, one.ahead)
    return found


def maximise(train: list[Case]) -> np.ndarray:
    """Shares of the nodes by expectation maximisation; one case more that all nodes share."""
    logs = np.array([logsumexp(each.told + each.noise[:, None], axis=0) for each in train])
    shares = np.full(len(NODES), 1 / len(NODES))
    for _ in range(60):
        parts = logs + np.log(shares)
        counts = np.exp(parts - logsumexp(parts, axis=1, keepdims=True)).sum(axis=0)
        shares = (counts + 1 / len(NODES)) / (counts.sum() + 1)
    return shares


def show_order(path: Path) -> None:
    found, dataset, before = [], -1, np.inf
    for factor, x, top, names, errors, truth, oracle in cases(path):
        dataset, before = dataset + (factor <= before), factor
        try:
            found.append((case(dataset, factor, x, top, names, errors, truth), oracle))
        except ValueError as error:
            print(f"# refused, not in the table: {error}")
    even = np.full(len(NODES), 1 / len(NODES))
    fold = np.random.default_rng(1).permutation(dataset + 1) % FOLDS
    rows = []
    for out in range(FOLDS):
        learned = maximise([each for each, _ in found if fold[each.dataset] != out])
        for each, oracle in found:
            if fold[each.dataset] != out:
                continue
            a, b = np.triu_indices(len(each.truth), 1)
            differ = each.truth[a] != each.truth[b]
            a, b = a[differ], b[differ]
            ranked = {"ships": order(each, even), "learned": order(each, learned), "largest": each.last,
                      "oracle": oracle}  # fmt: skip
            told = {name: right(values, each.truth, a, b, tie=0.5) for name, values in ranked.items()}
            rows.append({"factor": each.factor, **told})
    print(pd.DataFrame(rows).groupby("factor").mean().round(4).to_string())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--curves", type=Path, metavar="FILE")
    parser.add_argument("--decisions", type=Path, metavar="FILE")
    given = parser.parse_args()
    if given.curves:
        show_shares(given.curves)
    if given.decisions:
        show_order(given.decisions)


if __name__ == "__main__":
    main()
