"""The loop learns, repeats itself to the bit, resumes to the bit, and says why it stopped."""

import contextlib
import copy
import dataclasses
import json
import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from coatnet_search.core.errors import InputError
from coatnet_search.data.batches import Data
from coatnet_search.data.load import load_data
from coatnet_search.data.spec import DataSpec
from coatnet_search.training import checkpoint as checkpoints
from coatnet_search.training.budget import Budget
from coatnet_search.training.checkpoint import CheckpointMismatch
from coatnet_search.training.loop import TrainingFailed, train
from coatnet_search.training.prepare import parameter_groups
from coatnet_search.training.recipe import Recipe, make_recipe

BUDGET = Budget(epochs=3, num_images=320)
EVERYTHING = {
    "name": "digits", "batch_size": 32, "mixup": 0.4, "ema": 0.95, "randaugment_layers": 1, "randaugment_magnitude": 5,
    "label_smoothing": 0.1, "drop_path": 0.2, "flip": True,
}  # fmt: skip


class Net(nn.Module):
    """A small network with what a real one has: BatchNorm, depth that is dropped, a bias table."""

    def __init__(self, width: int = 12, num_classes: int = 10) -> None:
        super().__init__()
        torch.manual_seed(7)
        self.stem = nn.Conv2d(1, width, 3, padding=1, stride=2)
        self.norm = nn.BatchNorm2d(width)
        self.block = nn.Conv2d(width, width, 3, padding=1)
        self.relative_bias_table = nn.Parameter(torch.zeros(2, 3))
        self.classifier = nn.Linear(width, num_classes)
        self.rate = 0.0

    def set_drop_path(self, rate: float) -> None:
        self.rate = rate

    def no_weight_decay(self) -> set[str]:
        return {"classifier.weight"}

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.gelu(self.norm(self.stem(x)))
        keep = torch.ones(len(x), 1, 1, 1)
        if self.training:
            keep = keep.bernoulli_(1 - self.rate)
        return self.classifier((x + keep * self.block(x)).mean((2, 3)) + self.relative_bias_table.sum())


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Data]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COATNET_SEARCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield load_data(DataSpec(name="digits"))


def recipe(**changes: Any) -> Recipe:
    return make_recipe({"name": "digits", "batch_size": 32, **changes})


def timeless(rows: list[dict[str, float]]) -> list[dict[str, float]]:
    return [{key: value for key, value in row.items() if not key.endswith("_s")} for row in rows]


def stopped_after(epochs: int, data: Data, recipe: Recipe, folder: Path) -> None:
    run = train(Net(), data, recipe, BUDGET, "cpu", checkpoint=folder)
    for _ in range(epochs):
        next(run)
    run.close()


def test_training_learns_the_digits_and_reports_every_metric_of_every_epoch(data):
    rows = list(train(Net(24), data, recipe(lr=1.0e-2), Budget(epochs=4), "cpu"))

    assert [row["epoch"] for row in rows] == [1, 2, 3, 4]
    assert set(rows[0]) == {
        "epoch", "train_loss", "train_top1", "val_loss", "val_top1", "val_top5", "val_balanced_accuracy",
        "never_recognised", "lr", "epoch_s", "train_images_per_s",
    }  # fmt: skip
    assert rows[-1]["val_top1"] > 0.7
    assert rows[-1]["val_loss"] < rows[0]["val_loss"]
    assert rows[-1]["val_top1"] <= rows[-1]["val_top5"] <= 1
    assert rows[-1]["lr"] < rows[0]["lr"]


@pytest.mark.parametrize("loss", ["softmax", "sigmoid"])
def test_the_same_seed_gives_the_same_bits_and_another_seed_others(data, loss):
    made = make_recipe({**EVERYTHING, "loss": loss})

    first, again = Net(), Net()
    one = list(train(first, data, made, BUDGET, "cpu"))
    torch.rand(17)
    two = list(train(again, data, made, BUDGET, "cpu"))
    other = list(train(Net(), data, made, dataclasses.replace(BUDGET, seed=1), "cpu"))

    assert timeless(one) == timeless(two)
    assert all(torch.equal(a, b) for a, b in zip(first.state_dict().values(), again.state_dict().values(), strict=True))
    assert timeless(one) != timeless(other)


@pytest.mark.parametrize("epochs", [1, 2, 3])
def test_a_resumed_run_equals_an_uninterrupted_one_to_the_bit(data, tmp_path, epochs):
    made = make_recipe(EVERYTHING)
    whole, resumed = Net(), Net()
    expected = list(train(whole, data, made, BUDGET, "cpu"))
    stopped_after(epochs, data, made, tmp_path)

    rows = list(train(resumed, data, made, BUDGET, "cpu", checkpoint=tmp_path))

    assert timeless(rows) == timeless(expected)
    assert all(
        torch.equal(a, b) for a, b in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True)
    )


