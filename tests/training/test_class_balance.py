"""Classes of few images: what is measured of them, what is said, and what a recipe does for them."""

import dataclasses
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from command_line import call, digit_folder
from torch import Tensor, nn

from coatnet_search.architecture.arch import Arch, Stage, Stem
from coatnet_search.data import load
from coatnet_search.data.batches import Data, balanced_order
from coatnet_search.data.load import load_data
from coatnet_search.data.spec import DataSpec
from coatnet_search.figures.search.summary import summarize
from coatnet_search.record.fold import read_record, read_trials, study_of
from coatnet_search.study import new
from coatnet_search.training.budget import Budget
from coatnet_search.training.loop import train
from coatnet_search.training.recipe import RECIPES, Recipe, make_recipe, recipe_values
from coatnet_search.training.scoring import Scorer, class_weights

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COATNET_SEARCH_CACHE", str(tmp_path / "cache"))


class Says(nn.Module):
    """Answers with the class that the image's first pixel names."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.one_hot(x[:, 0, 0, 0].long(), 4).float()


def recipe(**changes: object) -> Recipe:
    return make_recipe({"name": "digits", **changes})


def test_balanced_accuracy_is_the_mean_over_the_classes_that_have_images():
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 3])
    answers = torch.tensor([0, 0, 0, 1, 1, 0, 0])
    batches = [(answers[part].float().view(-1, 1, 1, 1), labels[part]) for part in (slice(0, 5), slice(5, 7))]

    found = Scorer(recipe(), 4, CPU).scores(Says(), iter(batches))

    assert found.balanced_accuracy == pytest.approx((3 / 4 + 1 / 2 + 0) / 3)
    assert found.top1 == pytest.approx(4 / 7)
    assert found.never_recognised == (3,)


def test_weights_of_classes_make_all_count_alike_and_the_mean_image_one():
    labels = torch.tensor([0] * 6 + [1] * 3 + [2])

    weights = class_weights(labels, 3)

    torch.testing.assert_close(weights * torch.bincount(labels), torch.full((3,), 10 / 3))
    assert float(weights[labels].mean()) == pytest.approx(1.0)


@pytest.mark.parametrize("loss", ["softmax", "sigmoid"])
def test_a_weighted_loss_counts_each_image_by_its_labels(loss):
    scorer, weights = Scorer(recipe(loss=loss), 3, CPU), torch.tensor([0.5, 1.0, 4.0])
    logits, labels = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 2, 1, 1])

    plain, mixed = scorer.loss(logits, labels, 1.0, 0.1, weights), scorer.loss(logits, labels, 0.7, 0.1, weights)
    alike = scorer.loss(logits, labels, 0.7, 0.1, torch.ones(3))

    alone = torch.stack([scorer.loss(logits[[n]], labels[[n]], 1.0, 0.1) for n in range(4)])
    torch.testing.assert_close(plain, (alone * weights[labels]).mean())
    shares = 0.7 * weights[labels] + 0.3 * weights[labels].flip(0)
    pairs = [scorer.loss(logits[[n, 3 - n]], labels[[n, 3 - n]], 0.7, 0.1) for n in range(4)]
    torch.testing.assert_close(mixed, (torch.stack(parts(scorer, logits, labels)) * shares).mean())
    torch.testing.assert_close(alike, torch.stack(pairs).mean())


def parts(scorer: Scorer, logits: Tensor, labels: Tensor) -> list[Tensor]:
    """The loss of each image with 0.3 of its mirror's label, smoothed by 0.1."""
    hard = torch.nn.functional.one_hot(labels, 3).float() * 0.9 + 0.1 / 3
    targets = 0.7 * hard + 0.3 * hard.flip(0)
    if scorer.recipe.loss == "softmax":
        return list(-(targets * logits.log_softmax(1)).sum(1))
    return list(nn.functional.binary_cross_entropy_with_logits(logits, targets, reduction="none").sum(1))


def test_a_balanced_order_has_equally_many_of_each_class_and_large_classes_take_turns():
    labels = torch.tensor([0] * 90 + [3] * 8 + [1] * 2)

    orders = [balanced_order(labels, 32, torch.Generator().manual_seed(seed)) for seed in range(60)]

    for order in orders:
        assert sorted(Counter(labels[order].tolist()).values()) == [10, 11, 11]
        assert set(order[labels[order] != 0].tolist()) == set(range(90, 100))  # none of a small class is left out
        assert max(Counter(order[labels[order] == 0].tolist()).values()) == 1
    assert len(set(torch.cat(orders).tolist())) == 100


def test_sampling_reaches_the_batches_and_every_worker_takes_its_share():
    data = unbalanced()

    def labels(**options: object) -> Tensor:
        batches = data.train_batches(batch_size=32, seed=0, epoch=1, recipe=RECIPES["digits"], device=CPU,
                                     regime=data.regime(), **options)  # fmt: skip
        return torch.cat([part for _, part in batches])

    usual, balanced = labels(), labels(balanced=True)
    workers = [labels(balanced=True, part=(rank, 2)).view(-1, 16) for rank in (0, 1)]

    assert int(torch.bincount(usual)[9]) <= 6
    assert int(torch.bincount(balanced).min()) >= len(balanced) // 10
    assert len(balanced) == len(usual)
    assert torch.equal(torch.cat(workers, dim=1).flatten(), balanced)


