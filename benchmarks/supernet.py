"""Networks inside the supernet against the same networks taken out of it, alternating in one process.

    OMP_NUM_THREADS=1 python benchmarks/supernet.py --clock cpu                # cifar-tiny, batch 128, float32
    python benchmarks/supernet.py --space imagenet-layouts --device cuda       # bf16, batch 64

A step is forward, backward and the release of the gradients. Printed are median ratios over rounds of the supernet's
time to the network's alone, of the same round, with the 95 % interval; target: at most 1.10. Candidates go from the
smallest to the largest by multiply-adds of a random sample. A sandwich step is the largest, the smallest and two
others, their gradients summed; the extracted networks take the same four steps one after another. Memory is what a step
holds at its most, weights and gradients in it; target: at most 1.15 of the largest network's plus the shared weights.
``--clock cpu`` counts a single thread's processor time in place of wall time, for machines that others use too.
"""

import argparse
import random
import statistics
import tempfile
import time
import timeit
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from scipy.stats import binom
from torch import Tensor

from coatnet_search.architecture.arch import Candidate
from coatnet_search.architecture.build import build
from coatnet_search.space.space import Space, load_space
from coatnet_search.supernet.network import Supernet
from coatnet_search.supernet.tensor_files import load_supernet, save_supernet
from coatnet_search.training.device import describe
from coatnet_search.training.measurements.peak_memory import peak_rise

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
DRAWN = 300  # random candidates, of which those at equal distances by multiply-adds are compared
PARTS = ("candidates", "sandwich", "memory", "files")
Step = Callable[[], None]


def main() -> None:
    options = _options()
    device = torch.device(options.device)
    space, images = load_space(options.space), _images(load_space(options.space), options, device)
    with device:
        net = Supernet(space, init="fan_in").to(memory_format=torch.channels_last)
    print(space.name, f"batch {options.batch_size}", describe(device), f"torch {torch.__version__}",
          "bf16" if device.type == "cuda" else "float32", f"{options.rounds} rounds", f"{options.clock} time",
          f"{net.memory.weights / 2**20:.1f} MiB of shared weights", sep=", ", flush=True)  # fmt: skip
    chosen = _from_smallest_to_largest(space, options.candidates)
    parts = {"candidates": _candidates, "sandwich": _sandwich, "memory": _memory, "files": _files}
    for part in options.parts:
        parts[part](net, chosen, images, options)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--space", default="cifar-tiny")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--candidates", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=15, help="6 or more for an interval")
    parser.add_argument("--clock", default="wall", choices=CLOCKS)
    parser.add_argument("--parts", nargs="+", default=PARTS, choices=PARTS)
    options = parser.parse_args()
    if options.clock == "cpu" and (options.device != "cpu" or torch.get_num_threads() > 1):
        parser.error("--clock cpu: for one thread on a CPU; set OMP_NUM_THREADS=1")
    options.batch_size = options.batch_size or (64 if options.device == "cuda" else 128)
    return options


def _images(space: Space, options: argparse.Namespace, device: torch.device) -> Tensor:
    side = space.file.image_size
    assert isinstance(side, int)
    images = torch.randn(options.batch_size, space.file.in_channels, side, side, device=device)
    return images.contiguous(memory_format=torch.channels_last)


def _from_smallest_to_largest(space: Space, count: int) -> list[Candidate]:
    rng = np.random.default_rng(0)
    drawn = sorted((space.sample(rng) for _ in range(DRAWN)), key=lambda one: space.cost(one).macs)
    return [drawn[round(place * (DRAWN - 1) / max(1, count - 1))] for place in range(count)]


# --- what is compared -----------------------------------------------------------------------------------------------


def _inside(net: Supernet, candidates: Sequence[Candidate], images: Tensor) -> Step:
    """The candidates one after another in the supernet, their gradients summed."""

    def step() -> None:
        for candidate in candidates:
            _forward_backward(lambda candidate=candidate: net(images, candidate), images)
        net.zero_grad()

    return step


