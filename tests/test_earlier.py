"""What earlier versions wrote opens and goes on: records, RUN folders, checkpoints, supernets, trained networks."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from command_line import call

from coatnet_search import Arch, build, load_study, load_weights, read_record
from coatnet_search.supernet.tensor_files import load_supernet

EARLIER = Path(__file__).parent / "fixtures" / "earlier"
RECORDS = [*EARLIER.glob("*/trials.jsonl"), *(Path(__file__).parents[1] / "studies" / "records").glob("*.jsonl")]


@pytest.fixture
def earlier(tmp_path):
    """A copy of everything, to go on with."""
    return shutil.copytree(EARLIER, tmp_path / "runs")


def test_a_finished_search_is_read_reported_and_chosen_from(earlier, capsys):
    frame = read_record(earlier / "search")
    chosen = call(capsys, "choose", earlier / "search", "--json").json
    report = call(capsys, "report", earlier / "search", "--json")

    assert list(frame["state"]) == ["done"] * 4 and frame["val_loss"].notna().sum() == 3
    assert [row["arch_id"] for row in chosen] == ["9a7d1e7105"]
    assert report.code == 0 and (earlier / "search" / "report.html").is_file()


def test_a_finished_search_has_nothing_left_to_run(earlier, capsys):
    again = call(capsys, "run", earlier / "search" / "study.yaml", "--local", "--runs", earlier)

    assert again.code == 0, again.err
    assert len(read_record(earlier / "search")) == 4


def test_an_interrupted_trial_goes_on_from_its_checkpoint(earlier, capsys):
    done = call(capsys, "run", earlier / "interrupted" / "study.yaml", "--local", "--runs", earlier, "--set",
                "search.trials=1")  # fmt: skip

    assert done.code == 0, done.err
    events = [json.loads(line) for line in (earlier / "interrupted" / "trials.jsonl").read_text().splitlines()]
    epochs = [event["metrics"]["epoch"] for event in events if event["event"] == "report" and event["number"] == 0]
    assert epochs == list(range(1, 41))  # 15 of them by the earlier version, none of them twice


def test_a_supernet_scores_its_networks_as_it_did(earlier, capsys):
    before = read_record(earlier / "inherited").set_index("key")["val_loss"]
    (earlier / "inherited" / "trials.jsonl").unlink()

    done = call(capsys, "run", earlier / "inherited" / "study.yaml", "--local", "--runs", earlier)

    assert done.code == 0, done.err
    after = read_record(earlier / "inherited").set_index("key")["val_loss"]
    assert after.to_dict() == pytest.approx(before.to_dict(), rel=1e-4)


def test_a_supernet_file_opens(earlier):
    study = earlier / "inherited" / "study.yaml"

    net = load_supernet(earlier / "inherited" / "supernet" / "weights" / "all.safetensors", load_study(study).space)

    assert sum(parameter.numel() for parameter in net.parameters()) > 1000


def test_a_trained_network_predicts_and_its_file_loads(earlier, capsys, tmp_path):
    from PIL import Image

    Image.new("L", (8, 8), 128).save(tmp_path / "grey.png")

    shown = call(capsys, "predict", earlier / "trained", tmp_path / "grey.png", "--json")
    model = build(*load_weights(earlier / "trained" / "export" / "model.safetensors")).eval()

    assert shown.code == 0 and len(shown.json) == 1
    assert torch.isfinite(model(torch.zeros(1, 1, 8, 8))).all()


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_networks_keep_the_ids_that_records_have_of_them(path):
    events = [json.loads(line) for line in path.read_text().splitlines()]
    known = [(event["arch"], event["arch_id"]) for event in events if event.get("arch") and event.get("arch_id")]

    assert known and all(Arch.from_dict(arch).id == own for arch, own in known)