def unbalanced() -> Data:
    """The digits with six training images of each of the classes 7, 8 and 9."""
    data = load_data(DataSpec(name="digits"))
    labels = data.labels.numpy()[data.train_numbers]
    rare = [np.flatnonzero(labels == label)[6:] for label in (7, 8, 9)]
    return dataclasses.replace(data, train_numbers=np.delete(data.train_numbers, np.concatenate(rare)))


@pytest.mark.parametrize(("kind", "clip_norm"), [("weights", 0), ("sampling", 1)])
def test_a_recipe_that_balances_classes_recognises_more_of_the_rare_ones(kind, clip_norm):
    data = unbalanced()

    def score(seed: int, balance: str) -> float:
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Conv2d(1, 8, 3, 2), nn.GELU(), nn.Flatten(), nn.Linear(72, 10))
        made = recipe(class_balance=balance, lr=3e-3, batch_size=32, clip_norm=clip_norm)
        return list(train(model, data, made, Budget(epochs=6, seed=seed), CPU))[-1]["val_balanced_accuracy"]

    gains = [score(seed, kind) - score(seed, "none") for seed in range(3)]

    assert min(gains) > 0
    assert np.mean(gains) > 0.05


def test_a_recipe_that_balances_nothing_is_the_recipe_that_it_was():
    for name in RECIPES:
        assert "class_balance" not in recipe_values(make_recipe({"name": name}))
    assert recipe_values(recipe(class_balance="none")) == recipe_values(recipe())
    assert recipe_values(recipe(class_balance="weights"))["class_balance"] == "weights"


def rare_classes(root: Path) -> Path:
    """Digits as images: some dozens of each class, six of the last three."""
    digit_folder(root, 400)
    for label in (7, 8, 9):
        for file in sorted((root / f"digit-{label}").glob("*.png"))[6:]:
            file.unlink()
    return root


def test_new_names_the_ends_and_asks_for_balanced_accuracy_which_a_study_is_searched_by(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rare_classes(tmp_path / "photos")

    made = call(capsys, "new", "--data", "photos")
    text = (tmp_path / "photos.yaml").read_text()
    ran = call(capsys, "run", "photos.yaml", "--local", "--set", "search.trials=2", "recipe.epochs=8",
               "tracking.enabled=false", "measure=[]")  # fmt: skip
    frame = read_record("runs/photos")
    told = summarize(frame, study_of("runs/photos"))

    assert [made.code, ran.code] == [0, 0]
    assert "has 6 images, 1 of them for validation; the largest, digit-" in made.out
    assert "val_balanced_accuracy: max" in text
    assert "recipe.class_balance: sampling" in text
    trials = read_trials("runs/photos")
    unknown = [trial.attributes["never_recognised"] for trial in trials]
    assert all(0 < trial.metrics["val_balanced_accuracy"] < trial.metrics["val_top1"] for trial in trials)
    assert all(one["of"] == 10 and one["count"] > 0 and one["names"][0].startswith("digit-") for one in unknown)
    assert "best validation balanced accuracy" in told["answer"][0]
    assert any("of 10 classes are never recognised: digit-" in text for text in told["notices"])


@pytest.mark.parametrize("kind", ["image_folder", "parquet"])
def test_classes_are_counted_by_labels_alone_where_images_are_very_many(kind, tmp_path, monkeypatch):
    rare_classes(tmp_path / "photos")
    files = sorted((tmp_path / "photos").rglob("*.png"))
    table = pa.table({"image": [file.read_bytes() for file in files], "label": [file.parent.name for file in files]})
    pq.write_table(table, tmp_path / "train.parquet")
    place = tmp_path / ("photos" if kind == "image_folder" else "train.parquet")
    exact = new.look_at(place)
    monkeypatch.setattr(load, "FULL_LOOK", 100)

    look = new.look_at(place)

    assert (look.summary.exact, exact.summary.exact) == (False, True)
    assert (look.per_class, look.val_per_class) == (exact.per_class, exact.val_per_class)
    assert look.imbalance > new.IMBALANCED


def test_new_asks_for_the_error_where_classes_are_of_like_size(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    digit_folder(tmp_path / "photos", 200)

    call(capsys, "new", "--data", "photos")

    assert "balanced" not in (tmp_path / "photos.yaml").read_text()


def test_full_training_names_what_is_never_recognised_and_writes_what_is_taken_for_what(tmp_path, capsys):
    rare_classes(tmp_path / "photos")

    arch = Arch(image_size=8, in_channels=1, num_classes=10, stem=Stem(depth=1, width=8, stride=1),
                stages=(Stage(block="C", depth=1, width=8, stride=2),))  # fmt: skip
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump({"arch": arch.to_dict()}))
    words = ("--recipe", "digits", "--epochs", "1", "--device", "cpu", "--data", tmp_path / "photos")

    made = call(capsys, "train", tmp_path / "tiny.yaml", *words, "--out", tmp_path / "out")
    call(capsys, "export", tmp_path / "out", "--format", "safetensors", "--out", tmp_path / "made")

    assert made.code == 0
    assert "classes are never recognised: digit-" in made.err
    assert "balanced accuracy" in made.out
    rows = (tmp_path / "out" / "confusion.csv").read_text().splitlines()
    assert rows[0] == "seed,split,class,taken_for,images"
    card = (tmp_path / "made" / "README.md").read_text()
    assert "## Confusion" in card and "| true class | digit-0 | digit-1 |" in card
    assert "never recognised: digit-" in card
    images = sum(int(row.rsplit(",", 1)[1]) for row in rows[1:])
    assert f"| validation | {images} |" in card
