"""Scaling studies: what is planned, what is refused, and what their records answer."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from coatnet_search.analysis.choose import choose_at, write_choices
from coatnet_search.analysis.compute_frontier import best_for_compute, budgets, compute_frontier
from coatnet_search.analysis.scaling import Scaling, fit_scaling
from coatnet_search.analysis.scaling_runs import scaling_runs
from coatnet_search.architecture.cost import cost
from coatnet_search.cli.main import main
from coatnet_search.core.errors import InputError
from coatnet_search.record.fold import read_record
from coatnet_search.search.run import run
from coatnet_search.study.load import load_study
from coatnet_search.study.plan import make_plan
from coatnet_search.study.planned_trials import planned
from coatnet_search.study.study import Study

SIZES = [500, 1000, 2000, 4000, 8000]


def study_file(folder: Path, **more: object) -> Path:
    text: dict[str, object] = {
        "question": "Which layout at which size?",
        "space": "digits",
        "data": {"name": "digits", "val_fraction": 0.2},
        "recipe": {"name": "digits", "epochs": 1},
        "objectives": {"error": "min", "macs": "min"},
        "measure": [],
        "equal_cost": {"macs": 5.0e5, "tolerance": 0.1},
        "layouts": ["C-C-C-C", "C-C-T-T"],
        "regimes": {"num_images": [0.1, 300, 1.0], "seeds": 2},
        "tracking": {"enabled": False},
        **more,
    }
    path = folder / "scaling.yaml"
    path.write_text(yaml.safe_dump(text, sort_keys=False))
    return path


def cells_of(folder: Path, **more: object) -> tuple[Study, list[Any]]:
    study = load_study(study_file(folder, **more)).with_data()
    return study, planned(study)


def world(curves: dict[str, Callable[[float], float]], *, seeds: int = 3, sizes: list[int] | None = None,
          noise: float = 0.01, instances: int = 1) -> pd.DataFrame:  # fmt: skip
    """A record of made-up runs: each layout's error by images, with noise that seeds share half of."""
    rng, rows = np.random.default_rng(0), []
    for seed in range(seeds):
        shared = rng.normal(0, noise, len(SIZES))
        for name, error in curves.items():
            for instance in range(1, instances + 1):
                for place, count in enumerate(sizes or SIZES):
                    value = error(count) * np.exp(shared[place] + rng.normal(0, noise) + 0.05 * (instance - 1))
                    rows.append({
                        "number": len(rows), "key": f"k{len(rows)}", "state": "done", "layout": name, "error": value,
                        "arch_id": f"{name}{instance}", "val_top1": 1 - value, "num_images": count, "epochs": 10,
                        "seed": seed, "draw": 0, "params": 1e5, "macs": 4e6, "arch": {"stages": []}, "candidate": {},
                        "attributes": {"layout": name, "size": 1.0, "instance": instance},
                    })  # fmt: skip
    return pd.DataFrame(rows)


CROSSING = {"C-C-C-C": lambda n: 0.1 + 2 * n**-0.4, "C-T-T-T": lambda n: 0.02 + 6 * n**-0.45}


@pytest.fixture(scope="module")
def crossing() -> Scaling:
    return fit_scaling(world(CROSSING), num_val=5000)


# --- what is planned -------------------------------------------------------------------------------------------------


def test_runs_of_one_amount_share_their_subset_and_seed_and_cost_the_same(tmp_path: Path) -> None:
    study, cells = cells_of(tmp_path, instances=2)

    pairs = {(cell.budget, cell.attributes["instance"]) for cell in cells}
    macs = [cost(cell.arch).macs for cell in cells]

    assert len(cells) == 2 * 2 * 3 * 2  # layouts, instances, regimes, seeds
    assert all(sum((c.budget, c.attributes["instance"]) == pair for c in cells) == 2 for pair in pairs)
    assert {cell.budget.num_images for cell in cells} == {144, 300, 1438}
    assert max(abs(value - 5e5) for value in macs) <= 0.1 * 5e5
    assert len({cell.arch.id for cell in cells}) == 4 and len({cell.key(study) for cell in cells}) == len(cells)


