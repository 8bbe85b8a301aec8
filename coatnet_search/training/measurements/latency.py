"""How long one image takes, at batch size 1: what a user waits for."""

from dataclasses import replace

import numpy as np
from torch import nn

from coatnet_search.architecture.arch import Arch
from coatnet_search.training.measurements.conditions import Conditions, Measured, images_of, inference, named_failures
from coatnet_search.training.measurements.timing import single_runs, summary

METRICS = ("latency_ms", "latency_p95_ms")
RUNS = 60  # one by one: three of them are above the 95th percentile
RESAMPLES = 200  # of those, for the spread of their percentile


def measure(model: nn.Module, arch: Arch, conditions: Conditions) -> Measured:
    """``latency_ms``: the median of single runs; ``latency_p95_ms``: their 95th percentile, whose spread is the
    interquartile range over resampled runs. The batch size is 1 whatever the conditions say."""
    conditions = replace(conditions, batch_size=1)
    with inference(model, conditions) as (_, network), named_failures(arch, conditions, 1):
        images = images_of(arch, conditions, 1)
        single_runs(lambda: network(images), max(2, RUNS // 10))
        times = 1000 * np.asarray(single_runs(lambda: network(images), RUNS))
    drawn = np.random.default_rng(0).choice(times, (RESAMPLES, len(times)))
    late = summary("latency_p95_ms", np.quantile(drawn, 0.95, axis=1).tolist())
    late["latency_p95_ms"] = float(np.quantile(times, 0.95))
    return Measured(metrics=summary("latency_ms", times.tolist()) | late, conditions=conditions, repeats=len(times))
