"""The most memory that inference of one batch holds at once: weights, images and all that lies between."""

import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from coatnet_search.architecture.arch import Arch
from coatnet_search.training.measurements.conditions import Conditions, Measured, images_of, inference, named_failures
from coatnet_search.training.measurements.timing import Run, best_batch_size, summary

METRICS = ("peak_memory_mib",)
REPEATS = 3
MIB = 2**20


def measure(model: nn.Module, arch: Arch, conditions: Conditions) -> Measured:
    """``peak_memory_mib``: bytes of weights and images, and the peak of what a forward pass allocates beyond them.

    On a GPU the latter is the rise of ``torch.cuda.max_memory_allocated``. On a CPU it is the highest sum of the
    allocations and releases that torch's profiler saw; memory that libraries take from the system themselves is in
    neither number, and neither is what the caching allocator or the process keeps in reserve.
    """
    with inference(model, conditions) as (ready, network):

        def at(size: int) -> Run:
            images = images_of(arch, conditions, size)
            network(images)
            return lambda: network(images)

        best = conditions.batch_size == "best"
        size = best_batch_size(at, arch, conditions) if best else conditions.size
        with named_failures(arch, conditions, size):
            run = at(size)
            rises = [peak_rise(run, conditions.place) for _ in range(REPEATS)]
        images = size * arch.in_channels * arch.image_size**2 * conditions.dtype.itemsize
        held = images + sum(part.nbytes for part in (*ready.parameters(), *ready.buffers()))
    found = summary(*METRICS, [(held + rise) / MIB for rise in rises])
    return Measured(metrics=found, conditions=replace(conditions, batch_size=size), repeats=REPEATS)


def peak_rise(run: Callable[[], object], device: torch.device) -> int:
    """The most bytes that a call holds at once beyond what was there before it; counted as in ``measure``."""
    return _peak_on_gpu(run, device) if device.type == "cuda" else _peak_on_cpu(run)


def _peak_on_gpu(run: Callable[[], object], device: torch.device) -> int:
    torch.cuda.synchronize(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    run()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before


def _peak_on_cpu(run: Callable[[], object]) -> int:
    os.environ.setdefault("KINETO_LOG_LEVEL", "9")  # it reports on stderr that it starts, stops and finds no GPU
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        run()
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        seen.export_chrome_trace(str(trace))  # the one public form in which allocations are in order
        events = json.loads(trace.read_text(encoding="utf-8"))["traceEvents"]
    changes = sorted(
        (event["ts"], place, event["args"]["Bytes"])
        for place, event in enumerate(events)
        if event.get("name") == "[memory]" and event["args"]["Device Type"] == 0
    )
    held = most = 0
    for _, _, change in changes:
        held += change
        most = max(most, held)
    return most