def test_equal_steps_and_least_steps_decide_how_long_small_regimes_train(tmp_path: Path) -> None:
    _, epochs = cells_of(tmp_path)
    _, steps = cells_of(tmp_path, match="steps")
    _, least = cells_of(tmp_path, regimes={"num_images": [0.1, 300, 1.0], "min_steps": 10})

    assert {cell.budget.epochs for cell in epochs} == {1}
    assert {(cell.budget.num_images, cell.budget.epochs) for cell in steps} == {(144, 10), (300, 5), (1438, 1)}
    assert {(cell.budget.num_images, cell.budget.epochs) for cell in least} == {(144, 5), (300, 3), (1438, 1)}


def test_a_ladder_of_sizes_multiplies_the_cost(tmp_path: Path) -> None:
    _, cells = cells_of(tmp_path, sizes=[1, 2], regimes={"num_images": [1.0]})

    by_size = {cell.attributes["size"]: cost(cell.arch).macs for cell in cells}

    assert by_size[2.0] == pytest.approx(1e6, rel=0.1) and by_size[1.0] == pytest.approx(5e5, rel=0.1)


def test_doubled_schedules_are_planned_once_for_each_layout_and_regime(tmp_path: Path) -> None:
    _, cells = cells_of(tmp_path, regimes={"num_images": [300, 1.0], "seeds": 2, "doubled": True})

    doubled = [cell for cell in cells if cell.attributes.get("doubled")]

    assert len(doubled) == 4 and {cell.budget.epochs for cell in doubled} == {2}


def test_peers_are_trained_on_every_regime_and_measured_ones_once(tmp_path: Path) -> None:
    peers = ["resnet10t", {"timm": "resnet18", "evaluate": "measured"}]

    _, cells = cells_of(tmp_path, peers=peers)

    labels = [cell.layout for cell in cells]
    assert labels.count("timm:resnet10t") == 6 and labels.count("timm:resnet18 measured") == 1


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"regimes": {"num_images": [5000]}}, "5000 is 5,000 images; expected 10 (1 a class) to 1,438"),
        ({"regimes": {"num_images": [0.001]}}, "0.001 is 1 images"),
        ({"equal_cost": {"macs": 5.0e9}}, "nearest"),
        ({"layouts": ["T-C-C-C"]}, "T-C-C-C"),
    ],
)
def test_what_no_run_can_meet_is_refused_before_anything_runs(
    tmp_path: Path, more: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError) as caught:
        cells_of(tmp_path, **more)

    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"search": {"strategy": "random"}}, "search.strategy: a scaling study runs what it lists: expected listed or"),
        ({"evaluate": "measured"}, "evaluate: a scaling study trains its networks"),
        ({"data": {"name": "digits", "num_images": 100}}, "data.num_images: a scaling study has regimes instead"),
        ({"equal_cost": None, "search": {"trials": 2}}, "this is for scaling studies; add equal_cost"),
        ({"search": {"strategy": "settle"}}, "settle: settle: and search.strategy settle go together"),
        ({"settle": {"at_data": 100}}, "settle: settle: and search.strategy settle go together"),
        ({"regimes": {"num_images": []}}, "regimes.num_images: expected at least one entry"),
        ({"regimes": {"num_images": [-5]}}, "regimes.num_images.0: expected a number above 0"),
    ],
)
def test_a_wrong_scaling_study_is_named_with_file_line_and_key(
    tmp_path: Path, more: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError) as caught:
        load_study(study_file(tmp_path, **more))

    assert message in str(caught.value) and "scaling.yaml:" in str(caught.value)


def test_the_plan_adds_up_every_run(tmp_path: Path) -> None:
    one = make_plan(load_study(study_file(tmp_path)), tmp_path)
    two = make_plan(load_study(study_file(tmp_path, instances=2)), tmp_path)

    assert (one.trials, two.trials) == (12, 24)
    assert one.training and two.training and one.training.device_hours and two.training.device_hours


