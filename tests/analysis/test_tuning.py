"""Sweeps that tune a scaling study's layouts and regimes: planned, run first, obeyed, found again on resume, shown."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from test_scaling import cells_of, study_file

from coatnet_search.analysis.scaling_runs import settings
from coatnet_search.analysis.tune_spec import TuneSpec
from coatnet_search.analysis.tuning import best_values, sweep, sweeps
from coatnet_search.cli.main import main
from coatnet_search.core.errors import InputError
from coatnet_search.record.fold import read_record, read_values
from coatnet_search.record.trial import Trial
from coatnet_search.search.run import run
from coatnet_search.study.load import load_study
from coatnet_search.study.plan import make_plan
from coatnet_search.study.run_folder import prepare_run
from coatnet_search.training.budget import Budget

RECIPE = {"lr": 2e-3, "weight_decay": 0.05, "drop_path": 0.0}
SPEC = TuneSpec(lr=(1e-3, 4e-3), drop_path=(0.1,))


def tried(replaced: dict[str, float], error: float | None, state: Any = "done") -> Trial:
    return Trial({}, {"error": error}, state, budget=Budget(epochs=1, num_images=100),
                 attributes={"layout": "C-C-C-C", "tune": replaced})  # fmt: skip


def star(own: float | None, low: float, high: float, deep: float) -> list[Trial]:
    return [tried({}, own, "done" if own else "failed"), tried({"lr": 1e-3}, low), tried({"lr": 4e-3}, high),
            tried({"drop_path": 0.1}, deep)]  # fmt: skip


def test_a_sweep_tries_the_recipe_and_each_other_value_alone() -> None:
    spec = TuneSpec(lr=(1e-3, 2e-3, 4e-3), drop_path=(0.1,))

    assert sweep(spec, RECIPE) == [{}, {"lr": 1e-3}, {"lr": 4e-3}, {"drop_path": 0.1}]


@pytest.mark.parametrize(
    ("trials", "best"),
    [
        (star(0.5, 0.6, 0.4, 0.7), {"lr": 4e-3, "drop_path": 0.0}),
        (star(0.5, 0.5, 0.5, 0.5), {"lr": 2e-3, "drop_path": 0.0}),
        (star(None, 0.6, 0.7, 0.8), {"lr": 1e-3, "drop_path": 0.1}),
        (star(0.5, 0.6, 0.4, 0.7)[:3], None),
        ([*star(0.5, 0.6, 0.4, 0.7)[:3], tried({"drop_path": 0.1}, None, "running")], None),
    ],
)
def test_the_least_error_decides_key_by_key_once_all_have_ended(
    trials: list[Trial], best: dict[str, float] | None
) -> None:
    assert best_values(trials, "C-C-C-C", 100, SPEC, RECIPE) == best


def test_single_runs_are_smoothed_over_regimes_which_finds_the_best_value_more_often() -> None:
    regimes, right = (500, 1000, 2000, 4000, 8000), {"alone": 0, "smoothed": 0}
    for seed in range(60):
        rng = np.random.default_rng(seed)
        trials = [dataclasses.replace(trial, budget=Budget(epochs=1, num_images=images)) for images in regimes
                  for trial in star(*(0.4 * np.exp(rng.normal([0.03, 0.03, 0.0, 0.03], 0.03))))]  # fmt: skip
        alone = [one for one in trials if one.budget and one.budget.num_images == 2000]
        for name, shown, known in (("alone", alone, ()), ("smoothed", trials, regimes)):
            found = best_values(shown, "C-C-C-C", 2000, SPEC, RECIPE, known)
            right[name] += found is not None and found["lr"] == 4e-3

    assert right["smoothed"] > right["alone"] + 6, "lr 4e-3 is the best everywhere"


def test_a_layouts_sweeps_are_waited_for_at_all_amounts_of_data() -> None:
    assert best_values(star(0.5, 0.6, 0.4, 0.7), "C-C-C-C", 100, SPEC, RECIPE, (100, 200)) is None


def test_other_layouts_and_amounts_have_sweeps_of_their_own() -> None:
    trials = star(0.5, 0.6, 0.4, 0.7)

    assert best_values(trials, "C-T-T-T", 100, SPEC, RECIPE) is None
    assert best_values(trials, "C-C-C-C", 200, SPEC, RECIPE) is None


def test_a_best_value_on_the_edge_is_flagged_unless_it_is_zero() -> None:
    rows = [{"arm": "a", "num_images": 100, "tune": trial.attributes["tune"], "error": trial.metrics["error"]}
            for trial in star(0.5, 0.6, 0.4, 0.7)]  # fmt: skip

    lr, depth = sweeps(rows, {"lr": [1e-3, 4e-3], "weight_decay": [], "drop_path": [0.1]}, RECIPE)

    assert (lr["value"], lr["error"], lr["own_error"], lr["tried"]) == (4e-3, 0.4, 0.5, [1e-3, 2e-3, 4e-3])
    assert lr["on_edge"] and (depth["value"], depth["on_edge"]) == (0.0, False)


def test_sweeps_come_first_and_are_in_the_plan(tmp_path: Path) -> None:
    study, cells = cells_of(tmp_path, tune={"lr": [1e-4, 1e-2], "weight_decay": [0.1]})

    first = [cell for cell in cells if "tune" in cell.attributes]
    plan = make_plan(load_study(study_file(tmp_path, tune={"lr": [1e-4, 1e-2], "weight_decay": [0.1]})), tmp_path)

    assert cells[: len(first)] == first and len(first) == 4 * 2 * 3  # values, layouts, regimes
    assert {cell.budget.seed for cell in first} == {2} and {cell.budget.seed for cell in cells[len(first) :]} == {0, 1}
    assert len({cell.key(study) for cell in cells}) == len(cells) == plan.trials == 24 + 12


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"tune": {}}, "tune.lr: expected values of lr, weight_decay or drop_path to try"),
        ({"tune": {"lr": [0.0]}}, "tune.lr.0: expected a number above 0"),
        ({"tune": {"lr": [1.0e-9]}}, "tune.lr.0: recipe.min_lr"),
        ({"tune": {"drop_path": [1.0]}}, "tune.drop_path.0: expected a number below 1"),
        ({"tune": {"rate": [1.0]}}, "no key named 'rate'"),
    ],
)
def test_a_wrong_sweep_is_named_with_file_line_and_key(tmp_path: Path, more: dict[str, object], message: str) -> None:
    with pytest.raises(InputError) as caught:
        load_study(study_file(tmp_path, **more))

    assert message in str(caught.value) and "scaling.yaml:" in str(caught.value)


def test_a_trainer_of_ones_own_is_not_tuned(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="tune: a trainer of your own has a recipe of its own"):
        load_study(study_file(tmp_path, tune={"lr": [1e-3]}), evaluator="trainers:quick")


def test_a_changed_sweep_is_refused_on_resume(tmp_path: Path) -> None:
    prepare_run(load_study(study_file(tmp_path, tune={"lr": [1e-3]})), tmp_path)

    with pytest.raises(InputError, match=r"tune\.lr"):
        prepare_run(load_study(study_file(tmp_path, tune={"lr": [1e-3, 1e-2]})), tmp_path)


def test_a_run_from_before_the_key_goes_on_without_a_sweep_and_refuses_one(tmp_path: Path) -> None:
    run = prepare_run(load_study(study_file(tmp_path)), tmp_path)
    older = {key: value for key, value in read_values(run / "study.yaml").items() if key != "tune"}
    (run / "study.yaml").write_text(yaml.safe_dump(older))

    with pytest.raises(InputError, match="tune"):
        prepare_run(load_study(study_file(tmp_path, tune={"lr": [1e-3]})), tmp_path)

    assert prepare_run(load_study(study_file(tmp_path)), tmp_path) == run


def test_figures_say_what_was_tuned() -> None:
    study = {"recipe": {"name": "digits"}, "tune": {"lr": [1e-3, 4e-3], "weight_decay": [], "drop_path": []}}

    (recipe, *_), (untuned, *_) = settings(study), settings({**study, "tune": None})

    assert (
        recipe.startswith("recipe digits, tuned for each layout") and "lr (beside the recipe's: 0.001, 0.004)" in recipe
    )
    assert "untuned" in untuned


def test_runs_get_what_their_sweep_found_also_after_a_stop(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = study_file(tmp_path, tune={"lr": [1.0e-5]}, layouts=["C-C-C-C", "C-C-T-T"],
                      regimes={"num_images": [100, 1.0], "doubled": True})  # fmt: skip
    run(load_study(path, ["search.trials=10"]), local=True, runs=tmp_path)  # all sweeps, and two of their runs

    outcome = run(load_study(path), local=True, runs=tmp_path)
    code = main(["scaling", str(outcome.run), "--json"])

    frame, answer = read_record(outcome.run), json.loads(capsys.readouterr().out)
    attributes = frame["attributes"].tolist()
    found = {(row["arm"], row["num_images"]): {"lr": row["value"]} for row in answer["tuning"]}
    assert ["tune" in one for one in attributes] == [True] * 8 + [False] * 8
    assert [one["tuned"] for one in attributes[8:]] == [
        found[row] for row in zip(frame["layout"][8:], frame["num_images"][8:], strict=True)
    ]
    assert code == 0 and outcome.complete and len(frame) == 16 and frame["key"].is_unique
    assert "tuned for each layout" in answer["settings"][0] and len(answer["tuning"]) == 4
