"""Our CoAtNets against timm's with the same weights, alternating in one process: median ratios with intervals.

    OMP_NUM_THREADS=1 python benchmarks/model_speed.py                          # coatnet_0, batch 8, float32, eager
    python benchmarks/model_speed.py --device cuda --sizes 0 1 2 3 --compile    # bf16, batch 64 and 256

Every setting of each side runs once a round, in an order that is drawn anew, so that a disturbance meets all of them.
Each side then counts with its fastest setting: timm channels first or last, ours channels first or last, and for
inference with norms folded, which timm has no function for (ours unfolded is printed too). The rounds that choose the
settings are not those that count. A ratio is timm's time over ours of the same round; printed are the median over
rounds and its 95 % interval (order statistics). ``--clock cpu`` counts a single thread's processor time in place of
wall time, for machines that others use too.

Shares of the limits: multiply-adds against the speed of one large linear layer, and the numbers that convolutions,
linear layers and attention products write, once written and once read, against the speed of a large copy; with
backward three times both. What a fused network could not undercut, in other words.
"""

import argparse
import copy
import datetime
import itertools
import platform
import random
import statistics
import time
import timeit
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import timm
import torch
from scipy.stats import binom
from torch import Tensor, nn
from torch.utils.benchmark import Timer

from coatnet_search.architecture.arch import Arch
from coatnet_search.architecture.blocks.common import Dense
from coatnet_search.architecture.build import build
from coatnet_search.architecture.cost import cost
from coatnet_search.architecture.fold_norms import fold_norms
from coatnet_search.architecture.timm_bridge import from_timm
from coatnet_search.training.device import describe

FORMATS = {"channels first": torch.contiguous_format, "channels last": torch.channels_last}
BATCH_SIZES = {"cpu": (8,), "cuda": (64, 256)}
CHOOSING = 3  # rounds that only choose each side's setting

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
STEPS = {"cpu": 1, "cuda": 10}  # that are timed together: on a GPU a single one is mostly waiting

Step = Callable[[], Any]
Settings = dict[str, Step]
Limits = tuple[float, float]  # operations and bytes a second


def main() -> None:
    options = _options()
    device = torch.device(options.device)
    conditions = (
        datetime.date.today(), describe(device), platform.machine(), f"torch {torch.__version__}",
        f"timm {timm.__version__}", "bf16" if device.type == "cuda" else "float32",
        "compiled" if options.compile else "eager", f"{options.rounds} rounds", f"{options.clock} time",
    )  # fmt: skip
    print(*conditions, sep=", ", flush=True)
    limits = _limits(device)
    batch_sizes = options.batch_sizes or BATCH_SIZES[device.type]
    for size, batch_size, mode in itertools.product(options.sizes, batch_sizes, options.modes):
        _compare(size, batch_size, mode == "training", device, options, limits)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--sizes", type=int, nargs="+", default=[0], choices=range(6))
    parser.add_argument("--batch-sizes", type=int, nargs="+")
    parser.add_argument("--modes", nargs="+", default=["inference", "training"], choices=("inference", "training"))
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=15, help="that count; 6 or more for an interval")
    parser.add_argument("--clock", default="wall", choices=CLOCKS)
    parser.add_argument("--compile", action="store_true")
    options = parser.parse_args()
    if options.clock == "cpu" and (options.device != "cpu" or torch.get_num_threads() > 1):
        parser.error("--clock cpu: for one thread on a CPU; set OMP_NUM_THREADS=1")
    return options


