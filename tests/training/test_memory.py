"""How many images a step takes at once: found by a probe that leaves no trace; an estimate without a device."""

import dataclasses
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from coatnet_search.architecture.arch import Arch, Stage, Stem
from coatnet_search.architecture.build import seeded_build
from coatnet_search.data.batches import Data
from coatnet_search.data.load import load_data
from coatnet_search.data.spec import DataSpec
from coatnet_search.training.budget import Budget
from coatnet_search.training.checkpoint import Checkpoint
from coatnet_search.training.loop import Run
from coatnet_search.training.memory import activation_bytes, images_at_once, limit_share, training_bytes
from coatnet_search.training.process_group import SINGLE_PROCESS
from coatnet_search.training.recipe import make_recipe, recipe_values

CPU = torch.device("cpu")
ARCH = Arch(image_size=32, in_channels=3, num_classes=10, stem=Stem(width=16, stride=2),
            stages=(Stage(block="C", depth=2, width=16, stride=2),
                    Stage(block="T", depth=2, width=32, head_size=8)))  # fmt: skip


class Small(nn.Module):
    """Runs out of memory beyond ``most`` images, after its BatchNorm has seen them."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.norm, self.linear, self.most = nn.BatchNorm2d(1), nn.Linear(64, 10), most
        self.seen: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(len(x))
        x = nn.functional.dropout(self.norm(x + 1), 0.5)
        if len(x) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self.linear(x.flatten(1))


@pytest.fixture(scope="module")
def data() -> Data:
    return load_data(DataSpec(name="digits"))


def a_run(data: Data, model: nn.Module, **recipe: Any) -> Run:
    made = make_recipe({"name": "digits", "batch_size": 64, "micro_batch": "auto", **recipe})
    return Run(model, data, made, Budget(epochs=2, num_images=256), CPU, nullcontext, SINGLE_PROCESS)


@pytest.mark.parametrize("mixup", [0.0, 0.4])
def test_a_probe_halves_what_is_taken_at_once_until_it_fits(data: Data, mixup: float) -> None:
    run = a_run(data, Small(most=20), mixup=mixup)

    found = run._fitting()

    assert found == 16
    assert run.model.seen == [64, 32, 16]


def test_a_probe_leaves_statistics_gradients_and_random_numbers_as_they_were(data: Data) -> None:
    run = a_run(data, Small(most=20))
    before = {name: value.clone() for name, value in run.model.state_dict().items()}
    random = torch.random.get_rng_state()

    run._fitting()

    assert all(torch.equal(value, before[name]) for name, value in run.model.state_dict().items())
    assert all(parameter.grad is None for parameter in run.model.parameters())
    assert torch.equal(torch.random.get_rng_state(), random)


def test_a_network_of_which_not_one_image_fits_is_out_of_memory(data: Data) -> None:
    run = a_run(data, Small(most=0))

    with pytest.raises(torch.OutOfMemoryError):
        run._fitting()


def test_another_fault_than_memory_ends_a_probe() -> None:
    tried = []

    def attempt(images: int) -> None:
        tried.append(images)
        raise ValueError("no such layer")

    with pytest.raises(ValueError, match="no such layer"):
        images_at_once(64, attempt, CPU, SINGLE_PROCESS)
    assert tried == [64]


def test_a_batch_that_does_not_halve_is_taken_in_nearly_equal_parts() -> None:
    def attempt(images: int) -> None:
        if images > 100:
            raise MemoryError

    assert images_at_once(359, attempt, CPU, SINGLE_PROCESS) == 90


def test_workers_agree_on_the_fewest_images_that_fit_one_of_them() -> None:
    class Group:
        def sum(self, values: Tensor) -> Tensor:  # as if another worker failed at more than 8
            return values + (tried[-1] > 8)

    tried: list[int] = []

    assert images_at_once(64, tried.append, CPU, Group()) == 8  # type: ignore[arg-type]


def test_a_resumed_run_takes_as_many_at_once_as_before(data: Data) -> None:
    run = a_run(data, Small(most=64))
    run.probed, run.micro = True, 64

    run.restore(Checkpoint(1, run.tensors(), [{"epoch": 1, "micro_batch": 16.0}]))

    assert run.micro == 16


def test_on_a_cpu_nothing_is_probed_or_recorded(data: Data) -> None:
    model = Small(most=300)
    run = a_run(data, model)

    row = run.epoch(1)

    assert run.micro == 64
    assert model.seen[:4] == [64] * 4
    assert "micro_batch" not in row


def test_automatic_parts_are_the_papers_recipes_and_leave_their_digests_alone() -> None:
    paper, fixed = make_recipe({"name": "paper-imagenet"}), make_recipe({"name": "paper-imagenet", "micro_batch": 64})

    assert paper.micro_batch == "auto"
    assert "micro_batch" not in recipe_values(paper)
    assert make_recipe(recipe_values(paper)) == paper
    assert recipe_values(fixed)["micro_batch"] == 64
    assert recipe_values(make_recipe({"name": "digits", "micro_batch": "auto"}))["micro_batch"] == "auto"


def test_the_estimate_of_activations_is_what_a_forward_pass_keeps() -> None:
    kept: dict[int, Tensor] = {}
    model = seeded_build(ARCH, 0).train()
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    with torch.autograd.graph.saved_tensors_hooks(
        lambda tensor: kept.setdefault(tensor.untyped_storage().data_ptr(), tensor) is None or tensor, lambda one: one
    ):
        model(torch.randn(16, 3, 32, 32)).logsumexp(1).sum()
    real = sum(one.untyped_storage().nbytes() for place, one in kept.items() if place not in own)

    assert 16 * activation_bytes(ARCH, "float32") == pytest.approx(real, rel=0.1)


def test_half_precision_and_fewer_pixels_hold_less() -> None:
    full, half = activation_bytes(ARCH, "float32"), activation_bytes(ARCH, "bfloat16")
    large = activation_bytes(dataclasses.replace(ARCH, image_size=64), "float32")

    assert 0.4 * full < half < 0.8 * full
    assert large > 3.5 * full


def test_an_average_of_the_weights_and_a_blended_batch_are_held_too() -> None:
    plain = make_recipe({"name": "digits", "batch_size": 64})
    more = dataclasses.replace(plain, ema=0.9, mixup=0.2)

    held, image = training_bytes(ARCH, 1000, plain, "float32")
    held_more, image_more = training_bytes(ARCH, 1000, more, "float32")

    assert image == image_more
    assert held_more - held == 4 * 1000 + 64 * 3 * 32 * 32 * 4


@pytest.mark.parametrize(("share", "fraction"), [(0.25, 0.25), (1.0, 1.0), (2.0, 1.0)])
def test_a_process_that_shares_a_gpu_takes_no_more_than_its_part(monkeypatch, share, fraction):
    told = []
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda *given: told.append(given))

    limit_share(torch.device("cuda", 1), share)
    limit_share(torch.device("cpu"), share)

    assert told == [(fraction, 1)]
