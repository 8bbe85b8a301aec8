"""Recipes are named values; a wrong override is one line; the schedule is as long as the run."""

import pytest
from command_line import call

from coatnet_search.core.errors import InputError
from coatnet_search.training.recipe import LATER, RECIPES, make_recipe, recipe_values, schedule


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_passes_its_own_checks_and_knows_its_name(name):
    recipe = make_recipe({"name": name})

    assert recipe == RECIPES[name]
    assert recipe.name == name


def test_overrides_replace_values_and_whole_floats_count_as_whole_numbers():
    recipe = make_recipe({"name": "small-images", "epochs": 3.0, "lr": 1, "flip": False})

    assert (recipe.epochs, recipe.lr, recipe.flip) == (3, 1.0, False)
    assert isinstance(recipe.epochs, int)
    assert isinstance(recipe.lr, float)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ({"name": "smal-images"}, "did you mean 'small-images'"),
        ({"epoch": 3}, "did you mean 'epochs'"),
        ({"lr": "2e-3"}, "recipe.lr: expected a number from"),
        ({"lr": float("nan")}, "recipe.lr: expected a number"),
        ({"lr": True}, "recipe.lr: expected a number"),
        ({"epochs": 2.5}, "recipe.epochs: expected a whole number"),
        ({"batch_size": 0}, "recipe.batch_size: expected a whole number from 1"),
        ({"flip": 1}, "recipe.flip: expected true or false"),
        ({"loss": "hinge"}, "recipe.loss: expected one of softmax, sigmoid"),
        ({"loss": ["softmax"]}, "recipe.loss: expected one of softmax, sigmoid"),
        ({"min_lr": 0.5}, "is above recipe.lr"),
        ({"warmup": 5}, "expected a share of the run below 1"),
        ({"randaugment_layers": 2}, "recipe.randaugment_magnitude: expected 1 to 30"),
    ],
)
def test_a_wrong_value_is_named_with_what_was_expected(override, message):
    with pytest.raises(InputError) as caught:
        make_recipe({"name": "small-images", **override})

    assert message in str(caught.value)


def test_a_recipe_without_a_name_lists_the_names():
    with pytest.raises(InputError, match=r"recipe\.name: expected one of digits, digits-full, paper-imagenet"):
        make_recipe({"epochs": 3})


def test_the_paper_recipe_has_the_printed_values():
    recipe = make_recipe({"name": "paper-imagenet"})

    assert (recipe.epochs, recipe.batch_size, recipe.lr, recipe.min_lr) == (300, 4096, 1e-3, 1e-5)
    assert (recipe.warmup, recipe.warmup_unit, recipe.decay) == (10_000, "steps", "cosine")
    assert (recipe.weight_decay, recipe.clip_norm, recipe.mixup, recipe.label_smoothing) == (0.05, 1.0, 0.8, 0.1)
    assert (recipe.randaugment_layers, recipe.randaugment_magnitude, recipe.drop_path) == (2, 15, 0.2)


@pytest.mark.parametrize(("decay", "middle"), [("cosine", 0.55), ("linear", 0.55), ("none", 1.0)])
def test_the_schedule_warms_up_to_the_peak_and_decays_to_the_minimum(decay, middle):
    recipe = make_recipe({"name": "digits", "lr": 1.0, "min_lr": 0.1, "decay": decay, "warmup": 0.2})

    rate = schedule(recipe, epochs=5, steps_per_epoch=20)

    assert [rate(step) for step in (0, 9, 19)] == pytest.approx([0.05, 0.5, 1.0])
    assert rate(60) == pytest.approx(middle)
    assert rate(100) == pytest.approx(1.0 if decay == "none" else 0.1)


def test_a_warm_up_in_epochs_counts_their_steps_and_one_as_long_as_the_run_is_refused():
    recipe = make_recipe({"name": "digits", "warmup": 2, "warmup_unit": "epochs"})

    rate = schedule(recipe, epochs=3, steps_per_epoch=10)

    assert rate(19) == pytest.approx(recipe.lr)
    with pytest.raises(InputError, match="20 steps of warm-up, but the whole run has 20"):
        schedule(recipe, epochs=2, steps_per_epoch=10)


