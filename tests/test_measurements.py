"""The contract that every measurement keeps, and a model whose speed is known."""

import math
import time

import pytest
import torch
from archs import small
from torch import nn

from coatnet_search.build import seeded_build
from coatnet_search.errors import InputError
from coatnet_search.measurements import MEASUREMENTS, load_measurement, menu, throughput

NAMES = sorted(MEASUREMENTS)
CPU = torch.device("cpu")


class Sleeper(nn.Module):
    """A model that takes its time, whatever the machine."""

    def __init__(self, seconds=0.02):
        super().__init__()
        self.seconds, self.batches, self.grad, self.formats = seconds, [], [], []

    def forward(self, x):
        self.batches.append(len(x))
        self.grad.append(torch.is_grad_enabled())
        self.formats.append(x.is_contiguous(memory_format=torch.channels_last))
        time.sleep(self.seconds)
        return x.sum()


class Broken(nn.Module):
    def forward(self, x):
        raise RuntimeError("no kernel")


@pytest.mark.parametrize("name", NAMES)
def test_a_measurement_gives_the_numbers_it_names_with_their_spread(name):
    measurement = load_measurement(name)

    found = measurement.measure(seeded_build(small(), 0), small(), CPU)

    assert set(found) == {*measurement.METRICS, *(f"{metric}_spread" for metric in measurement.METRICS)}
    assert all(type(value) is float and math.isfinite(value) for value in found.values())
    assert all(found[metric] > 0 for metric in measurement.METRICS)
    assert all(found[f"{metric}_spread"] >= 0 for metric in measurement.METRICS)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_a_measurement_leaves_the_model_as_it_was(name, training):
    model = seeded_build(small(), 0).train(training)
    before = {key: value.clone() for key, value in model.state_dict().items()}

    load_measurement(name).measure(model, small(), CPU)

    assert model.training is training
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    model.train()(torch.randn(2, 3, 16, 16)).sum().backward()


@pytest.mark.parametrize("name", NAMES)
def test_a_measurement_draws_no_random_numbers(name):
    before = torch.get_rng_state()

    load_measurement(name).measure(Sleeper(0), small(), CPU)

    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", NAMES)
def test_a_model_that_fails_is_not_swallowed_and_is_left_in_its_mode(name):
    model = Broken().train()

    with pytest.raises(RuntimeError, match="no kernel"):
        load_measurement(name).measure(model, small(), CPU)
    assert model.training


@pytest.mark.parametrize("arch", [small(), small(in_channels=1, image_size=32)])
@pytest.mark.parametrize("name", NAMES)
def test_a_measurement_uses_the_images_of_the_architecture(name, arch):
    load_measurement(name).measure(seeded_build(arch, 0), arch, CPU)


def test_throughput_of_a_model_that_sleeps_is_its_batch_over_its_sleep():
    model = Sleeper(0.02)

    found = throughput.measure(model, small(), CPU)["throughput_images_per_s"]

    batch = throughput.BATCH_SIZE["cpu"]
    assert 0.2 * batch / 0.02 < found <= 1.01 * batch / 0.02
    assert set(model.batches) == {batch}
    assert len(model.batches) >= 3
    assert not any(model.grad)
    assert all(model.formats)


def test_a_slower_model_has_a_lower_throughput():
    quick, slow = (throughput.measure(Sleeper(s), small(), CPU)["throughput_images_per_s"] for s in (0.005, 0.05))

    assert quick > slow


def test_an_unknown_measurement_says_which_are_known():
    with pytest.raises(InputError, match="no measurement named 'thruput'; did you mean 'throughput'"):
        load_measurement("thruput")


def test_the_menu_is_free_of_torch_until_used():
    import subprocess
    import sys

    code = "import sys, coatnet_search.measurements as m; m.menu(); print('torch' in sys.modules)"

    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert other.stdout.strip() == "False"
    assert set(menu()) >= set(NAMES)
