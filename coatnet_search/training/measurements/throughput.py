"""Images a second of a network in inference, at a given batch size or at the best one."""

from dataclasses import replace

from torch import nn

from coatnet_search.architecture.arch import Arch
from coatnet_search.training.measurements.conditions import Conditions, Measured, images_of, inference, named_failures
from coatnet_search.training.measurements.timing import Run, best_batch_size, repeats, summary

METRICS = ("throughput_images_per_s",)


def measure(model: nn.Module, arch: Arch, conditions: Conditions) -> Measured:
    """``throughput_images_per_s``: the median of the repeats; images lie on the device already."""
    with inference(model, conditions) as (_, network):

        def at(size: int) -> Run:
            images = images_of(arch, conditions, size)
            network(images)
            return lambda: network(images)

        best = conditions.batch_size == "best"
        size = best_batch_size(at, arch, conditions) if best else conditions.size
        with named_failures(arch, conditions, size):
            seconds = repeats(at(size), conditions.threads)
    rates = summary(*METRICS, [size / taken for taken in seconds])
    return Measured(metrics=rates, conditions=replace(conditions, batch_size=size), repeats=len(seconds))