def test_the_global_generator_is_left_alone_between_epochs(data):
    torch.manual_seed(3)
    run = train(Net(), data, make_recipe(EVERYTHING), BUDGET, "cpu")
    torch.manual_seed(3)
    before = torch.get_rng_state()

    next(run)

    assert torch.equal(torch.get_rng_state(), before)


def test_only_the_last_two_checkpoints_are_kept(data, tmp_path):
    stopped_after(3, data, recipe(), tmp_path)

    names = sorted(path.name for path in tmp_path.iterdir())

    assert names == [f"epoch-00000{epoch}.{end}" for epoch in (2, 3) for end in ("json", "safetensors")]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))


def flip_a_digit(path: Path) -> None:
    path.write_text(path.read_text().replace('"epoch": 2', '"epoch": 1'))


@pytest.mark.parametrize(
    ("end", "damage"),
    [("safetensors", cut), ("safetensors", empty), ("safetensors", flip_a_bit), ("safetensors", os.unlink),
     ("json", cut), ("json", empty), ("json", flip_a_digit)],
)  # fmt: skip
def test_a_damaged_checkpoint_is_skipped_for_the_one_before_with_a_warning(data, tmp_path, end, damage):
    expected = list(train(Net(), data, recipe(), BUDGET, "cpu"))
    stopped_after(2, data, recipe(), tmp_path)
    damage(tmp_path / f"epoch-000002.{end}")

    with pytest.warns(UserWarning, match="epoch-000002 is damaged and skipped"):
        rows = list(train(Net(), data, recipe(), BUDGET, "cpu", checkpoint=tmp_path))

    assert timeless(rows) == timeless(expected)


def test_with_no_whole_checkpoint_training_starts_over(data, tmp_path):
    expected = list(train(Net(), data, recipe(), BUDGET, "cpu"))
    stopped_after(1, data, recipe(), tmp_path)
    cut(tmp_path / "epoch-000001.safetensors")

    with pytest.warns(UserWarning, match="damaged"):
        rows = list(train(Net(), data, recipe(), BUDGET, "cpu", checkpoint=tmp_path))

    assert timeless(rows) == timeless(expected)


def test_a_crash_between_writing_and_renaming_leaves_the_older_checkpoint(data, tmp_path, monkeypatch):
    stopped_after(1, data, recipe(), tmp_path)
    run = train(Net(), data, recipe(), BUDGET, "cpu", checkpoint=tmp_path)
    next(run)
    monkeypatch.setattr(Path, "replace", lambda self, target: (_ for _ in ()).throw(KeyboardInterrupt()))

    with pytest.raises(KeyboardInterrupt):
        next(run)
    monkeypatch.undo()

    assert sorted(path.name for path in tmp_path.iterdir()) == ["epoch-000001.json", "epoch-000001.safetensors"]


def test_a_checkpoint_of_another_architecture_recipe_or_budget_is_refused(data, tmp_path):
    stopped_after(1, data, recipe(), tmp_path)

    for model, made, budget, word in (
        (Net(16), recipe(), BUDGET, "architecture"),
        (Net(), recipe(lr=1.0e-2), BUDGET, "recipe"),
        (Net(), recipe(), dataclasses.replace(BUDGET, epochs=4), "budget"),
    ):
        with pytest.raises(CheckpointMismatch, match=f"of another run: {word} differ"):
            list(train(model, data, made, budget, "cpu", checkpoint=tmp_path))


class Bomb:
    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> Any:
        return (Path.touch, (self.canary,))


def test_a_pickle_in_place_of_a_checkpoint_is_never_opened(data, tmp_path):
    stopped_after(1, data, recipe(), tmp_path)
    weights, note = (tmp_path / f"epoch-000001.{end}" for end in ("safetensors", "json"))
    weights.write_bytes(pickle.dumps(Bomb(tmp_path / "canary")))
    body = json.loads(note.read_text())
    body.pop("checksum")
    body["sha256"] = checkpoints.sha256_of(weights)
    note.write_text(json.dumps({**body, "checksum": checkpoints._checksum(body)}))

    with pytest.warns(UserWarning, match="damaged"):
        rows = list(train(Net(), data, recipe(), BUDGET, "cpu", checkpoint=tmp_path))

    assert len(rows) == 3
    assert not (tmp_path / "canary").exists()


def test_a_checkpoint_that_cannot_be_written_fails_the_run_with_its_reason(data, tmp_path):
    (tmp_path / "file").write_text("")

    with pytest.raises(TrainingFailed, match="epoch 1: cannot write") as caught:
        list(train(Net(), data, recipe(), BUDGET, "cpu", checkpoint=tmp_path / "file" / "folder"))

    assert caught.value.kind == "checkpoint"


