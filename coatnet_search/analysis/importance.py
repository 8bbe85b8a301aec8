"""Ranks the dimensions of a space by importance (Optuna's evaluators), for quality and for reaching the front."""

import logging
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import optuna
import pandas as pd
from optuna.importance import FanovaImportanceEvaluator, PedAnovaImportanceEvaluator, get_param_importances

from coatnet_search.analysis.frame import Floats
from coatnet_search.analysis.front import as_costs
from coatnet_search.analysis.insights import LAYOUT, LEAST, candidates
from coatnet_search.core.quantities import Sense, quality

MOST_VALUES = 10  # of a choice that is no number: fANOVA walks through all subsets of its values, 0.7 s for ten of them
MOST = 500  # trials, about two seconds; twice as many are no nearer to the shares of all of 2,000


def importance(frame: pd.DataFrame, objectives: Mapping[str, Sense]) -> pd.DataFrame:
    """A row a dimension: ``importance``, its share of the variance of the quality over all trials (fANOVA), and
    ``for_the_front``, its share in what sets the best tenth apart, by all objectives with their directions (PED-ANOVA,
    Watanabe et al., arXiv 2304.10255). The most important first; empty below ``LEAST`` trials. ``attrs["left_out"]``:
    dimensions of which nothing is said, with the reason.

    Of more than ``MOST`` trials so many are drawn, always the same: trees grow slowly. Costs are not taken out here:
    ``marginals`` does that.
    """
    rows = candidates(frame, objectives)
    named = [name for name in rows.attrs["dimensions"] if name != LAYOUT and not _same(rows[name], rows[LAYOUT])]
    left_out = _not_ranked(rows, named)
    names = [name for name in named if name not in left_out]
    empty = pd.DataFrame({"dimension": [], "importance": [], "for_the_front": []})
    empty.attrs["left_out"] = left_out if len(rows) >= LEAST else {}
    if len(rows) < LEAST or not names:
        return empty
    if len(rows) > MOST:
        rows = rows.sample(MOST, random_state=0)
    losses = as_costs(rows, objectives)
    main = list(objectives).index(quality(objectives))
    if np.ptp(losses[:, main]) == 0:
        return empty
    overall, best = _optuna(rows[names], losses, main)
    table = pd.DataFrame({"dimension": names, "importance": [overall[name] for name in names],
                          "for_the_front": [best[name] for name in names]})  # fmt: skip
    table = table.sort_values("importance", ascending=False, kind="stable", ignore_index=True)
    table.attrs["left_out"] = left_out
    return table


def _same(values: pd.Series, layouts: pd.Series) -> bool:
    """Whether a choice is the layout by another name: the arm of an imported record."""
    return bool((values.map(str) == layouts.map(str)).all())


def _not_ranked(rows: pd.DataFrame, names: Sequence[str]) -> dict[str, str]:
    """The dimensions that say nothing, or that cannot be ranked, and why."""
    found = {}
    for name in names:
        count = rows[name].map(str).nunique()
        if isinstance(_distribution(rows[name].tolist()), _NUMBERS):
            continue
        if 2 * count > len(rows):
            found[name] = f"{count} values in {len(rows)} trials, fewer than two trials a value"
        elif count > MOST_VALUES:
            found[name] = f"{count} values that are no numbers; at most {MOST_VALUES} are ranked"
    return found


def _optuna(choices: pd.DataFrame, losses: Floats, main: int) -> tuple[dict[str, float], dict[str, float]]:
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # marked as experimental there
            study = optuna.create_study(directions=["minimize"] * losses.shape[1])
            kinds = {name: _distribution(choices[name].tolist()) for name in choices}
            told = choices.map(_category).to_dict("records")
            for params, values in zip(told, losses.tolist(), strict=True):
                trial = optuna.trial.create_trial(params=params, distributions=kinds, values=values)
                study.add_trial(trial)
            overall = get_param_importances(
                study, evaluator=FanovaImportanceEvaluator(seed=0), target=lambda trial: trial.values[main]
            )
            best = get_param_importances(study, evaluator=PedAnovaImportanceEvaluator())
    finally:
        optuna.logging.set_verbosity(level)
    return {**dict.fromkeys(choices, 0.0), **overall}, {**dict.fromkeys(choices, 0.0), **best}


def _distribution(values: Sequence[Any]) -> optuna.distributions.BaseDistribution:
    """Numbers are a range: as categories, each of dozens of widths would be a column of its own."""
    if all(isinstance(value, int) and not isinstance(value, bool) for value in values):
        return optuna.distributions.IntDistribution(min(values), max(values))
    if all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values):
        return optuna.distributions.FloatDistribution(min(values), max(values))
    return optuna.distributions.CategoricalDistribution(sorted({_category(value) for value in values}, key=str))


def _category(value: Any) -> Any:
    """A value as Optuna has it: lists and the like as text."""
    return value if isinstance(value, (str, int, float, bool)) or value is None else str(value)


_NUMBERS = (optuna.distributions.IntDistribution, optuna.distributions.FloatDistribution)