# the columns of the paper's table of recipes; a tuple is a value a model
PAPER_TABLE = {
    "paper-imagenet": ((0, 1, 2, 3), {
        "drop_path": (0.2, 0.3, 0.5, 0.7), "centre_crop": True, "randaugment_layers": 2, "randaugment_magnitude": 15,
        "mixup": 0.8, "loss": "softmax", "label_smoothing": 0.1, "epochs": 300, "batch_size": 4096, "lr": 1e-3,
        "min_lr": 1e-5, "warmup": 10_000, "warmup_unit": "steps", "decay": "cosine", "weight_decay": 0.05,
        "clip_norm": 1.0, "ema": 0.0}),
    "paper-imagenet-finetune": ((0, 1, 2, 3), {
        "drop_path": (0.2, 0.3, 0.5, 0.7), "centre_crop": False, "randaugment_layers": 2,
        "randaugment_magnitude": (15, 15, 15, 20), "mixup": 0.8, "loss": "softmax", "label_smoothing": 0.1,
        "epochs": 30, "batch_size": 512, "lr": 5e-5, "min_lr": 5e-5, "warmup": 0, "decay": "none",
        "weight_decay": 1e-8, "clip_norm": 1.0, "ema": 0.9999}),
    "paper-imagenet21k": ((2, 3, 4), {
        "drop_path": (0.3, 0.5, 0.7), "centre_crop": True, "randaugment_layers": 0, "mixup": 0, "loss": "sigmoid",
        "label_smoothing": 1e-4, "epochs": 90, "batch_size": 4096, "lr": 1e-3, "min_lr": 1e-5, "warmup": 5,
        "warmup_unit": "epochs", "decay": "linear", "weight_decay": 0.01, "clip_norm": 1.0, "ema": 0.0}),
    "paper-imagenet21k-finetune": ((2, 3, 4), {
        "drop_path": (0.3, 0.5, 0.7), "centre_crop": False, "randaugment_layers": 0, "mixup": 0, "loss": "softmax",
        "label_smoothing": 0.1, "epochs": 30, "batch_size": 1024, "lr": 5e-5, "min_lr": 5e-5, "warmup": 0,
        "decay": "none", "weight_decay": 1e-8, "clip_norm": 1.0, "ema": 0.9999}),
    "paper-imagenet21k-randaugment": ((4,), {
        "epochs": 150, "randaugment_layers": 2, "randaugment_magnitude": 5, "drop_path": 0.7, "loss": "sigmoid"}),
    "paper-jft": ((3, 4, 5), {
        "drop_path": (0.0, 0.1, 0.0), "centre_crop": True, "randaugment_layers": 2, "randaugment_magnitude": 5,
        "mixup": 0, "loss": "sigmoid", "label_smoothing": 1e-4, "epochs": 14, "batch_size": 4096,
        "lr": (1e-3, 5e-4, 5e-4), "min_lr": 1e-5, "warmup": 20_000, "warmup_unit": "steps", "decay": "linear",
        "weight_decay": 0.01, "clip_norm": 1.0, "ema": 0.0}),
    "paper-jft-finetune": ((3, 4, 5), {
        "drop_path": (0.1, 0.3, 0.2), "centre_crop": False, "randaugment_layers": 2, "randaugment_magnitude": 5,
        "mixup": 0, "loss": "softmax", "label_smoothing": 0.1, "epochs": 30, "batch_size": 512, "lr": 5e-5,
        "min_lr": 5e-5, "warmup": 0, "decay": "none", "weight_decay": 1e-8, "clip_norm": 1.0, "ema": 0.9999}),
}  # fmt: skip


@pytest.mark.parametrize("name", PAPER_TABLE)
def test_every_column_of_the_paper_is_printed_with_its_values_for_every_model(name, capsys):
    sizes, values = PAPER_TABLE[name]

    shown = [call(capsys, "train", f"coatnet-{size}", "--recipe", name, "--print-recipe", "--json").json[0]
             for size in sizes]  # fmt: skip

    for key, printed in values.items():
        expected = printed if isinstance(printed, tuple) else (printed,) * len(sizes)
        assert tuple(recipe[key] for recipe in shown) == expected, key


def test_a_recipe_of_other_sizes_is_refused_with_those_that_fit():
    with pytest.raises(InputError) as caught:
        make_recipe({"name": "paper-imagenet"}, model="coatnet-4")

    assert "paper-imagenet is for coatnet-0, coatnet-1, coatnet-2, coatnet-3, not for coatnet-4" in str(caught.value)
    assert "paper-imagenet21k" in str(caught.value)


def test_what_is_set_replaces_what_a_size_has_of_its_own():
    recipe = make_recipe({"name": "paper-imagenet", "drop_path": 0.1}, model="coatnet-3")

    assert recipe.drop_path == 0.1


def test_later_fields_at_their_default_leave_the_digests_of_earlier_work_alone():
    plain, changed = make_recipe({"name": "digits"}), make_recipe({"name": "digits", "micro_batch": 16})

    assert not set(LATER) & set(recipe_values(plain))
    assert recipe_values(changed)["micro_batch"] == 16


def test_a_part_of_a_batch_that_does_not_divide_it_is_refused():
    with pytest.raises(InputError, match=r"48 does not divide recipe\.batch_size, 128"):
        make_recipe({"name": "small-images", "micro_batch": 48})
