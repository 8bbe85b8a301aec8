"""A study with inherited weights: the supernet comes first, candidates are scored alike whenever they are asked."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from processes import kill_a_worker
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from coatnet_search.architecture.build import build
from coatnet_search.core.errors import InputError, SetupError
from coatnet_search.data.batches import Data
from coatnet_search.data.load import load_data
from coatnet_search.data.spec import DataSpec
from coatnet_search.figures.search.summary import summarize
from coatnet_search.figures.supernet.figures import all_figures
from coatnet_search.figures.supernet.summary import candidates_per_hour, supernet_summary
from coatnet_search.full.networks import find_network, read_tensors
from coatnet_search.record.fold import read_record, read_trials
from coatnet_search.search.evaluate import Evaluator
from coatnet_search.search.run import run
from coatnet_search.search.session import Task
from coatnet_search.study.load import load_study, study_of_values
from coatnet_search.study.plan import make_plan
from coatnet_search.study.study import Study
from coatnet_search.supernet.folder import load_supernets
from coatnet_search.supernet.inherit import InheritedNetworks
from coatnet_search.supernet.recalibrate import calibration_numbers, recalibrate
from coatnet_search.supernet.rows import read_supernet_rows
from coatnet_search.training.recipe import make_recipe
from coatnet_search.training.scoring import Scorer

STUDY = """
question: Which of some small networks reads digits best?
space:
  image_size: 8
  in_channels: 1
  stem: {kind: conv, depth: 1, width: 8, stride: 1}
  head_size: 8
  stages:
    - {block: C, depth: 1, width: WIDTH, stride: 2, expand: [1, 2], norm: NORM}
    - {block: [C, T], depth: [1, 2], width: 16, stride: 1, expand: 2, norm: NORM}
data: {name: digits, num_images: 320}
evaluate: inherited
supernet: {epochs: 2, random_networks: 1, recalibration_images: 96}
recipe: {name: digits, batch_size: 32}
objectives: {val_loss: min, macs: min}
measure: []
search: {strategy: random, trials: 4, seed: 0}
tracking: {enabled: false}
"""


def study(folder: Path, *sets: str, name: str = "small", width: str = "[8, 12]", norm: str = "batch") -> Study:
    path = folder / f"{name}.yaml"
    path.write_text(STUDY.replace("WIDTH", width).replace("NORM", norm))
    return load_study(path, sets)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The RUN of the study above."""
    folder = tmp_path_factory.mktemp("inherited")
    return run(study(folder), local=True, runs=folder).run


def inherited(of: Path, images: int = 96) -> InheritedNetworks:
    asked = study_of_run(of)
    data = load_data(asked.file.data, image_size=8)
    scorer = Scorer(asked.supernet_recipe, 10, torch.device("cpu"))
    return InheritedNetworks(load_supernets(of / "supernet", asked.space), data, data.regime(320), scorer, images)


def study_of_run(of: Path) -> Study:
    from coatnet_search.record.fold import read_values

    return study_of_values(read_values(of / "study.yaml"))


def results(of: Path) -> list[Any]:
    return [(trial.number, trial.key, trial.state, trial.metrics) for trial in read_trials(of)]


def test_the_supernet_is_trained_first_and_candidates_are_scored_with_its_weights(finished):
    trials, rows = read_trials(finished), read_supernet_rows(finished / "supernet")

    assert [trial.state for trial in trials] == ["done"] * 4
    for trial in trials:
        assert 0 <= trial.metrics["val_top1"] <= trial.metrics["val_top5"] <= 1
        assert trial.metrics["error"] == 1 - trial.metrics["val_top1"]
        assert trial.budget is not None and trial.budget.epochs == 0
    assert [row["epoch"] for row in rows] == [1, 2]
    assert sorted(path.name for path in (finished / "supernet").iterdir()) == ["epochs.jsonl", "supernet.json",
                                                                               "weights"]  # fmt: skip


def test_a_trial_has_the_scores_that_its_network_alone_has(finished):
    trial, inheritance = read_trials(finished)[0], inherited(finished)

    found = inheritance.scores(inheritance.network(trial.candidate))
    del found["never_recognised"]  # a list of classes, and no metric

    assert {name: trial.metrics[name] for name in found} == found


