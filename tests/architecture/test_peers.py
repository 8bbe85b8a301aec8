"""Networks of timm beside the candidates."""

from pathlib import Path

import pytest
import timm
import torch
import yaml
from safetensors.torch import save_file

from coatnet_search.analysis.choose import choose, write_choices
from coatnet_search.analysis.published_points import published
from coatnet_search.architecture.peer_spec import PeerSpec
from coatnet_search.architecture.peers import make_peer
from coatnet_search.architecture.trained_weights import Start
from coatnet_search.core.errors import InputError, SetupError
from coatnet_search.figures.report import write_report
from coatnet_search.record.fold import read_record, read_trials
from coatnet_search.search.run import run
from coatnet_search.study.load import load_study

SMALL = ["data.num_images=200", "recipe.epochs=1", "measure=[]", "tracking.enabled=false", "search.trials=2"]
# of the families that CoAtNet's paper compares with one each: pixels, million parameters, billion multiply-adds as
# timm publishes them
FAMILIES = {
    "efficientnet_b0": (224, 5.29, 0.40), "tf_efficientnetv2_s": (384, 21.46, 8.44),
    "dm_nfnet_f0": (256, 71.49, 12.62),
    "resnet50": (224, 25.56, 4.11), "resnetv2_50x1_bit": (224, 25.55, 4.23),
    "deit_small_patch16_224": (224, 22.05, 4.61),
    "vit_base_patch16_224": (224, 86.57, 17.58), "cait_s24_224": (224, 46.92, 9.35),
    "swin_tiny_patch4_window7_224": (224, 28.29, 4.51), "pvt_v2_b2": (224, 25.36, 4.05),
    "botnet26t_256": (256, 12.49, 3.32), "lambda_resnet26t": (256, 10.96, 3.02), "halonet26t": (256, 12.48, 3.19),
    "levit_256": (224, 18.89, 1.13), "mnasnet_100": (224, 4.38, 0.33), "mobilenetv2_100": (224, 3.50, 0.31),
}  # fmt: skip


def study_file(folder: Path, **more: object) -> Path:
    text = {
        "question": "Do peers stand beside the candidates?",
        "space": "digits",
        "data": {"name": "digits", "val_fraction": 0.2},
        "recipe": {"name": "digits", "epochs": 1},
        "objectives": {"error": "min", "macs": "min"},
        "search": {"strategy": "random", "trials": 2},
        **more,
    }
    path = folder / "peers.yaml"
    path.write_text(yaml.safe_dump(text, sort_keys=False))
    return path


def test_peers_are_trained_under_the_same_data_and_budget_and_stand_in_record_front_and_choice(tmp_path: Path) -> None:
    path = study_file(tmp_path, peers=["resnet10t", {"timm": "mobilenetv3_small_050", "evaluate": "measured",
                                                     "image_size": 32}])  # fmt: skip

    outcome = run(load_study(path, SMALL), local=True, runs=tmp_path)
    frame = read_record(outcome.run)
    choices = choose(frame, {"error": "min", "macs": "min"}, top=9)
    files = write_choices(choices, tmp_path / "chosen")
    page = write_report(outcome.run, frame, load_study(outcome.run / "study.yaml").values(), choices)

    trained, measured = frame.iloc[0], frame.iloc[1]
    assert list(frame["layout"])[:2] == ["timm:resnet10t", "timm:mobilenetv3_small_050 at 32 measured"]
    assert trained["epochs"] == frame["epochs"].iloc[2] == 1 and 0 <= trained["error"] <= 1
    assert trained["params"] == sum(
        p.numel() for p in timm.create_model("resnet10t", in_chans=1, num_classes=10).parameters()
    )
    assert measured["state"] == "done" and measured["error"] != measured["error"] and measured["macs"] > 0
    assert "timm:resnet10t" in {choice.row["layout"] for choice in choices}
    assert any(yaml.safe_load(file.read_text()).get("timm") == "resnet10t" for file in files)
    assert "timm:resnet10t" in page.read_text()


def test_a_peer_beyond_the_limits_is_shown_and_never_chosen(tmp_path: Path) -> None:
    path = study_file(tmp_path, peers=["resnet10t"], limits={"macs": 2.0e6})

    outcome = run(load_study(path, SMALL), local=True, runs=tmp_path)
    frame = read_record(outcome.run)

    assert frame["state"].iloc[0] == "done" and "macs" in frame["attributes"].iloc[0]["outside_limits"][0]
    assert "timm:resnet10t" not in {choice.row["layout"] for choice in choose(frame, {"error": "min"}, top=9)}