def test_a_study_runs_resumes_and_answers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = study_file(tmp_path, regimes={"num_images": [100, 300, 1.0], "seeds": 2})
    first = run(load_study(path, ["search.trials=5"]), local=True, runs=tmp_path)

    outcome = run(load_study(path), local=True, runs=tmp_path)
    code = main(["scaling", str(outcome.run), "--json"])

    answer = json.loads(capsys.readouterr().out)
    frame = read_record(outcome.run)
    assert first.finished == first.wanted == 5 and outcome.finished == len(frame) == 12
    assert frame["key"].is_unique and code == 0
    index = json.loads((outcome.run / "regimes" / "index.json").read_text())
    rows = pd.read_csv(outcome.run / "regimes" / "draw-0.csv")
    assert set(index["files"]["draw-0.csv"]) == {"100", "300", "1438"} and len(rows) == 1438
    assert (
        rows["image"].is_unique
        and rows["label"][:10].nunique() == 10
        and (rows["label"][:100].value_counts() >= 8).all()
    )
    assert {row["arm"] for row in answer["answers"][0]["arms"]} == {"C-C-C-C", "C-C-T-T"}
    assert sum(row["p_best"] for row in answer["answers"][0]["arms"]) == pytest.approx(1)


def test_vit_rel_stands_beside_the_layouts_of_the_space(tmp_path: Path) -> None:
    more: dict[str, Any] = {"space": "cifar-tiny", "equal_cost": {"macs": 4.0e6}, "layouts": ["C-C-T-T", "ViT_REL"]}

    _, cells = cells_of(tmp_path, **more, data={"name": "digits", "val_fraction": 0.2})

    found = {cell.layout: cell for cell in cells}
    assert found["ViT_REL"].arch.stem.kind == "patch" and len(found["ViT_REL"].arch.stages) == 1
    assert all(abs(cell.macs / 4e6 - 1) <= 0.05 for cell in cells)


def test_settle_runs_what_is_useful_and_stops_when_the_choice_is_clear(tmp_path: Path) -> None:
    more: dict[str, Any] = {"search": {"strategy": "settle"}, "settle": {"at_data": 1500, "probability": 0.6}}
    regimes = {"num_images": [100, 200, 400, 800, 1.0], "seeds": 3, "min_steps": 20}
    study = load_study(study_file(tmp_path, regimes=regimes, **more))

    outcome = run(study, local=True, runs=tmp_path)
    again = run(study, local=True, runs=tmp_path)

    frame = read_record(outcome.run)
    assert outcome.complete and outcome.settled and 6 <= outcome.finished < outcome.wanted == 30
    assert frame.groupby("layout")["num_images"].nunique().min() >= 3
    assert again.finished == outcome.finished and again.settled == outcome.settled


# --- what records answer ---------------------------------------------------------------------------------------------


def test_the_winner_changes_where_the_curves_cross(crossing: Scaling) -> None:
    small, large = crossing.at(500).iloc[0], crossing.at(64_000).iloc[0]

    found = crossing.crossovers().iloc[0]

    assert small["arm"] == "C-C-C-C" and small["p_best"] > 0.95
    assert large["arm"] == "C-T-T-T" and large["p_best"] > 0.9
    true = next(n for n in range(500, 50_000, 50) if CROSSING["C-T-T-T"](n) < CROSSING["C-C-C-C"](n))
    assert found["low"] < true < found["high"]


def test_all_answers_come_from_the_same_samples(crossing: Scaling) -> None:
    table = crossing.at(16_000).set_index("arm")

    better = crossing.pairs(16_000).loc["C-C-C-C", "C-T-T-T"]
    best = crossing.probability_best([16_000]).iloc[0]

    assert table.loc["C-C-C-C", "p_best"] == pytest.approx(better) == pytest.approx(best["C-C-C-C"])


def test_layouts_that_cannot_be_told_apart_are_not_ranked_with_certainty() -> None:
    same = {"C-C-C-C": lambda n: 2 * n**-0.3, "C-C-T-T": lambda n: 2 * n**-0.3}

    scaling = fit_scaling(world(same, noise=0.03))

    assert "the data cannot decide" in scaling.conclusion(32_000)


