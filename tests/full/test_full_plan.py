"""What is to be trained in full, and from which weights: found by name, checked before hours are spent."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import yaml
from command_line import digit_folder
from safetensors.torch import save_file

from coatnet_search.architecture.arch import Arch, Stage, Stem
from coatnet_search.core.errors import InputError, SetupError
from coatnet_search.full.networks import Network, family_size, find_network
from coatnet_search.full.plan import Plan, check, data_spec, make_plan
from coatnet_search.training.recipe import make_recipe

ARCH = Arch(
    image_size=8, in_channels=1, num_classes=10, stem=Stem(depth=1, width=8, stride=1),
    stages=(Stage(block="C", depth=1, width=8, stride=2), Stage(block="T", depth=1, width=16, head_size=8)),
)  # fmt: skip
CPU = torch.device("cpu")
QUICK = ("batch_size=128", "micro_batch=64", "ema=0.9")


@pytest.fixture
def arch_file(tmp_path: Path) -> str:
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(ARCH.to_dict()))
    return str(path)


def planned(arch: str, *recipes: str, **options: Any) -> Plan:
    values: dict[str, Any] = {"sets": QUICK, "epochs": 2, **options}
    return make_plan(arch, recipes or ("digits",), values.pop("data", "digits"), **values)


def test_weights_go_to_other_data_with_a_new_head_which_is_said(arch_file, tmp_path):
    network = find_network(arch_file, image_size=None, own_size=8, in_channels=1, num_classes=10)
    trained = network.build(7)
    network.save(trained, tmp_path / "first.safetensors")
    photos = digit_folder(tmp_path / "photos", 120)
    for label in range(3, 10):
        shutil.rmtree(photos / f"digit-{label}")
    first = str(tmp_path / "first.safetensors")
    plan = planned(arch_file, data=str(photos), weights=first, sets=("batch_size=8",))

    said = check(plan, CPU)
    model, _ = plan.network.started(0, plan.last.recipe, first)

    assert said == [
        "44 of the network's 46 tensors were loaded",
        "the weights tell 10 classes apart, the data has 3: the head is new",
    ]
    assert model.head.fc.weight.shape == (3, 16)
    assert torch.equal(model.state_dict()["stem.0.weight"], trained.state_dict()["stem.0.weight"])


def test_weights_for_gray_images_go_to_coloured_ones_and_it_is_said(arch_file, tmp_path):
    gray, coloured = (find_network(arch_file, image_size=None, own_size=8, in_channels=channels, num_classes=10)
                      for channels in (1, 3))  # fmt: skip
    trained = gray.build(7)
    save_file({f"module.{name}": value for name, value in trained.state_dict().items()}, tmp_path / "gray.safetensors")

    model, start = coloured.started(0, make_recipe({"name": "digits"}), str(tmp_path / "gray.safetensors"))

    assert start.changes == ("stem.0.weight was fitted from 1 to 3 channels",)
    assert torch.allclose(model.state_dict()["stem.0.weight"].sum(1), trained.state_dict()["stem.0.weight"].sum(1))


def test_weights_in_timms_form_go_to_a_converted_network_or_are_refused(tmp_path):
    theirs = timm.create_model("coatnet_0_224", img_size=160, num_classes=5).state_dict()
    save_file({f"model.{name}": value.clone() for name, value in theirs.items()}, tmp_path / "whole.safetensors")
    save_file({name: value.clone() for name, value in list(theirs.items())[::2]}, tmp_path / "half.safetensors")
    network = find_network("timm:coatnet_0_224", image_size=128, own_size=128, in_channels=3, num_classes=3)
    recipe = make_recipe({"name": "digits"})

    model, start = network.started(0, recipe, str(tmp_path / "whole.safetensors"))
    with pytest.raises(InputError, match=r"weights of another network, \d+ of its \d+ tensors fit"):
        network.started(0, recipe, str(tmp_path / "half.safetensors"))

    assert start.loaded == start.tensors - 2 and "tables were resized" in start.changes[0]
    assert start.changes[1] == "the weights tell 5 classes apart, the data has 3: the head is new"
    assert torch.equal(model.state_dict()["stem.0.weight"], theirs["stem.conv1.weight"])


def test_the_published_networks_of_timm_become_architectures():
    network = find_network("timm:coatnet_0_224", image_size=None, own_size=8, in_channels=3, num_classes=10)

    assert (network.timm, network.shape.layout, network.shape.image_size) == (None, "C-C-T-T", 224)
    assert family_size(network) == "coatnet-0"


def test_a_plan_travels_as_plain_values(arch_file):
    plan = planned(arch_file, "digits", "small-images-finetune@16", sets=("2.centre_crop=false",))

    again = Plan.from_dict(json.loads(json.dumps(plan.to_dict())))

    assert again.identity() == plan.identity()
    assert again.network.count == plan.network.count


WRONG = {
    "unknown recipe": ({"recipes": ("digit",)}, "did you mean 'digits'"),
    "recipe of another size": ({"recipes": ("paper-imagenet",)}, "paper-imagenet is for networks of the size of"),
    "size that is none": ({"recipes": ("digits@x",)}, "expected NAME or NAME@SIZE"),
    "size that does not fit": ({"recipes": ("digits@9",)}, "image_size 9 is not a multiple"),
    "unknown value": ({"sets": ("lrr=1",)}, "did you mean 'lr'"),
    "stage that is not there": ({"sets": ("3.lr=1",)}, "there is no stage 3, only 1"),
    "unknown data": ({"data": "digit"}, "no data set named 'digit'; did you mean 'digits'"),
    "unknown value of data": ({"sets": ("data.seeds=1",)}, "did you mean 'seed'"),
    "unknown timm network": ({"arch": "timm:coatnet_9"}, "timm knows no network 'coatnet_9'"),
    "parts that do not divide": ({"sets": ("batch_size=100", "micro_batch=64")}, "64 does not divide"),
    "a seed twice": ({"seeds": (1, 1)}, "each one once"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_mistake_is_one_line_before_anything_is_trained(name, arch_file):
    options, message = WRONG[name]
    options = {"arch": arch_file, "recipes": ("digits",), "data": "digits", "sets": QUICK, **options}

    with pytest.raises((InputError, SetupError)) as caught:
        make_plan(options.pop("arch"), options.pop("recipes"), options.pop("data"), **options)

    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_would_end_the_training_later_is_found_by_the_check(arch_file, tmp_path):
    with pytest.raises(InputError, match="5000 steps of warm-up, but the whole run has"):
        check(planned(arch_file, sets=("warmup=5000", "warmup_unit=steps")), CPU)
    with pytest.raises(InputError, match="do not divide among 3 workers"):
        check(planned(arch_file), CPU, workers=3)
    with pytest.raises(SetupError, match="nowhere is not there"):
        check(planned(arch_file, weights="nowhere"), CPU)
    (tmp_path / "bad.safetensors").write_bytes(b"no")
    with pytest.raises(InputError, match="not a whole safetensors file"):
        check(planned(arch_file, weights=str(tmp_path / "bad.safetensors")), CPU)
    other = dataclasses.replace(ARCH, stages=(dataclasses.replace(ARCH.stages[0], width=16), ARCH.stages[1]))
    wider = Network(name="wider", shape=other)
    wider.save(wider.build(0), tmp_path / "wider.safetensors")
    with pytest.raises(InputError, match=r"weights of another network, \d+ of its \d+ tensors fit: stages\.1"):
        check(planned(arch_file, weights=str(tmp_path / "wider.safetensors")), CPU)
    with pytest.raises(SetupError, match="does not exist; give a folder"):
        data_spec("not/here")


def test_weights_of_a_trial_that_were_not_kept_say_so(arch_file, tmp_path, monkeypatch):
    class Trial:
        number, key, arch, state = 3, "abc", ARCH, "done"

    monkeypatch.setattr("coatnet_search.full.networks.read_trials", lambda _: [Trial])
    monkeypatch.setattr("coatnet_search.full.networks.record_path", lambda _: Path(__file__))

    with pytest.raises(SetupError, match="the weights of trial 3 of run were not kept"):
        check(planned(arch_file, weights="run:3"), CPU)
