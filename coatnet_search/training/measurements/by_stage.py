"""Times each part of a network in one forward pass: the stem, every stage, the head.

No measurement of a study: its numbers are for looking at.
"""

from collections.abc import Iterator
from functools import partial

from torch import Tensor, nn

from coatnet_search.architecture.arch import Arch
from coatnet_search.architecture.build import CoAtNet
from coatnet_search.training.measurements.conditions import Conditions, images_of, inference, named_failures
from coatnet_search.training.measurements.timing import repeats, summary

LOOK_SECONDS = 0.1  # of repeats a part


def stage_times(model: CoAtNet, arch: Arch, conditions: Conditions) -> dict[str, dict[str, float]]:
    """``ms`` (the median of the repeats) and ``ms_spread`` of ``stem``, ``s1``, ``s2``, ... and ``head`` (the names of
    ``Cost.by_stage``), in the order in which an image passes them; each runs alone, on what the part before it gives.
    Milliseconds a batch.

    Raises MeasurementFailed where memory ends.
    """
    with inference(model, conditions) as (ready, _), named_failures(arch, conditions, conditions.size):
        found, x = {}, images_of(arch, conditions, conditions.size)
        for name, part in _parts(ready):
            found[name] = _times(part, x, conditions.threads)
            x = part(x)
    return found


def _parts(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    parts = dict(network.named_children())
    yield "stem", parts["stem"]
    for place, stage in enumerate(parts["stages"].children(), 1):
        yield f"s{place}", stage
    yield "head", parts["head"]


def _times(part: nn.Module, x: Tensor, threads: int) -> dict[str, float]:
    run = partial(part, x)
    run()
    return summary("ms", [1000 * seconds for seconds in repeats(run, threads, LOOK_SECONDS)])