def test_a_run_that_was_stopped_goes_on_to_the_same_weights_and_results(finished, tmp_path):
    asked = study(tmp_path)

    stopped = run(asked, local=True, minutes=1e-4, runs=tmp_path)
    rows = read_supernet_rows(stopped.run / "supernet")
    outcome = run(asked, local=True, runs=tmp_path)

    assert not stopped.complete and len(rows) == 1 and not stopped.finished
    assert outcome.complete
    nets, twin = (load_supernets(of / "supernet", study_of_run(of).space) for of in (outcome.run, finished))
    assert all(torch.equal(value, twin.state_dict()[name]) for name, value in nets.state_dict().items())
    assert results(outcome.run) == results(finished)


def test_the_same_candidate_has_the_same_bits_whatever_was_asked_before(finished):
    inheritance, candidates = inherited(finished), [trial.candidate for trial in read_trials(finished)]
    before = {name: value.clone() for name, value in inheritance.nets.state_dict().items()}

    forward = [inheritance.network(candidate).state_dict() for candidate in candidates]
    back = [inheritance.network(candidate).state_dict() for candidate in reversed(candidates)][::-1]

    for one, other in zip(forward, back, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)
    assert all(torch.equal(value, before[name]) for name, value in inheritance.nets.state_dict().items())


def test_a_supernet_is_taken_by_path_and_its_weights_are_in_the_key(finished, tmp_path):
    asked = study(tmp_path, f"supernet={{path: {finished}, recalibration_images: 96}}", name="later")

    outcome = run(asked, local=True, runs=tmp_path)

    assert not (outcome.run / "supernet").exists()
    assert [metrics for *_, metrics in results(outcome.run)] == [metrics for *_, metrics in results(finished)]
    assert {key for _, key, *_ in results(outcome.run)}.isdisjoint(key for _, key, *_ in results(finished))


def test_a_supernet_of_another_space_is_refused_with_what_differs(finished, tmp_path):
    asked = study(tmp_path, f"supernet={{path: {finished}}}", width="[8, 16]")

    with pytest.raises(InputError, match=r"of another space: s1_width is \[8, 12\] there, \[8, 16\] here"):
        run(asked, local=True, runs=tmp_path)


def test_a_supernet_that_is_not_there_or_not_finished_is_said(finished, tmp_path):
    (tmp_path / "supernet").mkdir()
    (tmp_path / "supernet" / "supernet.json").write_bytes((finished / "supernet" / "supernet.json").read_bytes())

    with pytest.raises(SetupError, match="nowhere holds no supernet; give the folder of a RUN"):
        run(study(tmp_path, "supernet={path: nowhere}"), local=True, runs=tmp_path / "a")
    with pytest.raises(SetupError, match="holds no supernet that was trained to its end"):
        run(study(tmp_path, f"supernet={{path: {tmp_path}}}"), local=True, runs=tmp_path / "b")


def test_damaged_weights_are_no_weights(finished, tmp_path):
    asked = study_of_run(finished)
    copy = tmp_path / "supernet"
    (copy / "weights").mkdir(parents=True)
    for path in [finished / "supernet" / "supernet.json", *(finished / "supernet" / "weights").iterdir()]:
        (copy / path.relative_to(finished / "supernet")).write_bytes(path.read_bytes())
    tensors = next((copy / "weights").glob("*.safetensors"))
    tensors.write_bytes(tensors.read_bytes()[:-4])

    with pytest.raises(InputError, match="is damaged or not of this supernet; remove"):
        load_supernets(copy, asked.space)


def test_a_candidate_outside_the_space_is_a_failed_trial_that_says_so(finished):
    asked, trial = study_of_run(finished), read_trials(finished)[0]
    assert trial.arch is not None
    task = Task(number=9, key="x", arch=trial.arch, budget=asked.budget, candidate={**trial.candidate, "s2_depth": 7})

    reports = list(Evaluator(asked, finished / "checkpoints", "cpu").run(task))

    assert reports[-1].state == "failed"
    assert "candidate: s2_depth: 7 is not among [1, 2]" in str(reports[-1].failure)


def test_full_training_starts_from_inherited_weights(finished):
    network = find_network(f"{finished}:1", image_size=None, own_size=8, in_channels=1, num_classes=10)

    tensors = read_tensors("inherited", network)

    arch, expected = inherited(finished).nets.extract(read_trials(finished)[1].candidate)
    assert arch == network.shape
    assert all(torch.equal(tensors[name], value) for name, value in expected.items())
    with pytest.raises(InputError, match=r"coatnet-0 is no finished trial of a search; give RUN:ID"):
        read_tensors("inherited", find_network("coatnet-0", image_size=32, own_size=32, in_channels=3, num_classes=10))


