"""The paper's studies: they load and plan; what was printed is set beside ours; only, replicates."""

import dataclasses
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from command_line import call
from frames import frame_of, trial

from coatnet_search.analysis.against_published import Order, orders, results, unrun
from coatnet_search.core import bundled
from coatnet_search.core.document import dump
from coatnet_search.core.errors import InputError
from coatnet_search.record.fold import read_record
from coatnet_search.search.run import run
from coatnet_search.study import plan, workload
from coatnet_search.study.load import load_study
from coatnet_search.study.plan import make_plan
from coatnet_search.study.planned_trials import planned
from coatnet_search.study.run_folder import differences
from coatnet_search.study.study import Study

PAPER = [name for name in bundled.names("studies") if name.startswith("paper-")]
EQUAL = [
    "paper-layouts-small",
    "paper-transfer-small",
    *(pytest.param(name, marks=pytest.mark.full) for name in ("paper-layouts", "paper-transfer")),  # count many blocks
]
SPACE = """\
image_size: 8
in_channels: 1
stem: {kind: conv, depth: 1, width: 8, stride: 1}
stages:
  - {block: C, depth: 1, width: 8, stride: 1, norm: [batch, layer]}
  - {block: C, depth: 1, width: 8, stride: 1, kernel: [3, 5], norm: [batch, layer]}
  - {block: T, depth: 1, width: 8, stride: 2}
head_size: 8
"""
ONLY = "only: [{s1_norm: batch, s2_norm: batch, s2_kernel: 3}, {s1_norm: layer, s2_norm: layer, s2_kernel: 3}]\n"
PUBLISHED = [
    {"where": {"s1_norm": "batch"}, "metric": "val_top1", "value": 0.841},
    {"where": {"s1_norm": "layer"}, "metric": "val_top1", "value": 0.838, "note": "of another network"},
]


def study_file(folder: Path, **more: object) -> Path:
    """A study of digits over the two combinations of a space of eight."""
    text: dict[str, object] = {
        "question": "Which norm?",
        "space": yaml.safe_load(SPACE + ONLY),
        "data": {"name": "digits", "val_fraction": 0.2, "num_images": 100},
        "recipe": {"name": "digits", "epochs": 1},
        "objectives": {"error": "min"},
        "measure": [],
        "search": {"strategy": "grid", "trials": 2},
        "tracking": {"enabled": False},
        "published": PUBLISHED,
        **more,
    }
    path = folder / "norms.yaml"
    path.write_text(dump(text))
    return path


def refused(folder: Path, **more: object) -> str:
    with pytest.raises(InputError) as caught:
        load_study(study_file(folder, **more))
    return str(caught.value)


def rows(accuracies: dict[str, list[float]], **values: Any) -> pd.DataFrame:
    """A done trial a norm and seed."""
    made = []
    for norm, found in accuracies.items():
        for seed, top1 in enumerate(found):
            made.append(trial(len(made), val_top1=top1, seed=seed, arch_id=norm, candidate={"s1_norm": norm}, **values))
    return frame_of(*made)


def order_of(accuracies: dict[str, list[float]], printed: list[dict[str, Any]] | None = None) -> Order:
    (found,) = orders(results(rows(accuracies), {"published": printed or PUBLISHED}))
    return found


# --- the bundled ones -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PAPER)
def test_each_of_the_paper_s_studies_has_its_results_a_question_and_a_twin(name: str) -> None:
    study = load_study(name)

    found = unrun(study.values())

    assert found and orders(found) and study.file.question.endswith(("?", ")"))
    assert f"{name}-small" in PAPER or name.removesuffix("-small") in PAPER
    assert study.file.resources.gpus == (0 if name.endswith("-small") else 1)
    seeds = study.file.regimes.seeds * study.file.instances if study.file.equal_cost else study.file.replicates
    assert seeds >= 3  # a difference of a third of a point needs more than one run of each


@pytest.mark.parametrize("name", [name for name in PAPER if "layouts" not in name and "transfer" not in name])
def test_the_paper_s_ablations_run_exactly_the_networks_that_they_ask_of(name: str) -> None:
    study = load_study(name)

    survey = study.space.survey

    assert survey.exact and survey.size == study.file.search.trials
    if name.endswith("-small"):
        assert 4e6 <= survey.macs[0] <= survey.macs[1] <= 8e6
    else:
        assert any(abs(macs - 15.50e9) < 0.01e9 for macs in survey.macs) or "blocks" in name or "stride" in name


def test_the_strides_of_the_paper_cost_what_its_networks_count_to() -> None:
    space = load_study("paper-stride").space

    costs = sorted(round(space.cost(candidate).macs / 1e9, 2) for candidate in space.enumerate())

    assert costs == [4.14, 4.55, 8.24, 8.64, 15.50, 16.43]


@pytest.mark.parametrize("name", EQUAL)
def test_the_paper_s_layouts_are_planned_at_equal_cost(name: str) -> None:
    study = load_study(name)

    cells = planned(dataclasses.replace(study, summary=workload.UNSEEN))

    asked = study.file.equal_cost
    assert asked and {cell.layout for cell in cells} == set(study.file.layouts)
    assert all(abs(cell.macs / asked.macs - 1) <= asked.tolerance for cell in cells)
    per_layout = study.file.instances * study.file.regimes.seeds * len(study.file.regimes.num_images)
    assert len(cells) == len(study.file.layouts) * per_layout