def test_the_search_does_not_see_its_peers_and_resumes_without_training_them_again(tmp_path: Path) -> None:
    path = study_file(tmp_path, peers=["resnet10t"])
    run(load_study(path, SMALL), local=True, runs=tmp_path)

    outcome = run(load_study(path, [*SMALL, "search.trials=3"]), local=True, runs=tmp_path)

    labels = [trial.label for trial in read_trials(outcome.run)]
    assert labels.count("timm:resnet10t") == 1 and len(labels) == 4 == outcome.wanted


def test_fine_tuning_starts_from_the_weights_of_the_file(tmp_path: Path) -> None:
    donor = timm.create_model("resnet10t", num_classes=1000)
    save_file(donor.state_dict(), tmp_path / "donor.safetensors")
    spec = PeerSpec(timm="resnet10t", evaluate="fine-tuned", weights=str(tmp_path / "donor.safetensors"))

    peer = make_peer(spec, 32, 3, 10)
    model = peer.build()

    assert peer.digest != "scratch"
    assert torch.equal(model.get_parameter("layer1.0.conv1.weight"), donor.get_parameter("layer1.0.conv1.weight"))
    assert model.state_dict()["fc.weight"].shape == (10, 512)


def test_weights_of_another_network_are_refused_with_three_of_the_mismatches(tmp_path: Path) -> None:
    save_file(timm.create_model("resnet18").state_dict(), tmp_path / "other.safetensors")
    spec = PeerSpec(timm="resnet10t", evaluate="fine-tuned", weights=str(tmp_path / "other.safetensors"))

    with pytest.raises(InputError) as caught:
        make_peer(spec, 32, 3, 10).build()

    assert "weights of another network" in str(caught.value) and str(caught.value).count(": missing") == 3


def start_from(tensors: dict[str, torch.Tensor], folder: Path, name: str = "resnet10t", **ends: int) -> Start:
    save_file({key: value.clone() for key, value in tensors.items()}, folder / "file.safetensors")
    spec = PeerSpec(timm=name, evaluate="fine-tuned", weights=str(folder / "file.safetensors"))
    start = make_peer(spec, ends.get("side", 32), ends.get("channels", 3), 10).started()[1]
    assert start is not None
    return start


def test_half_of_the_tensors_a_foreign_one_or_none_are_refused(tmp_path: Path) -> None:
    whole = timm.create_model("resnet10t").state_dict()
    wrong = {
        "foo": {"foo": torch.zeros(3)},
        "half": dict(list(whole.items())[::2]),
        "one more": {**whole, "layer9.weight": torch.zeros(3)},
        "one of another shape": {**whole, "layer1.0.conv1.weight": torch.zeros(64, 64, 1, 1)},
    }

    for tensors in wrong.values():
        with pytest.raises(InputError, match=r"weights of another network, \d+ of its 86 tensors fit: .*nothing was"):
            start_from(tensors, tmp_path)


@pytest.mark.parametrize("prefix", ["module.", "model.", "_orig_mod.", "module._orig_mod.model."])
def test_what_wrappers_put_before_the_names_is_taken_off(prefix: str, tmp_path: Path) -> None:
    whole = timm.create_model("resnet10t").state_dict()

    start = start_from({prefix + name: value for name, value in whole.items()}, tmp_path)

    assert (start.loaded, start.tensors) == (84, 86)
    assert start.changes == ("the weights tell 1000 classes apart, the data has 10: the head is new",)


def test_weights_without_a_head_and_for_other_channels_fit_and_both_are_said(tmp_path: Path) -> None:
    body = {name: value for name, value in timm.create_model("resnet10t").state_dict().items() if name[:3] != "fc."}

    start = start_from(body, tmp_path, channels=1)

    assert (start.loaded, start.tensors) == (84, 86)
    assert start.changes == ("conv1.0.weight was fitted from 3 to 1 channels", "the weights have no head: it is new")


def test_tables_of_another_image_size_are_resized_by_timms_own_filter_and_counted(tmp_path: Path) -> None:
    whole = timm.create_model("vit_tiny_patch16_224", num_classes=10, img_size=64).state_dict()

    start = start_from(whole, tmp_path, "vit_tiny_patch16_224", side=32)

    assert start.loaded == start.tensors == len(whole)
    assert start.changes == ("1 tables were resized, the first, pos_embed, from (1, 17, 192) to (1, 5, 192)",)