def test_larger_regimes_are_held_out_and_predicted() -> None:
    scaling = fit_scaling(world(CROSSING), up_to=4000)

    table = scaling.check()

    assert scaling.num_images[-1] == 4000 and set(table["num_images"]) == {8000}
    assert table["inside"].all() and (abs(table["predicted"] / table["error"] - 1) < 0.1).all()


def test_a_regime_above_all_others_holds_nothing_out():
    with pytest.raises(InputError, match="up to 1e\\+06 images nothing is held out: the largest"):
        fit_scaling(world(CROSSING), up_to=1e6)


def test_layout_effect_and_spread_of_instances_are_told_apart() -> None:
    scaling = fit_scaling(world(CROSSING, instances=3))

    assert scaling.arms == ("C-C-C-C", "C-T-T-T") and scaling.fits.names == ("C-C-C-C x1", "C-T-T-T x1")
    assert scaling.instances["log_sd"].to_numpy() == pytest.approx([0.05, 0.05], rel=0.2)


def test_compute_limits_the_arms(crossing: Scaling) -> None:
    spent = 3 * 4e6 * 10 * 8000

    assert len(crossing.at(8000, compute=1.01 * spent)) == 2
    with pytest.raises(InputError, match="the nearest is C-C-C-C with"):
        crossing.at(8000, compute=0.99 * spent)


def test_a_budget_gives_each_arm_its_own_number_of_images(crossing: Scaling) -> None:
    cost = 3 * 4e6 * 10  # of one image

    small, large = best_for_compute(crossing, 500 * cost), best_for_compute(crossing, 60_000 * cost)
    line = compute_frontier(crossing, budgets(crossing, 5))

    assert small["num_images"].tolist() == pytest.approx([500, 500]) and small["arm"][0] == "C-C-C-C"
    assert large["num_images"].tolist() == pytest.approx([60_000, 60_000]) and large["arm"][0] == "C-T-T-T"
    assert line["error"].is_monotonic_decreasing and len(line) == 5
    with pytest.raises(InputError, match="train no arm on 500 images"):
        best_for_compute(crossing, 100 * cost)


def test_beyond_the_calibrated_distance_it_refuses_unless_told_to(crossing: Scaling) -> None:
    with pytest.raises(InputError, match="calibrated up to"):
        crossing.at(10 * crossing.reach)

    assert len(crossing.at(10 * crossing.reach, beyond=True)) == 2


def test_data_needed_is_a_distribution_with_not_in_range(crossing: Scaling) -> None:
    table = crossing.data_needed(0.12).set_index("arm")

    true = next(n for n in range(500, 100_000, 50) if CROSSING["C-T-T-T"](n) < 0.12)
    assert table.loc["C-T-T-T", "low"] < true < table.loc["C-T-T-T", "high"]
    assert table.loc["C-C-C-C", "not_in_range"] > 0.05


def test_the_noise_floor_has_seeds_and_validation_images(crossing: Scaling) -> None:
    floor = crossing.noise.iloc[0]

    assert floor["seed_sd"] == pytest.approx(floor["error"] * 0.0141, rel=0.8)
    assert floor["binomial_sd"] == pytest.approx((floor["error"] * (1 - floor["error"]) / 5000) ** 0.5)


def test_failed_and_running_trials_are_told_and_never_fitted() -> None:
    frame = world(CROSSING)
    frame.loc[[0, 7], "state"] = ["failed", "stopped"]

    scaling = fit_scaling(frame)

    assert list(scaling.missing["state"]) == ["failed", "stopped"] and len(scaling.runs) == len(frame) - 2


