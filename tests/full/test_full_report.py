"""Full trainings beside what the search saw: the sentence says what the numbers can carry."""

import json
from pathlib import Path
from typing import Any

import pytest
from command_line import call

from coatnet_search.core.errors import InputError
from coatnet_search.full.compare import conclusion, rows, shown


def trained(
    root: Path, name: str, told: float | None, got: float, digest: str = "d" * 16, study: str = "s", **more: Any
) -> Path:  # fmt: skip
    out = root / name
    out.mkdir()
    against = None if told is None else {"search_val_top1": told, "gain": got - told, **more}
    scores = {"top1": got, "top1_low": got - 0.02, "top1_high": got + 0.02}
    result = {
        "name": name, "layout": "C-T", "arch_id": "abc", "params": 10, "macs": 20, "num_val": 5000,
        "predicted": {"study": study}, "data_digest": digest, "against_prediction": against,
        "seeds": [{"seed": 0, "val": scores}],
        "means": {"val_top1": {"mean": got, "low": None, "high": None}},
    }  # fmt: skip
    (out / "result.json").write_text(json.dumps(result))
    return out


@pytest.mark.parametrize(
    ("told", "got", "words"),
    [
        ((0.7, 0.6), (0.9, 0.8), "The choice held: a, best in the search"),
        ((0.7, 0.6), (0.8, 0.9), "The choice was wrong: b is 10.0 points better"),
        ((0.7, 0.6), (0.899, 0.9), "The choice cannot be faulted: b is 0.1 points better"),
        ((0.7, 0.6), (0.901, 0.9), "is the best after full training too, but only 0.1 points ahead of b, and below"),
        ((0.7, None), (0.9, 0.8), "there is no choice to judge"),
    ],
)
def test_the_verdict_follows_from_the_numbers(tmp_path, told, got, words):
    outs = [trained(tmp_path, name, *pair) for name, pair in zip("ab", zip(told, got, strict=True), strict=True)]

    table = rows(outs)

    assert words in conclusion(table)
    assert [row["rank_obtained"] for row in table] == [1, 2]


def test_the_choice_is_the_searchs_rank_not_what_it_saw_of_accuracy(tmp_path):
    first, third = (
        {"search_rank": 1, "search_objective": "val_loss"},
        {"search_rank": 3, "search_objective": "val_loss"},
    )
    outs = [trained(tmp_path, "a", 0.6, 0.8, **first), trained(tmp_path, "b", 0.7, 0.9, **third)]

    assert "The choice was wrong: b is 10.0 points better" in conclusion(rows(outs))
    assert "the search's first choice is not among these trainings; b was its number 3" in conclusion(
        rows([outs[1], trained(tmp_path, "c", 0.6, 0.5, search_rank=4)])
    )


def test_trainings_of_unlike_length_judge_no_choice(tmp_path):
    outs = [trained(tmp_path, "a", 0.7, 0.9), trained(tmp_path, "b", 0.6, 0.8)]
    for out, epochs in zip(outs, (10, 30), strict=True):
        result = json.loads((out / "result.json").read_text())
        (out / "result.json").write_text(json.dumps(result | {"stages": [{"recipe": {"epochs": epochs}}]}))

    assert "not judged: these trainings are of unlike length (epochs: a 10 and b 30)" in conclusion(rows(outs))


def test_with_three_networks_the_ranks_are_correlated_and_misses_named(tmp_path):
    curve = {"predicted_val_top1": 0.9, "predicted_low": 0.85, "predicted_high": 0.95, "inside_prediction": False}
    outs = [trained(tmp_path, "a", 0.7, 0.9), trained(tmp_path, "b", 0.6, 0.8, **curve),
            trained(tmp_path, "c", 0.5, 0.7)]  # fmt: skip

    text = conclusion(rows(outs))

    assert "Outside what a curve predicted: b." in text
    assert "over 3 networks: 1.00." in text


def test_what_two_searches_saw_or_one_at_two_budgets_is_not_compared(tmp_path):
    budgets = [{"epochs": 5, "num_images": 10_000}, {"epochs": 8, "num_images": 45_000}]
    outs = [
        trained(tmp_path, "a", 0.7, 0.9),
        trained(tmp_path, "b", 0.6, 0.95, study="t"),
        *(trained(tmp_path, f"c{budget['epochs']}", 0.5, 0.7, search_budget=budget) for budget in budgets),
    ]

    table = rows(outs)

    assert "there is no choice to judge" in conclusion(table)
    assert {row["rank_search"] for row in table} == {1}
    assert shown(table[-1])["seen"] in ("10,000 images, 5 epochs", "45,000 images, 8 epochs")


def test_trainings_on_different_data_are_not_compared(tmp_path):
    with pytest.raises(InputError, match="different data"):
        rows([trained(tmp_path, "a", 0.7, 0.9), trained(tmp_path, "b", 0.7, 0.9, digest="e" * 16)])


def test_the_command_prints_the_table_and_the_verdict(capsys, tmp_path):
    outs = [trained(tmp_path, "a", 0.7, 0.9), trained(tmp_path, "b", 0.6, 0.8)]

    told = call(capsys, "compare", *outs)
    missing = call(capsys, "compare", tmp_path / "nowhere")

    assert told.code == 0
    assert "The choice held" in told.out and "88.0 to 92.0 %" in told.out
    assert "is it finished?" in missing.error