@pytest.mark.parametrize(
    "name", [*[name for name in PAPER if "layouts" not in name and "transfer" not in name], *EQUAL]
)
def test_the_paper_s_studies_plan_without_data(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "training_speed", lambda *given: 100.0)
    monkeypatch.setattr(plan, "SAMPLED", 5)

    made = make_plan(load_study(name))

    assert made.trials > 1 and any("data" in warning for warning in made.warnings)


@pytest.mark.full  # counts many blocks
def test_the_layouts_study_trains_as_long_on_both_sets() -> None:
    study = load_study("paper-layouts")
    summary = dataclasses.replace(workload.UNSEEN, num_train=14_200_000)

    cells = planned(dataclasses.replace(study, summary=summary))

    assert {cell.budget.num_images: cell.budget.epochs for cell in cells} == {1_280_000: 300, 14_200_000: 27}
    recipe = study.recipe
    plain = (recipe.mixup, recipe.label_smoothing, recipe.drop_path, recipe.weight_decay, recipe.randaugment_layers)
    assert not any(plain) and not recipe.flip and recipe.min_crop_area == 1 and not recipe.shift


# --- ours beside the printed ------------------------------------------------------------------------------------------


def test_ours_is_the_mean_over_seeds_with_their_spread() -> None:
    batch, layer = results(rows({"batch": [0.70, 0.72, 0.74], "layer": [0.70]}), {"published": PUBLISHED})

    assert (batch.choice, batch.value, batch.runs, batch.networks) == ("s1_norm batch", 0.841, 3, 1)
    assert batch.ours == pytest.approx(0.72) and batch.sd == pytest.approx(0.02)
    assert layer.ours == pytest.approx(0.70) and layer.sd is None


@pytest.mark.parametrize(
    ("batch", "layer", "verdict"),
    [
        ([0.72, 0.70, 0.74], [0.71, 0.69, 0.731], "agrees"),  # paired by seed: the seeds differ more than the norms
        ([0.71, 0.69, 0.731], [0.72, 0.70, 0.74], "opposite"),
        ([0.71, 0.72, 0.70], [0.70, 0.73, 0.71], "undecided"),
        ([0.72], [0.70], "one run each"),
        ([0.72], [], "not run"),
    ],
)
def test_an_order_agrees_where_the_interval_of_the_paired_difference_does(
    batch: list[float], layer: list[float], verdict: str
) -> None:
    found = order_of({"batch": batch, "layer": layer})

    assert (found.better, found.worse, found.agreement) == ("s1_norm batch", "s1_norm layer", verdict)
    assert found.printed == pytest.approx(0.003)


def test_choices_printed_as_equal_are_told_apart_or_not() -> None:
    equal = [PUBLISHED[0], {**PUBLISHED[1], "value": 0.841}]

    near = order_of({"batch": [0.71, 0.72, 0.70], "layer": [0.70, 0.73, 0.71]}, equal)
    far = order_of({"batch": [0.71, 0.72, 0.70], "layer": [0.61, 0.621, 0.60]}, equal)

    assert (near.agreement, far.agreement) == ("no difference seen", "differs")


def test_layouts_are_compared_over_their_networks_by_rank_on_their_amount_of_data() -> None:
    made = []
    for layout, errors in {"C-C-C-C": [0.30, 0.31, 0.29], "ViT_REL": [0.40, 0.42, 0.41]}.items():
        for instance, error in enumerate(errors, 1):
            for images in (100, 1000):
                for seed in (0, 1):
                    made.append(trial(len(made), val_top1=1 - error, seed=seed, num_images=images,
                                      arch_id=f"{layout}{instance}", train_top1=1.0 - 0.01 * seed,
                                      attributes={"layout": layout, "size": 1.0, "instance": instance}))  # fmt: skip
    made.append(
        {**made[0], "number": len(made), "val_top1": 0.0, "attributes": {**made[0]["attributes"], "doubled": 1}}
    )
    printed = [{"where": {"layout": layout, "num_images": amount}, "metric": metric, "rank": rank}
               for metric, amount, ranks in (("generalisation_gap", 100, (1, 2)), ("error", 1.0, (2, 1)))
               for layout, rank in zip(("C-C-C-C", "ViT_REL"), ranks, strict=True)]  # fmt: skip

    found = results(frame_of(*made), {"published": printed, "data_summary": {"num_train": 1000}})
    gap, error = orders(found)

    assert [(one.runs, one.networks) for one in found] == [(6, 3)] * 4
    assert found[0].ours == pytest.approx(0.295) and found[0].sd == pytest.approx(0.01)
    assert (gap.better, gap.agreement, gap.printed) == ("layout C-C-C-C, num_images 100", "agrees", None)
    assert (error.better, error.agreement) == ("layout ViT_REL, num_images 100 %", "opposite")
    assert error.ours == pytest.approx(-0.11) and error.low and error.low < -0.11