def test_points_that_a_doubled_schedule_moves_are_flagged() -> None:
    frame = world(CROSSING)
    twice = frame[(frame["seed"] == 0) & (frame["num_images"].isin([500, 8000]))].copy()
    twice["attributes"] = [{**one, "doubled": True} for one in twice["attributes"]]
    twice["epochs"], twice["number"] = 20, range(1000, 1000 + len(twice))
    twice.loc[twice["num_images"] == 500, "error"] *= 0.7

    scaling = fit_scaling(pd.concat([frame, twice]), num_val=5000)

    assert set(scaling.too_short["num_images"]) == {500} and len(scaling.too_short) == 2


def test_a_rule_of_training_that_changes_along_the_curve_is_told() -> None:
    one_rule = world(CROSSING)
    two_rules = one_rule.assign(epochs=[max(10, 20_000 / images) for images in one_rule["num_images"]])

    assert fit_scaling(one_rule).warnings == []
    assert ["for as many epochs" in text for text in fit_scaling(two_rules).warnings] == [True]
    held_out = fit_scaling(two_rules, up_to=2000)  # the rule changes on the way to what is predicted
    assert ["for as many epochs" in text for text in held_out.warnings] == [True]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f[f["num_images"] == 500], "no scaling study"),
        (lambda f: f.assign(epochs=np.where(f["seed"] == 1, 20, 10)), "runs of different length"),
        (lambda f: f.assign(state="failed"), "no run of this study is done yet"),
    ],
)
def test_records_that_cannot_be_fitted_say_why(change: Callable[[pd.DataFrame], pd.DataFrame], message: str) -> None:
    with pytest.raises(InputError) as caught:
        fit_scaling(change(world(CROSSING)))

    assert message in str(caught.value)


def test_the_choice_follows_the_amount_of_data(crossing: Scaling, tmp_path: Path) -> None:
    frame = world(CROSSING)

    small, large = choose_at(frame, crossing, 500), choose_at(frame, crossing, 64_000)
    files = write_choices(large, tmp_path)

    assert small[0].row["layout"] == "C-C-C-C" and large[0].row["layout"] == "C-T-T-T"
    assert small[0].row["num_images"] == 8000 and "At 500 images" in small[0].reason
    assert yaml.safe_load(files[0].read_text())["metrics"]["p_best"] > 0.9
    assert yaml.safe_load(files[0].read_text())["metrics"]["predicted_images"] == 64_000
    with pytest.raises(InputError, match="none of the 2 arms keeps macs <= 1 k"):
        choose_at(frame, crossing, 500, limit={"macs": 1000})


def test_runs_without_attributes_are_arms_by_their_layout() -> None:
    frame = world(CROSSING).drop(columns=["attributes"])

    assert set(scaling_runs(frame)["arm"]) == set(CROSSING)


def test_a_forecast_is_registered_and_scored_on_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = world(CROSSING)[["layout", "num_images", "seed", "error"]].rename(columns={"layout": "arm"})
    table, run, path = tmp_path / "runs.csv", tmp_path / "run", tmp_path / "forecast.json"
    rows.to_csv(table, index=False)
    main(["import", str(table), "--out", str(run), "--num-val", "5000"])

    code = main(["scaling", str(run), "--at-data", "16000", "--register", str(path)])
    again = main(["scaling", str(run), "--at-data", "16000", "--register", str(path)])
    early = main(["scaling", str(run), "--score", str(path)])

    said = capsys.readouterr()
    assert code == 0 and again == early == 2
    assert json.loads(path.read_text())["targets"][0]["num_images"] == 16_000
    assert "registered in" in said.err and "no run of the forecast's arms on 16,000 images is done" in said.err


def test_what_the_prediction_of_held_out_runs_was_worth_is_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = world(CROSSING)[["layout", "num_images", "seed", "error"]].rename(columns={"layout": "arm"})
    rows.to_csv(tmp_path / "runs.csv", index=False)
    main(["import", str(tmp_path / "runs.csv"), "--out", str(tmp_path / "run"), "--num-val", "5000"])
    capsys.readouterr()

    code = main(["scaling", str(tmp_path / "run"), "--up-to", "4000"])

    said = " ".join(capsys.readouterr().out.split())
    assert code == 0 and "decision accuracy at 8,000 images" in said and "would tell them apart with 95 %" in said
