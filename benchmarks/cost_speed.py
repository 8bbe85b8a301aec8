"""How fast a candidate's cost is known, beside the counters of fvcore and torch on the same candidates.

    python benchmarks/cost_speed.py [--spaces digits cifar-tiny] [--candidates 2000] [--repeats 5] [--counted 3]

One thread of one process. ``count``: seconds until every block of the space is counted, from an empty cache; ``cost``:
candidates a second by ``space.cost`` after that, each candidate a new one; ``torch``, ``fvcore``: the same by building
the whole network and counting it (torch on the meta device, fvcore on the CPU). Medians over the repeats, or over the
networks counted; ``x torch`` and ``x fvcore`` are ratios within this run.
"""

import argparse
import importlib
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from coatnet_search.architecture.arch import Candidate
from coatnet_search.architecture.cost import macs_by_operator
from coatnet_search.core import bundled
from coatnet_search.space.space import Space, load_space

COUNTERS = ("torch", "fvcore")


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def counting(name: str) -> float:
    """Seconds to count all blocks of a space as the first process that ever does."""
    module = importlib.import_module("coatnet_search.architecture.cost")
    before = os.environ.get("COATNET_SEARCH_CACHE")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["COATNET_SEARCH_CACHE"] = folder
        for kept in (module._file, module.stage_count, module.stem_count, module.head_count):
            kept.cache_clear()
        took = seconds(lambda: load_space(name).survey)
    os.environ.pop("COATNET_SEARCH_CACHE")
    if before is not None:
        os.environ["COATNET_SEARCH_CACHE"] = before
    return took


def fresh(space: Space, number: int, rng: np.random.Generator) -> list[Candidate]:
    """Distinct candidates with the strides and widths of the space, whatever its limits."""
    found: dict[tuple[object, ...], Candidate] = {}
    while len(found) < number:
        candidate = {key: values[int(rng.integers(len(values)))] for key, values in space.choices.items()}
        found[tuple(candidate.values())] = candidate
    return list(found.values())


def all_costs(space: Space, candidates: Sequence[Candidate]) -> None:
    for candidate in candidates:
        space.cost(candidate)


def rates(name: str, candidates: int, repeats: int, counted: int) -> tuple[float, dict[str, float]]:
    """Candidates a second by ``space.cost``, and by each counter."""
    drawn = fresh(load_space(name), candidates * repeats, np.random.default_rng(0))
    space = load_space(name)
    own = statistics.median(
        candidates / seconds(partial(all_costs, space, drawn[start : start + candidates]))
        for start in range(0, len(drawn), candidates)
    )
    archs = [space.decode(candidate) for candidate in drawn[:counted]]
    others = {}
    for counter in COUNTERS:
        macs_by_operator(archs[0], counter)  # imports, first calls
        others[counter] = statistics.median(1 / seconds(partial(macs_by_operator, arch, counter)) for arch in archs)
    return own, others


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spaces", nargs="+", default=bundled.names("search_spaces"))
    parser.add_argument("--candidates", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--counted", type=int, default=3)
    given = parser.parse_args(argv)
    torch.set_num_threads(1)
    table = Table("space", "count, s", "cost, /s", "torch, /s", "fvcore, /s", "x torch", "x fvcore")
    for name in given.spaces:
        took = counting(name)
        own, others = rates(name, given.candidates, given.repeats, given.counted)
        table.add_row(name, f"{took:.1f}", f"{own:,.0f}", *(f"{others[by]:.2f}" for by in COUNTERS),
                      *(f"{own / others[by]:,.0f}" for by in COUNTERS))  # fmt: skip
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