def test_plan_counts_the_supernet(finished, tmp_path):
    short, long = (make_plan(study(tmp_path, f"supernet.epochs={epochs}")) for epochs in (2, 4000))

    assert (short.supernet_epochs, short.epochs, short.trials) == (2, 0, 4)
    assert short.training is not None and short.training.device_hours is not None
    assert long.training is not None and long.training.device_hours is not None
    assert long.training.device_hours > 10 * short.training.device_hours


def test_a_changed_supernet_is_refused_on_resume(finished, tmp_path):
    with pytest.raises(InputError, match=r"supernet\.random_networks: 1 -> 0"):
        run(study(tmp_path, "supernet.random_networks=0"), local=True, runs=finished.parent)


@pytest.mark.parametrize(
    ("sets", "words"),
    [
        (("evaluate=trained",), "small.yaml:13: supernet: evaluate: inherited and supernet: go together"),
        (("supernet=null",), "supernet: evaluate: inherited and supernet: go together; write both"),
        (("supernet={mode: sandwich}",), "supernet.epochs: this key is missing; add it"),
        (("supernet={path: x, epochs: 3}",), "supernet.epochs: the supernet at path is trained already"),
        (("supernet={epochs: 3, mode: single-path, distillation: kl}",), "a single path has one network a step"),
        (("supernet.recipe={ema: 0.9}",), "supernet.recipe.ema: a supernet is not averaged"),
        (("supernet.recipe={epochs: 3}",), "supernet.recipe.epochs: a supernet's epochs are supernet.epochs"),
        (("supernet.recipe={lrr: 3}",), "supernet.recipe.lrr: no key of a recipe named 'lrr'"),
        (("supernet.epoch=3",), "supernet.epoch: no key named 'epoch'; did you mean 'epochs'?"),
        (("recipe={}",), "recipe.name: expected the name of a recipe"),
        (("replicates=2",), "with evaluate: inherited has no seeds"),
        (("peers=[resnet18]",), "peers.0.evaluate: a peer has no place in the supernet"),
        (("objectives={train_loss: min}",), "train_loss is known only of trained networks"),
    ],
)
def test_a_mistake_in_the_study_names_its_place(tmp_path, sets, words):
    with pytest.raises(InputError) as found:
        study(tmp_path, *sets)

    assert words in str(found.value)


def test_several_workers_need_ray(tmp_path):
    with pytest.raises(InputError, match=r"supernet\.workers is 2, and --local has one process"):
        run(study(tmp_path, "supernet.workers=2"), local=True, runs=tmp_path)


# --- norms -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data() -> Data:
    return load_data(DataSpec(name="digits"))


def test_fresh_statistics_are_the_mean_over_all_images_however_they_are_listed(data):
    torch.manual_seed(0)
    model = nn.Sequential(nn.BatchNorm2d(1, momentum=0.3))
    scorer = Scorer(make_recipe({"name": "digits"}), 10, torch.device("cpu"))
    regime = data.regime()
    numbers, shuffled = calibration_numbers(regime, 300), calibration_numbers(regime[:300].flip(0), 300)

    recalibrate(model, data.plain_batches(numbers, batch_size=128, device=torch.device("cpu")), scorer)

    images = torch.cat([x for x, _ in data.plain_batches(numbers, batch_size=300, device=torch.device("cpu"))])
    norm = model[0]
    assert torch.equal(numbers, shuffled)
    assert float(norm.running_mean) == pytest.approx(float(images.mean()), abs=1e-5)
    assert float(norm.running_var) == pytest.approx(float(images.var()), rel=0.02)
    assert norm.momentum == 0.3 and not norm.training


def test_networks_without_batchnorm_need_no_statistics_and_layernorm_is_an_option(tmp_path):
    asked = study(tmp_path, "supernet.epochs=1", "search.trials=1", norm="layer")

    outcome = run(asked, local=True, runs=tmp_path)

    inheritance, candidate = inherited(outcome.run), read_trials(outcome.run)[0].candidate
    model = inheritance.network(candidate)
    plain = build(*inheritance.nets.extract(candidate)).eval()
    assert outcome.complete
    assert not [module for module in model.modules() if isinstance(module, _BatchNorm)]
    assert all(torch.equal(value, plain.state_dict()[name]) for name, value in model.state_dict().items())


def test_both_norms_in_one_space_are_branches_of_their_own(tmp_path):
    asked = study(tmp_path, norm="[batch, layer]")

    found = asked.with_data().space.sample(np.random.default_rng(0))

    assert found["s1_norm"] in ("batch", "layer")


# --- both ways of sharing, and the report ----------------------------------------------------------------------------


