"""Tells in a sentence whether trials of some layouts fail more often than chance would have it."""

import numpy as np
import pandas as pd

from coatnet_search.analysis.frame import complete, searched
from coatnet_search.analysis.front import join_words

ENDED = ("done", "stopped", "failed")  # what was trained; a refused trial never was
LEVEL = 0.05  # of the test
DRAWS = 1999
NAMED = 3  # layouts


def failing_layouts(frame: pd.DataFrame) -> list[str]:
    """Which layouts failed, which did not, and that the answer is among the latter, in a sentence; none where
    chance may well spread failures so.

    A permutation test: were failures dealt to trials whatever their layout, their numbers by layout would follow
    a multivariate hypergeometric distribution. The statistic is that of the chi-squared test at given margins.
    """
    frame = searched(complete(frame))
    rows = frame[frame["state"].isin(ENDED) & frame["layout"].notna()]
    failed = rows.assign(failed=rows["state"] == "failed").groupby(rows["layout"].astype(str))["failed"]
    counts = pd.DataFrame({"failed": failed.sum().astype(int), "trials": failed.size()})
    total = int(counts["failed"].sum())
    if len(counts) < 2 or total in (0, len(rows)) or _chance(counts, total) > LEVEL:
        return []
    counts["rate"] = counts["failed"] / counts["trials"]
    often = counts[counts["rate"] > total / len(rows)].sort_values(["rate", "trials"], ascending=False, kind="stable")
    kinds = rows.loc[rows["layout"].isin(often.index) & (rows["state"] == "failed"), "failure_kind"].dropna()
    causes = join_words([str(kind) for kind in kinds.value_counts().index[:2]])
    return [f"{_share(often)} failed{f' ({causes})' if causes else ''}, {_share(counts.drop(often.index))}, which is "
            "more than chance: the answer is among the trials that did not fail."]  # fmt: skip


def _chance(counts: pd.DataFrame, total: int) -> float:
    """The p-value of the failures' numbers by layout."""
    failed, trials = counts["failed"].to_numpy(), counts["trials"].to_numpy()
    dealt = np.random.default_rng(0).multivariate_hypergeometric(trials, total, size=DRAWS)
    seen, apart = (failed**2 / trials).sum(), (dealt**2 / trials).sum(axis=1)
    return float((1 + (apart >= seen - 1e-9).sum()) / (1 + DRAWS))


def _share(counts: pd.DataFrame) -> str:
    """``6 of 8 trials of C-T-T-T``; ``none of 16 trials of C-C-C-C and C-C-C-T``."""
    names = [str(name) for name in counts.index]
    more = len(names) - NAMED
    shown = names if more <= 0 else [*names[:NAMED], f"{more} more layout{'s' if more > 1 else ''}"]
    return f"{int(counts['failed'].sum()) or 'none'} of {int(counts['trials'].sum()):,} trials of {join_words(shown)}"
