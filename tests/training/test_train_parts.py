"""Parts of a recipe that change how a step is computed, and not what: parts of a batch, checkpointing, workers."""

import dataclasses
import os
import socket
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, distributed, nn

from coatnet_search.architecture.arch import Arch, Stage, Stem
from coatnet_search.architecture.build import seeded_build
from coatnet_search.core.errors import InputError
from coatnet_search.data.batches import Data, share
from coatnet_search.data.load import load_data
from coatnet_search.data.memory import InMemory
from coatnet_search.data.spec import DataSpec
from coatnet_search.training.budget import Budget
from coatnet_search.training.loop import Run, train
from coatnet_search.training.process_group import ProcessGroup
from coatnet_search.training.recipe import Recipe, make_recipe
from coatnet_search.training.scoring import Scorer

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


def a_run(data: Data, model: nn.Module | None = None, **changes: Any) -> Run:
    return Run(model or Plain(), data, recipe(**changes), BUDGET, torch.device("cpu"), nullcontext, ProcessGroup())


@pytest.mark.parametrize("micro_batch", [0, 16])
def test_mixup_blends_labels_as_it_blends_images(data, micro_batch):
    run, seen = a_run(data, mixup=0.4, micro_batch=micro_batch), []
    labels = torch.arange(64) % 10
    images = labels.float().view(-1, 1, 1, 1).expand(64, 1, 8, 8)  # an image is its label
    plain, run.called = run.called, lambda part: seen.append(part[:, 0, 0, 0]) or plain(part)
    audited_record: list[Tensor] = []
    loss, run.scorer.loss = run.scorer.loss, lambda logits, targets, *rest: audited_record.append(targets) or loss(
        logits, targets, *rest)  # fmt: skip

    run.step(0, images, labels, 0.75)

    assert len(seen) == len(audited_record) == (4 if micro_batch else 1)
    for images_seen, targets in zip(seen, audited_record, strict=True):
        torch.testing.assert_close(images_seen, 0.75 * targets + 0.25 * targets.flip(0))


@pytest.mark.parametrize(("loss", "expected"), [
    ("softmax", lambda logits, targets: -(targets * logits.log_softmax(1)).sum(1).mean()),
    ("sigmoid", lambda logits, targets: -(targets * nn.functional.logsigmoid(logits)
                                          + (1 - targets) * nn.functional.logsigmoid(-logits)).sum(1).mean()),
])  # fmt: skip
def test_losses_smoothing_and_mixed_labels_are_what_their_formulas_say(loss, expected):
    scorer = Scorer(recipe(loss=loss), 4, torch.device("cpu"))
    logits, labels = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 3, 0, 2])
    hard = nn.functional.one_hot(labels, 4).float()

    plain, smoothed = scorer.loss(logits, labels), scorer.loss(logits, labels, smoothing=0.2)
    mixed = scorer.loss(logits, labels, 0.7)

    torch.testing.assert_close(plain, expected(logits, hard))
    torch.testing.assert_close(smoothed, expected(logits, 0.8 * hard + 0.2 / 4))
    torch.testing.assert_close(mixed, expected(logits, 0.7 * hard + 0.3 * hard.flip(0)))


def test_a_step_has_the_schedules_rate_and_a_gradient_of_at_most_the_norm(data):
    free, clipped = a_run(data), a_run(data, clip_norm=1e-3, warmup=2, warmup_unit="steps")
    images, labels = torch.randn(64, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(64) % 10

    for run in (free, clipped):
        run.step(0, images, labels, 1.0)

    norms = [torch.stack([part.grad.norm() for part in run.parameters]).norm() for run in (free, clipped)]
    assert norms[0] > 0.01 and norms[1] == pytest.approx(1e-3, rel=1e-3)
    assert {group["lr"] for group in clipped.optimizer.param_groups} == {clipped.recipe.lr / 2}


def test_decay_is_kept_from_norms_biases_and_bias_tables_of_a_network(data):
    run = a_run(data, seeded_build(ARCH, 0, init="fan_in"), weight_decay=0.05)
    names = {id(parameter): name for name, parameter in run.model.named_parameters()}

    decayed, spared = ({names[id(one)] for group in run.optimizer.param_groups for one in group["params"]
                        if bool(group["weight_decay"]) is wanted} for wanted in (True, False))  # fmt: skip

    assert decayed | spared == set(names.values())
    assert all(name.endswith("weight") and "norm" not in name for name in decayed)
    assert any("relative_bias" in name for name in spared) and any(name.endswith("bias") for name in spared)


def test_a_crop_of_the_centre_and_a_precision_reach_the_evaluation(data, monkeypatch):
    asked: list[bool] = []
    whole = data.val_batches
    monkeypatch.setattr(Data, "val_batches", lambda _, **options: asked.append(options["whole"]) or whole(**options))
    kinds: set[torch.dtype] = set()
    model = Plain()
    model.layers[3].register_forward_hook(lambda _module, _inputs, output: kinds.add(output.dtype))

    for centre in (True, False):
        a_run(data, model, centre_crop=centre, precision="bfloat16").scores(2)

    assert asked == [False, True]
    assert kinds == {torch.bfloat16}


def test_randaugment_changes_the_images_of_training(data):
    def first(**changes: Any) -> Tensor:
        return next(data.train_batches(batch_size=64, seed=0, epoch=1, recipe=recipe(**changes),
                                       device=torch.device("cpu"), regime=data.regime()))[0]  # fmt: skip

    plain, changed = first(), first(randaugment_layers=2, randaugment_magnitude=15)

    assert (plain != changed).flatten(1).any(1).float().mean() > 0.5


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
        trained(data, recipe(), group=ProcessGroup(0, 3))
    with pytest.raises(InputError, match="64 does not divide among 2 workers that take 64 images"):
        trained(data, recipe(micro_batch=64), group=ProcessGroup(0, 2))


def _worker(rank: int, port: int, out: str) -> None:
    torch.set_num_threads(1)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    distributed.init_process_group("gloo", rank=rank, world_size=2)
    model = Plain()
    rows = trained(load_data(DataSpec(name="digits")), recipe(ema=0.9), model, group=ProcessGroup(rank, 2),
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