def test_supernets_of_one_layout_each_are_trained_beside_and_the_report_compares(tmp_path):
    asked = study(tmp_path, "supernet.partition=both", "supernet.epochs=1", "search.trials=2")

    outcome = run(asked, local=True, runs=tmp_path)

    frame, values = read_record(outcome.run), study_of_run(outcome.run).values()
    found = supernet_summary(frame, values)
    assert found is not None
    assert sorted(path.name for path in (outcome.run / "supernet-apart" / "weights").iterdir()) == [
        "C-C.safetensors", "C-T.safetensors", "digests.json"]  # fmt: skip
    assert {row["layout"] for row in found["apart"]} == {row["layout"] for row in found["probes"]} == {"C-C", "C-T"}
    assert len(set(found["updates"].values())) == 1
    text = " ".join(summarize(frame, values)["notices"])
    assert "The supernet was trained for 1 of 1 epochs" in text
    assert "One supernet for each layout, trained for as many steps in all, against that: C-C smallest" in text
    assert "none was trained alone" in text


def test_the_figures_of_a_supernet_show_each_probe_and_what_it_saves(finished):
    frame = read_record(finished)
    found = supernet_summary(frame, study_of_run(finished).values())
    known = {**found, "candidates": candidates_per_hour(3600.0, 4.0, 40.0)}

    drawn = all_figures(known)

    probed = [row["epoch"] for row in read_supernet_rows(finished / "supernet") if "probes" in row]
    assert probed and {tuple(line.x) for line in drawn["supernet-probes"].data} == {tuple(probed)}
    assert len(drawn["supernet-probes"].data) == len(found["probes"])
    assert [line.name for line in drawn["supernet-candidates"].data] == ["inherited weights", "each trained alone"]
    assert "101" in drawn["supernet-candidates"].layout.annotations[0].text
    assert all_figures({"epochs": 0, "sentences": ["The supernet is not trained yet."]}) == {} == all_figures(None)


def test_a_study_that_trains_its_networks_has_no_supernet_to_report():
    assert supernet_summary(pd.DataFrame(), {"supernet": None}) is None


def test_candidates_an_hour_grow_with_their_number_and_pay_from_where_the_curves_cross():
    found = candidates_per_hour(3600.0, 4.0, 40.0)

    rates = [row["inherited"] for row in found["curve"]]
    assert rates == sorted(rates)
    assert rates[0] == pytest.approx(3600 / 3604)
    assert {row["alone"] for row in found["curve"]} == {90.0}
    assert found["pays_from"] == 101
    assert candidates_per_hour(3600.0, 4.0, None)["pays_from"] is None
    assert candidates_per_hour(3600.0, 4.0, 3.0)["pays_from"] is None


# --- on Ray ----------------------------------------------------------------------------------------------------------


def started(path: Path, runs: Path) -> "subprocess.Popen[bytes]":
    line = [sys.executable, "-m", "coatnet_search", "run", str(path), "--runs", str(runs), "--set",
            "supernet.workers=2", "supernet.epochs=4"]  # fmt: skip
    return subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)


def wait_for(epochs: int, process: "subprocess.Popen[bytes]", folder: Path) -> None:
    until = time.monotonic() + 900
    while len(read_supernet_rows(folder)) < epochs:
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.05)


@pytest.mark.full
@pytest.mark.ray
@pytest.mark.timeout(3600)
def test_two_ray_workers_killed_or_lost_in_the_middle_give_the_weights_of_an_unbroken_run(tmp_path):
    study(tmp_path)
    path = tmp_path / "small.yaml"
    folders = {name: tmp_path / name / "small" / "supernet" for name in ("whole", "lost", "cut")}
    assert started(path, tmp_path / "whole").wait(900) == 0
    lost = started(path, tmp_path / "lost")
    wait_for(2, lost, folders["lost"])
    kill_a_worker(lost)
    assert lost.wait(900) == 0  # the group starts again from the last epoch by itself
    cut = started(path, tmp_path / "cut")
    wait_for(2, cut, folders["cut"])
    os.killpg(cut.pid, signal.SIGKILL)
    cut.wait()

    assert started(path, tmp_path / "cut").wait(900) == 0

    names = {name: dict(load_supernets(folder, study(tmp_path).with_data().space).named_parameters())
             for name, folder in folders.items()}  # fmt: skip
    for name in ("lost", "cut"):
        assert all(torch.equal(value, names[name][key]) for key, value in names["whole"].items())
        assert results(folders[name].parent) == results(folders["whole"].parent)