def _compare(size: int, batch_size: int, training: bool, device: torch.device, options: Any, limits: Limits) -> None:
    arch, settings = _settings(size, batch_size, training, device, options)
    clock = CLOCKS[options.clock]
    first = {label: min(times[1:]) for label, times in _rounds(settings, CHOOSING + 1, clock).items()}
    sides = (lambda name: name.startswith("timm"), lambda name: name.startswith("ours"),
             lambda name: name.startswith("ours") and "folded" not in name)  # fmt: skip
    theirs, ours, plain = (min(filter(side, settings), key=first.__getitem__) for side in sides)
    times = _rounds({label: settings[label] for label in {theirs, ours, plain}}, options.rounds, clock)
    speed = {label: STEPS[device.type] * batch_size / statistics.median(found) for label, found in times.items()}
    passes = 3 if training else 1
    number = 2 if device.type == "cuda" else 4  # bytes
    found = cost(arch)
    for label in dict.fromkeys((ours, plain)):
        ratios = [a / b for a, b in zip(times[theirs], times[label], strict=True)]
        low, high = _interval(ratios)
        compute = 2 * passes * found.macs * speed[label] / limits[0]
        memory = 2 * passes * found.activations * number * speed[label] / limits[1]
        what = f"coatnet_{size} batch {batch_size} {'forward+backward' if training else 'inference'}"
        print(f"{what}: {statistics.median(ratios):.3f}x [{low:.3f}, {high:.3f}], "
              f"{speed[label]:.1f} images/s ({label}) against {speed[theirs]:.1f} ({theirs}); "
              f"limits: compute {compute:.0%}, memory {memory:.0%}", flush=True)  # fmt: skip


def _settings(size: int, batch_size: int, training: bool, device: torch.device, options: Any) -> tuple[Arch, Settings]:
    """What is compared by name, all with the same weights."""
    source = timm.create_model(f"coatnet_{size}_224", img_size=options.image_size)
    arch, weights = from_timm(source)
    images = torch.randn(batch_size, 3, options.image_size, options.image_size, device=device)
    settings: Settings = {}
    for name, layout in FORMATS.items():
        models = {f"timm {name}": copy.deepcopy(source), f"ours {name}": build(arch, weights)}
        if not training:
            models[f"ours {name}, folded"] = fold_norms(models[f"ours {name}"])
        for label, model in models.items():
            model = model.to(device, memory_format=layout).train(training)
            settings[label] = _step(model, images.contiguous(memory_format=layout), training, options.compile)
    return arch, settings


def _step(model: nn.Module, images: Tensor, training: bool, compiled: bool) -> Step:
    run, device = torch.compile(model) if compiled else model, images.device.type

    def one() -> None:
        precision = torch.autocast("cuda", torch.bfloat16) if device == "cuda" else nullcontext()
        if not training:
            with torch.inference_mode(), precision:
                run(images)
            return
        with precision:
            loss = run(images).float().square().mean()
        loss.backward()
        model.zero_grad(set_to_none=True)

    def steps() -> None:
        for _ in range(STEPS[device]):
            one()
        if device == "cuda":
            torch.cuda.synchronize()

    return steps


def _rounds(settings: Settings, count: int, clock: Callable[[], float]) -> dict[str, list[float]]:
    """Seconds of every setting in every round, for one step on a CPU and for ten on a GPU."""
    times: dict[str, list[float]] = {label: [] for label in settings}
    order = list(settings)
    for _ in range(count):
        random.shuffle(order)
        for label in order:
            times[label].append(timeit.Timer(settings[label], timer=clock).timeit(1))
    return times


def _interval(values: Sequence[float]) -> tuple[float, float]:
    """At least 95 % for the median, whatever the distribution; the whole range where there are too few values."""
    ordered, count = sorted(values), len(values)
    drop = max(int(binom.ppf(0.025, count, 0.5)) - 1, 0)
    return ordered[drop], ordered[-1 - drop]


@torch.no_grad()
def _limits(device: torch.device) -> Limits:
    """Of a large linear layer in the precision of the comparison, and of a large copy (read and written)."""
    side, dtype = (8192, torch.bfloat16) if device.type == "cuda" else (1024, torch.float32)
    layer = Dense(side, side).to(device, dtype)
    tokens = torch.randn(16, 16, 16, side, device=device, dtype=dtype)
    large = torch.empty(2**30 if device.type == "cuda" else 2**27, device=device, dtype=torch.uint8)
    there = torch.empty_like(large)

    def fastest(statement: str, **names: Any) -> float:
        timer = Timer(statement, globals=names, num_threads=torch.get_num_threads())
        return min(timer.timeit(3).median for _ in range(5))

    seconds = fastest("layer(tokens)", layer=layer, tokens=tokens)
    return 2 * tokens.numel() * side / seconds, 2 * large.numel() / fastest("b.copy_(a)", a=large, b=there)


if __name__ == "__main__":
    main()