def test_a_study_without_printed_results_is_refused() -> None:
    with pytest.raises(InputError, match="study quickstart: it has no published results"):
        results(rows({"batch": [0.7]}), {"name": "quickstart", "published": []})


# --- the keys of the files --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("printed", "message"),
    [
        (
            {"where": {"s1_norm": "batch"}, "metric": "val_topp1", "value": 1},
            "no metric named 'val_topp1'; did you mean",
        ),
        ({"where": {"s1_norm": "batch"}, "metric": "error"}, "expected the value that was printed, or rank"),
        ({"where": {"s1_norm": "batch"}, "metric": "error", "value": 1, "rank": 1}, "expected the value that was"),
        ({"where": {"s1_nrom": "batch"}, "metric": "error", "value": 1}, "did you mean 's1_norm'"),
        ({"where": {"s1_norm": "group"}, "metric": "error", "value": 1}, "'group' is not among ['batch', 'layer']"),
        ({"where": {}, "metric": "error", "value": 1}, "expected at least one entry"),
    ],
)
def test_a_printed_result_of_nothing_that_the_study_has_is_refused(
    tmp_path: Path, printed: dict[str, object], message: str
) -> None:
    found = refused(tmp_path, published=[printed])

    assert "published.0" in found and message in found


def test_replicates_are_for_searches_that_train(tmp_path: Path) -> None:
    measured = refused(tmp_path, replicates=2, evaluate="measured", objectives={"macs": "min"}, published=[])
    scaling = refused(tmp_path, replicates=2, equal_cost={"macs": 1e6}, published=[])

    assert "with evaluate: measured has no seeds" in measured
    assert "has regimes.seeds instead" in scaling


@pytest.mark.parametrize(
    ("only", "message"),
    [("{s3_norm: batch}", "only: no dimension named 's3_norm'"), ("{s1_norm: group}", "'group' is not among")],
)
def test_a_combination_of_what_a_space_does_not_have_is_refused(tmp_path: Path, only: str, message: str) -> None:
    found = refused(tmp_path, space=yaml.safe_load(f"{SPACE}only: [{only}]"))

    assert message in found


def test_a_space_has_only_the_combinations_that_are_allowed(tmp_path: Path) -> None:
    space = load_study(study_file(tmp_path)).space

    found = list(space.enumerate())

    assert [one["s1_norm"] for one in found] == [one["s2_norm"] for one in found] == ["batch", "layer"]
    assert (space.size(), space.survey.exact) == (2, True)
    assert space.problems({"s1_norm": "batch", "s2_norm": "layer", "s2_kernel": 3}) == [
        "only: not one of the combinations that are allowed"
    ]


def test_a_run_from_before_the_key_is_the_same_study(tmp_path: Path) -> None:
    study = load_study(study_file(tmp_path, space=yaml.safe_load(SPACE)))

    values = study.values()

    assert "only" not in values["space"]
    assert list(differences(values, study.values())) == []


# --- replicates -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, Path]:
    """A study of two networks with three seeds each, in two slices."""
    folder = tmp_path_factory.mktemp("norms")
    first = load_study(study_file(folder))
    run(first, runs=folder, local=True)
    study = load_study(study_file(folder, replicates=3, near_front=0))
    outcome = run(study, runs=folder, local=True)
    assert outcome.complete and outcome.finished == outcome.wanted == 6
    return study, outcome.run


def test_finished_candidates_are_trained_again_with_further_seeds(ran: tuple[Study, Path]) -> None:
    study, folder = ran

    frame = read_record(folder)
    again = run(study, runs=folder.parent, local=True)

    assert sorted(zip(frame["arch_id"], frame["seed"], strict=True)) == sorted(
        (name, seed) for name in set(frame["arch_id"]) for seed in (0, 1, 2)
    )
    assert frame["key"].is_unique and list(frame["origin"]) == ["grid"] * 2 + ["replicate"] * 4
    assert [one.get("of") for one in frame["attributes"]] == [None, None, 0, 1, 0, 1]
    assert again.finished == 6  # nothing is left to run


def test_published_prints_ours_beside_the_printed(ran: tuple[Study, Path], capsys: pytest.CaptureFixture[str]) -> None:
    _, folder = ran

    shown = call(capsys, "published", folder)
    values = call(capsys, "published", folder, "--json").json

    assert shown.code == 0
    assert "84.10 %" in shown.out and "note: s1_norm layer: of another network" in shown.out
    assert [one["runs"] for one in values["published"]] == [3, 3]
    (order,) = values["orders"]
    assert order["printed"] == pytest.approx(0.003) and order["low"] <= order["ours"] <= order["high"]


def test_published_lists_the_bundled_studies_and_shows_one(capsys: pytest.CaptureFixture[str]) -> None:
    every = call(capsys, "published", "--json").json
    one = call(capsys, "published", "paper-relative")
    without = call(capsys, "published", "quickstart")

    assert [study["study"] for study in every] == PAPER
    assert "84.10 %" in one.out and "87.6 in three other tables" in one.out and "ours" not in one.out
    assert without.code == 2 and "no published results" in without.error
