"""Parts of a recipe that change how a step is computed, and not what: parts of a batch, checkpointing, workers."""

import dataclasses
import os
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, distributed, nn

from coatnet_search.arch import Arch, Budget, Stage, Stem
from coatnet_search.build import seeded_build
from coatnet_search.config import DataSpec
from coatnet_search.datasets import Data, load_data
from coatnet_search.datasets.data import share
from coatnet_search.datasets.memory import InMemory
from coatnet_search.errors import InputError
from coatnet_search.recipe import Recipe, make_recipe
from coatnet_search.train import train
from coatnet_search.world import World

BUDGET = Budget(epochs=2, num_images=256)
ARCH = Arch(image_size=8, in_channels=1, num_classes=10, stem=Stem(depth=1, width=8, stride=1),
            stages=(Stage(block="C", depth=2, width=8, stride=2),
                    Stage(block="T", depth=1, width=16, head_size=8)))  # fmt: skip


class Plain(nn.Module):
    """A network without BatchNorm: its answer to an image does not depend on the rest of the batch."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.layers = nn.Sequential(nn.Conv2d(1, 8, 3, 2), nn.GELU(), nn.Flatten(), nn.Linear(72, 10))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


@pytest.fixture(scope="module")
def data() -> Data:
    return load_data(DataSpec(name="digits"))


@pytest.fixture
def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def recipe(**changes: Any) -> Recipe:
    return make_recipe({"name": "digits", "batch_size": 64, "clip_norm": 0, **changes})


def trained(data: Data, recipe: Recipe, model: nn.Module | None = None, **options: Any) -> list[dict[str, float]]:
    return list(train(model or Plain(), data, recipe, BUDGET, "cpu", **options))


def test_a_batch_in_parts_is_the_same_step_as_the_whole(data):
    whole, parts = Plain(), Plain()

    one = trained(data, recipe(), whole)
    two = trained(data, recipe(micro_batch=16), parts)

    assert one[-1]["train_loss"] == pytest.approx(two[-1]["train_loss"], abs=1e-4)
    for a, b in zip(whole.parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-3, rtol=1e-2)


def test_gradient_checkpointing_computes_the_same_to_the_bit(data):
    plain, again = (seeded_build(ARCH, 0, init="fan_in") for _ in range(2))

    trained(data, recipe(), plain)
    trained(data, recipe(grad_checkpointing=True), again)

    assert again.grad_checkpointing
    assert all(torch.equal(a, b) for a, b in zip(plain.state_dict().values(), again.state_dict().values(), strict=True))
    with pytest.raises(InputError, match="no set_grad_checkpointing"):
        trained(data, recipe(grad_checkpointing=True))


def test_the_raw_weights_are_scored_beside_the_averaged_ones(data):
    rows = trained(data, recipe(ema=0.999))

    assert {"raw_val_loss", "raw_val_top1", "raw_val_top5"} < set(rows[-1])
    assert rows[-1]["raw_val_loss"] != rows[-1]["val_loss"]


@pytest.mark.full
def test_a_compiled_model_trains_as_an_eager_one(data):
    eager, compiled = (seeded_build(ARCH, 0, init="fan_in") for _ in range(2))

    one = trained(data, recipe(), eager)
    two = trained(data, recipe(compile=True), compiled)

    assert two[-1]["val_loss"] == pytest.approx(one[-1]["val_loss"], abs=0.05)


def test_images_are_scored_on_their_centre_or_as_a_whole(data):
    larger = dataclasses.replace(data, images=InMemory(data.images.pixels.numpy(), 6))
    numbers = torch.from_numpy(data.val_numbers[:4])

    centre, whole = (
        next(larger.plain_batches(numbers, batch_size=4, device=torch.device("cpu"), image_size=6, whole=whole))[0]
        for whole in (False, True)
    )

    assert centre.shape == whole.shape == (4, 1, 6, 6)
    assert not torch.equal(centre, whole)


def test_the_workers_shares_of_every_batch_are_all_of_it():
    both = [share(12, 4, (rank, 2)).tolist() for rank in range(2)]

    assert both == [[0, 1, 4, 5, 8, 9], [2, 3, 6, 7, 10, 11]]


def test_a_batch_that_does_not_divide_among_workers_is_refused(data):
    with pytest.raises(InputError, match="64 does not divide among 3 workers"):
        trained(data, recipe(), world=World(0, 3))
    with pytest.raises(InputError, match="64 does not divide among 2 workers that take 64 images"):
        trained(data, recipe(micro_batch=64), world=World(0, 2))


def _worker(rank: int, port: int, out: str) -> None:
    torch.set_num_threads(1)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    distributed.init_process_group("gloo", rank=rank, world_size=2)
    model = Plain()
    rows = trained(load_data(DataSpec(name="digits")), recipe(ema=0.9), model, world=World(rank, 2),
                   checkpoint=Path(out) / "checkpoints")  # fmt: skip
    torch.save({"rows": [row["val_loss"] for row in rows], "model": model.state_dict()}, f"{out}/{rank}.pt")
    distributed.destroy_process_group()


@pytest.mark.full
def test_two_workers_train_to_the_weights_of_one(data, tmp_path, free_port):
    torch.multiprocessing.spawn(_worker, args=(free_port, str(tmp_path)), nprocs=2)
    alone = Plain()
    rows = trained(data, recipe(ema=0.9), alone)

    found = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]

    assert found[0]["rows"] == found[1]["rows"]
    assert found[0]["rows"] == pytest.approx([row["val_loss"] for row in rows], abs=1e-3)
    for name, value in alone.state_dict().items():
        assert torch.equal(found[0]["model"][name], found[1]["model"][name])
        torch.testing.assert_close(found[0]["model"][name], value, atol=1e-3, rtol=1e-2)
    assert len(list((tmp_path / "checkpoints").glob("*.json"))) == 2