class Poisoned(Net):
    """Gives NaN from its ``step``-th training step on."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self.left = step

    def forward(self, x: Tensor) -> Tensor:
        self.left -= self.training
        return super().forward(x) * (float("nan") if self.left <= 0 else 1.0)


def test_a_loss_that_is_not_a_number_fails_with_its_epoch_and_step(data):
    with pytest.raises(TrainingFailed, match="epoch 2, step 3: the training loss is nan") as caught:
        list(train(Poisoned(13), data, recipe(), BUDGET, "cpu"))

    assert caught.value.kind == "nan"


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
            "out_of_memory",
            "32 images of 8 pixels",
        ),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"),
            "out_of_memory",
            "set recipe.micro_batch",
        ),
        (RuntimeError("DataLoader worker (pid 3) is killed by signal: Killed"), "worker_killed", "fewer data.workers"),
    ],
)
def test_what_a_device_or_a_worker_does_is_named_by_kind_with_what_to_do(data, error, kind, words):
    class Broken(Net):
        def forward(self, x: Tensor) -> Tensor:
            raise error

    with pytest.raises(TrainingFailed) as caught:
        list(train(Broken(), data, recipe(), BUDGET, "cpu"))

    assert caught.value.kind == kind
    assert words in str(caught.value)


def test_a_model_for_another_number_of_classes_is_an_input_error(data):
    with pytest.raises(InputError, match="the data has 10 classes"):
        list(train(Net(num_classes=7), data, recipe(), BUDGET, "cpu"))


def test_stochastic_depth_is_set_on_the_model_and_refused_where_there_is_none(data):
    model = Net()
    train(model, data, recipe(drop_path=0.3), BUDGET, "cpu").__next__()

    assert model.rate == 0.3
    with pytest.raises(InputError, match="no set_drop_path"):
        list(train(nn.Flatten(), data, recipe(drop_path=0.3), BUDGET, "cpu"))


def test_weight_decay_spares_norms_biases_bias_tables_and_what_the_model_names():
    model = Net()

    groups = parameter_groups(model, 0.05)

    decayed = {id(p) for group in groups if group["weight_decay"] for p in group["params"]}
    names = {name for name, parameter in model.named_parameters() if id(parameter) in decayed}
    assert names == {"stem.weight", "block.weight"}


def test_batchnorm_takes_the_recipes_momentum_and_weights_are_channels_last(data):
    model = Net()

    next(train(model, data, recipe(bn_momentum=0.03), BUDGET, "cpu"))

    assert model.norm.momentum == 0.03
    assert model.block.weight.is_contiguous(memory_format=torch.channels_last)


def test_an_epoch_trains_at_the_budgets_image_size(data):
    sizes = set()

    class Looking(Net):
        def forward(self, x: Tensor) -> Tensor:
            sizes.add(tuple(x.shape[1:]))
            return super().forward(x)

    next(train(Looking(), data, recipe(), dataclasses.replace(BUDGET, image_size=6), "cpu"))

    assert sizes == {(1, 6, 6)}


def test_bfloat16_trains_under_autocast(data):
    rows = list(train(Net(), data, recipe(precision="bfloat16"), Budget(epochs=1, num_images=64), "cpu"))

    assert 0 < rows[0]["val_loss"] < 5


def test_float16_trains_with_a_scaled_loss_and_goes_on_with_its_scale(data, tmp_path):
    """Weights are near those of float32, gradients are far larger, and a resumed run is the same to the bit."""
    half, budget = recipe(precision="float16"), Budget(epochs=2, num_images=64)
    seen = []

    class Watched(Net):
        def __init__(self):
            super().__init__()
            last = list(self.parameters())[-1]
            last.register_hook(lambda gradient: seen.append(float(gradient.abs().max())))

    exact, scaled, whole = Watched(), Watched(), Watched()
    for other in (scaled, whole):
        other.load_state_dict(exact.state_dict())
    again = copy.deepcopy(exact.state_dict())
    list(train(exact, data, recipe(), budget, "cpu"))
    plain = max(seen)
    seen.clear()
    rows = list(train(scaled, data, half, budget, "cpu"))
    assert max(seen) > 1000 * plain
    assert all(torch.allclose(a, b, atol=0.02) for a, b in
               zip(exact.state_dict().values(), scaled.state_dict().values(), strict=True))  # fmt: skip

    next(train(whole, data, half, budget, "cpu", checkpoint=tmp_path))
    resumed = Watched()
    resumed.load_state_dict(again)
    found = list(train(resumed, data, half, budget, "cpu", checkpoint=tmp_path))
    assert [row["train_loss"] for row in found] == [row["train_loss"] for row in rows]
    assert found[-1]["val_loss"] == rows[-1]["val_loss"]


def test_the_step_guard_is_held_during_every_step_and_free_between_epochs(data):
    entered: list[bool] = []

    @contextlib.contextmanager
    def guard() -> Iterator[None]:
        entered.append(True)
        yield
        entered[-1] = False

    run = train(Net(), data, recipe(), BUDGET, "cpu", step_guard=guard)
    next(run)

    assert len(entered) >= 10
    assert not any(entered)