def _alone(net: Supernet, candidates: Sequence[Candidate], images: Tensor) -> Step:
    """The same networks, each with weights of its own."""
    networks = [build(*net.extract(candidate)).to(images.device, memory_format=torch.channels_last)
                for candidate in candidates]  # fmt: skip

    def step() -> None:
        for network in networks:
            _forward_backward(lambda network=network: network(images), images)
            network.zero_grad()

    return step


def _forward_backward(run: Callable[[], Tensor], images: Tensor) -> None:
    with torch.autocast("cuda", torch.bfloat16) if images.is_cuda else nullcontext():
        loss = run().float().square().mean()
    loss.backward()


def _candidates(net: Supernet, chosen: Sequence[Candidate], images: Tensor, options: argparse.Namespace) -> None:
    middles = []
    for candidate in chosen:
        ratios = _ratios(_inside(net, [candidate], images), _alone(net, [candidate], images), images, options)
        found = net.network(candidate).arch
        middles.append(statistics.median(ratios))
        print(f"{net.space.cost(candidate).macs / 1e6:9.2f} M {found.layout:8} {_told(ratios)}", flush=True)
    print(f"largest median {max(middles):.3f}, mean {statistics.mean(middles):.3f}", flush=True)


def _sandwich(net: Supernet, chosen: Sequence[Candidate], images: Tensor, options: argparse.Namespace) -> None:
    four = [chosen[-1], chosen[0], chosen[len(chosen) // 3], chosen[2 * len(chosen) // 3]]
    ratios = _ratios(_inside(net, four, images), _alone(net, four, images), images, options)
    print(f"sandwich step against its networks alone: {_told(ratios)}", flush=True)


def _ratios(ours: Step, theirs: Step, images: Tensor, options: argparse.Namespace) -> list[float]:
    clock, pairs = CLOCKS[options.clock], []
    for place in range(options.rounds + 1):
        times = {}
        for step in random.sample((ours, theirs), 2):
            times[step] = timeit.Timer(lambda step=step: _finished(step, images), timer=clock).timeit(1)
        if place:  # the first is a warm-up
            pairs.append(times[ours] / times[theirs])
    return pairs


def _finished(step: Step, images: Tensor) -> None:
    step()
    if images.is_cuda:
        torch.cuda.synchronize()


def _told(ratios: Sequence[float]) -> str:
    ordered, count = sorted(ratios), len(ratios)
    drop = max(int(binom.ppf(0.025, count, 0.5)) - 1, 0)
    return f"{statistics.median(ratios):.3f}x [{ordered[drop]:.3f}, {ordered[-1 - drop]:.3f}]"


def _memory(net: Supernet, chosen: Sequence[Candidate], images: Tensor, options: argparse.Namespace) -> None:
    weights = net.memory.weights
    largest = net.space.cost(chosen[-1])
    alone = peak_rise(_alone(net, chosen[-1:], images), images.device) + 4 * largest.params
    most = 0.0
    for candidate in chosen:
        held = peak_rise(_inside(net, [candidate], images), images.device) + weights
        most = max(most, (held - weights) / alone)
    print(f"memory of a single-path step: {most:.3f} of the largest network's {alone / 2**20:.1f} MiB, plus "
          f"{weights / 2**20:.1f} MiB of shared weights", flush=True)  # fmt: skip


def _files(net: Supernet, chosen: Sequence[Candidate], images: Tensor, options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "supernet.safetensors"
        saving = timeit.timeit(lambda: save_supernet(net, path), number=1)
        made = timeit.timeit(lambda: Supernet(net.space), number=1)
        loading = timeit.timeit(lambda: load_supernet(path, net.space), number=1)
        size = path.stat().st_size / 2**20
    print(f"saved in {saving:.2f} s, loaded in {loading:.2f} s ({size:.1f} MiB; a fresh supernet takes {made:.2f} s)")


if __name__ == "__main__":
    main()