def test_a_network_whose_loader_is_not_strict_is_compared_strictly_all_the_same(tmp_path: Path) -> None:
    whole = timm.create_model("dla46_c", num_classes=10).state_dict()

    start = start_from(whole, tmp_path, "dla46_c")
    with pytest.raises(InputError, match=r"of its \d+ tensors fit"):
        start_from(dict(list(whole.items())[::2]), tmp_path, "dla46_c")

    assert start.loaded == start.tensors == len(whole)


def test_a_study_whose_peers_weights_do_not_fit_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    save_file({"foo": torch.zeros(3)}, tmp_path / "foo.safetensors")
    peer = {"timm": "resnet10t", "evaluate": "fine-tuned", "weights": str(tmp_path / "foo.safetensors")}
    path = study_file(tmp_path, peers=[peer])

    with pytest.raises(InputError, match="0 of its 86 tensors fit"):
        run(load_study(path, SMALL), local=True, runs=tmp_path / "runs")

    assert not (tmp_path / "runs").exists()


def test_how_many_tensors_a_peer_began_with_is_on_the_screen_and_in_the_record(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_file(timm.create_model("resnet10t").state_dict(), tmp_path / "donor.safetensors")
    peer = {"timm": "resnet10t", "evaluate": "fine-tuned", "weights": str(tmp_path / "donor.safetensors")}
    path = study_file(tmp_path, peers=[peer])

    outcome = run(load_study(path, [*SMALL, "search.trials=1"]), local=True, runs=tmp_path)

    told = read_record(outcome.run)["attributes"].iloc[0]["weights"]
    assert told[0] == "84 of the network's 86 tensors were loaded"
    assert "timm:resnet10t fine-tuned: 84 of the network's 86 tensors were loaded" in capsys.readouterr().err


def test_weights_that_are_not_here_are_never_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    spec = PeerSpec(timm="resnet10t", evaluate="fine-tuned")

    with pytest.raises(SetupError, match="not on this machine and nothing is downloaded; fetch them by"):
        make_peer(spec, 32, 3, 10)


@pytest.mark.parametrize(
    ("peers", "message"),
    [
        (["resnet81"], "peers.0.timm: timm knows no network 'resnet81'; did you mean resnet"),
        ([{"timm": "resnet18", "recipe": {"epochs": 3}}], "peers.0.recipe.epochs: a peer has the study's epochs"),
        ([{"timm": "resnet18", "recipe": {"lrr": 1}}], "peers.0.recipe.lrr: no key of a recipe named 'lrr'"),
        ([{"timm": "resnet18", "weights": "a.safetensors"}], "peers.0.weights: weights are for fine-tuning"),
        (["resnet18", "resnet18"], "peers.1: timm:resnet18 a second time"),
        (
            [{"timm": "resnet18", "evaluate": "tuned"}],
            "peers.0.evaluate: expected 'trained', 'fine-tuned' or 'measured'",
        ),
    ],
)
def test_a_wrong_peer_is_named_with_file_line_and_key(tmp_path: Path, peers: list[object], message: str) -> None:
    path = study_file(tmp_path, peers=peers)

    with pytest.raises(InputError) as caught:
        load_study(path)

    assert message in str(caught.value) and "peers.yaml:" in str(caught.value)


def test_a_network_that_does_not_work_at_this_size_says_so() -> None:
    peer = make_peer(PeerSpec(timm="cait_s24_224"), 8, 3, 10)

    with pytest.raises(InputError, match="timm:cait_s24_224: does not work at 8 pixels"):
        _ = peer.count


@pytest.mark.full
@pytest.mark.parametrize("name", FAMILIES)
def test_the_papers_peers_count_to_their_published_figures(name: str) -> None:
    """Parameters in millions and multiply-adds in billions of timm's own results table, at its image sizes."""
    side, params, macs = FAMILIES[name]

    count = make_peer(PeerSpec(timm=name), side, 3, 1000).count

    assert count.params / 1e6 == pytest.approx(params, rel=0.02)
    assert count.macs / 1e9 == pytest.approx(macs, rel=0.05)


def test_the_published_points_have_coatnets_own_and_their_peers() -> None:
    frame = published()

    assert len(frame) == 71
    assert frame.query("name == 'CoAtNet-0' and image_size == 224")["val_top1"].item() == 0.816
    assert frame.query("name == 'LambdaResNet-420'")["macs"].isna().item()
    assert set(published("jft")["pretraining"]) == {"jft"}
