"""Images a second of training: forward, cross-entropy, backward and a step of AdamW."""

import copy
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import nn

from coatnet_search.architecture.arch import Arch
from coatnet_search.training.compilation import GraphedSteps, check_compiler, compiled_by_block
from coatnet_search.training.device import autocast, exact_float32
from coatnet_search.training.measurements.conditions import (
    Conditions,
    Measured,
    images_of,
    named_failures,
    threads,
)
from coatnet_search.training.measurements.timing import Run, best_batch_size, repeats, summary

METRICS = ("train_images_per_s",)


def measure(model: nn.Module, arch: Arch, conditions: Conditions) -> Measured:
    """``train_images_per_s``: the median of the repeats; images lie on the device, nothing is augmented.

    Weights are float32; a half precision is autocast, as in training. Nothing is folded: BatchNorm learns.
    """
    conditions = replace(conditions, fold=False)
    exact_float32(conditions.place)
    devices = [conditions.place] if conditions.place.type == "cuda" else []
    with threads(conditions.threads), torch.random.fork_rng(devices):  # stochastic depth draws
        at = _steps(model, arch, conditions)
        best = conditions.batch_size == "best"
        size = best_batch_size(at, arch, conditions) if best else conditions.size
        with named_failures(arch, conditions, size):
            seconds = repeats(at(size), conditions.threads)
    rates = summary(*METRICS, [size / taken for taken in seconds])
    return Measured(metrics=rates, conditions=replace(conditions, batch_size=size), repeats=len(seconds))


def _steps(model: nn.Module, arch: Arch, conditions: Conditions) -> Callable[[int], Run]:
    """A training step at a batch size, of one copy of the model."""
    learner = copy.deepcopy(model).train().requires_grad_(True)
    learner = learner.to(memory_format=conditions.layout)  # type: ignore[call-overload]
    network: nn.Module = learner
    if conditions.compile:
        check_compiler(conditions.place, conditions.compile)
        network = compiled_by_block(learner)
    optimizer = torch.optim.AdamW(learner.parameters(), lr=1e-6, fused=True)
    loss = nn.CrossEntropyLoss()

    def at(size: int) -> Run:
        images = images_of(arch, conditions, size, torch.float32)
        called = GraphedSteps(network) if conditions.compile == "graphs" else network
        labels = torch.arange(size, device=conditions.place) % arch.num_classes

        def step() -> None:
            optimizer.zero_grad()
            with autocast(conditions.precision, conditions.place):
                logits = called(images)
            loss(logits.float(), labels).backward()
            optimizer.step()

        step()  # the optimiser's moments are made in the first one
        return step

    return at
