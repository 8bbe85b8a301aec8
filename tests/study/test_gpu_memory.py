"""What training holds on a GPU is told before a run, and too much of it is a warning."""

import pytest
import torch

from coatnet_search.study import plan as planning
from coatnet_search.study.load import load_study
from coatnet_search.study.plan import gpu_warnings
from coatnet_search.study.study import Study


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU of 24 GiB."""
    monkeypatch.setattr(planning, "SAMPLED", 3)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: (9, 0))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _n: type("Gpu", (), {"total_memory": 24 << 30}))


def large(*sets: str) -> Study:
    return load_study("imagenet-layouts", sets)


@pytest.mark.usefixtures("gpu")
def test_a_whole_batch_that_a_gpu_does_not_hold_is_said_with_what_to_do() -> None:
    (warning,) = gpu_warnings(large("recipe.micro_batch=0"))

    assert "4096 images at once, and a trial has 22.8 GiB of a GPU; set recipe.micro_batch to auto" in warning


@pytest.mark.usefixtures("gpu")
def test_the_study_of_imagenet_fits_a_gpu_of_24_gib_as_it_stands() -> None:
    assert gpu_warnings(large()) == []


@pytest.mark.usefixtures("gpu")
def test_a_trial_has_its_part_of_a_gpu() -> None:
    assert gpu_warnings(large("recipe.micro_batch=32")) == []
    assert "a trial has 5.7 GiB" in gpu_warnings(large("recipe.micro_batch=32", "resources.gpus=0.25"))[0]


def test_without_gpus_nothing_is_said() -> None:
    assert gpu_warnings(large("resources.gpus=0")) == []
