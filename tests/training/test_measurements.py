"""The contract that every measurement keeps, a model whose speed is known, and what disturbs a measurement."""

import copy
import math
import shutil
import time
from dataclasses import replace

import pytest
import torch
from archs import small
from torch import nn

from coatnet_search.architecture.build import seeded_build
from coatnet_search.core.errors import InputError, SetupError
from coatnet_search.training.measurements import (
    MEASUREMENTS,
    conditions,
    latency,
    load_measurement,
    menu,
    peak_memory,
    throughput,
    timing,
    train_throughput,
)
from coatnet_search.training.measurements import repeat_until_calm as repetition
from coatnet_search.training.measurements.conditions import Conditions, MeasurementFailed
from coatnet_search.training.measurements.repeat_until_calm import measure_calmly

NAMES = sorted(MEASUREMENTS)
CPU = Conditions(batch_size=8)
SIZED = [name for name in NAMES if name != "latency"]  # those that have a batch size to choose


class Sleeper(nn.Module):
    """A model that takes its time, whatever the machine; its copies tell it what they are given."""

    def __init__(self, seconds=0.02, most=math.inf):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(5))
        self.seconds, self.most = seconds, most  # most: images that fit
        self.batches, self.grad, self.formats, self.dtypes, self.threads = [], [], [], [], []

    def __deepcopy__(self, memo):
        other = copy.copy(self)
        other._parameters = {"weight": nn.Parameter(self.weight.detach().clone())}
        return other

    def forward(self, x):
        if len(x) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        self.batches.append(len(x))
        self.threads.append(torch.get_num_threads())
        self.grad.append(torch.is_grad_enabled())
        self.formats.append(x.is_contiguous(memory_format=torch.channels_last))
        self.dtypes.append((x.dtype, self.weight.dtype))
        time.sleep(self.seconds)
        return x.mean((1, 2, 3))[:, None] * self.weight


class Broken(Sleeper):
    def forward(self, x):
        raise RuntimeError("no kernel")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """A tenth of the repeats."""
    monkeypatch.setattr(timing, "MIN_SECONDS", 0.05)
    monkeypatch.setattr(timing, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(latency, "RUNS", 12)


@pytest.mark.parametrize("name", NAMES)
def test_a_measurement_gives_the_numbers_it_names_with_their_spread(name):
    measurement = load_measurement(name)

    found = measurement.measure(seeded_build(small(), 0), small(), CPU)

    metrics = found.metrics
    assert next(iter(metrics)) == measurement.METRICS[0]
    assert set(metrics) == {*measurement.METRICS, *(f"{metric}_spread" for metric in measurement.METRICS)}
    assert all(type(value) is float and math.isfinite(value) for value in metrics.values())
    assert all(metrics[metric] > 0 for metric in measurement.METRICS)
    assert all(metrics[f"{metric}_spread"] >= 0 for metric in measurement.METRICS)
    assert found.repeats >= 3
    assert found.spread >= 0


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_a_measurement_leaves_the_model_as_it_was(name, training):
    model = seeded_build(small(), 0).train(training)
    before = {key: (value.clone(), value.stride()) for key, value in model.state_dict().items()}

    load_measurement(name).measure(model, small(), replace(CPU, precision="bfloat16", fold=True))

    after = model.state_dict()
    assert model.training is training
    assert all(
        torch.equal(value, after[key]) and stride == after[key].stride() for key, (value, stride) in before.items()
    )
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())
    model.train()(torch.randn(2, 3, 16, 16)).sum().backward()


@pytest.mark.parametrize("name", NAMES)
def test_a_measurement_draws_no_random_numbers(name):
    before = torch.get_rng_state()

    load_measurement(name).measure(seeded_build(small(), 0, drop_path=0.5), small(), CPU)

    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", NAMES)
def test_a_measurement_has_its_own_number_of_threads(name):
    model, before = Sleeper(0), torch.get_num_threads()

    load_measurement(name).measure(model, small(), replace(CPU, threads=before + 1))

    assert set(model.threads) == {before + 1}
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("name", NAMES)
def test_a_model_that_fails_is_not_swallowed_and_is_left_in_its_mode(name):
    model = Broken().train()

    with pytest.raises(RuntimeError, match="no kernel"):
        load_measurement(name).measure(model, small(), CPU)
    assert model.training


@pytest.mark.parametrize("arch", [small(), small(in_channels=1, image_size=32)])
@pytest.mark.parametrize("name", NAMES)
def test_a_measurement_uses_the_images_of_the_architecture(name, arch):
    found = load_measurement(name).measure(seeded_build(arch, 0), arch, CPU)

    assert found.metrics


@pytest.mark.parametrize("name", NAMES)
def test_the_conditions_that_held_come_back(name):
    asked = Conditions(batch_size=4, memory_format="contiguous")

    found = load_measurement(name).measure(seeded_build(small(), 0), small(), asked)

    assert found.conditions == replace(asked, batch_size=1 if name == "latency" else 4)


@pytest.mark.parametrize("name", NAMES)
def test_a_condition_reaches_the_network(name):
    model = Sleeper(0)

    load_measurement(name).measure(model, small(), Conditions(batch_size=2, precision="bfloat16"))

    assert all(model.formats)
    assert set(model.dtypes) == {
        (torch.float32, torch.float32) if name == "train_throughput" else (torch.bfloat16, torch.bfloat16)
    }
    assert set(model.grad) == {name == "train_throughput"}


@pytest.mark.parametrize("name", NAMES)
def test_one_that_does_not_fit_says_which_batch_size_did_not(name):
    with pytest.raises(
        MeasurementFailed, match=r"out of memory at batch size \d+ \(16 pixels, float32, cpu\)"
    ) as error:
        load_measurement(name).measure(Sleeper(0, most=0), small(), CPU)

    assert error.value.kind == "out_of_memory"


# --- known answers -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["throughput", "train_throughput"])
def test_throughput_of_a_model_that_sleeps_is_its_batch_over_its_sleep(name):
    model, measurement = Sleeper(0.02), load_measurement(name)

    found = measurement.measure(model, small(), CPU).metrics[measurement.METRICS[0]]

    assert 0.2 * 8 / 0.02 < found <= 1.01 * 8 / 0.02
    assert set(model.batches) == {8}
    assert len(model.batches) >= 5


def test_latency_of_a_model_that_sleeps_is_its_sleep_for_one_image():
    model = Sleeper(0.02)

    found = latency.measure(model, small(), CPU).metrics

    assert 20 <= found["latency_ms"] < 100
    assert found["latency_p95_ms"] >= found["latency_ms"]
    assert set(model.batches) == {1}


def test_a_slower_model_has_a_lower_throughput():
    quick, slow = (throughput.measure(Sleeper(s), small(), CPU).metrics[throughput.METRICS[0]] for s in (0.005, 0.05))

    assert quick > slow


def test_peak_memory_is_that_of_what_is_alive_at_once():
    class Chain(nn.Module):
        def forward(self, x):
            for _ in range(9):  # one is read, one is written, the others are gone
                x = x * 2
            return x.sum()

    found = peak_memory.measure(Chain(), small(image_size=64), Conditions(batch_size=16)).metrics

    one = 16 * 3 * 64 * 64 * 4 / 2**20
    assert found["peak_memory_mib"] == pytest.approx(3 * one, rel=0.01)
    assert found["peak_memory_mib_spread"] == pytest.approx(0, abs=0.01)


def test_half_the_precision_takes_half_the_memory():
    model = seeded_build(small(), 0)

    full, half = (peak_memory.measure(model, small(), Conditions(batch_size=64, precision=precision)).metrics
                  for precision in ("float32", "bfloat16"))  # fmt: skip

    assert half["peak_memory_mib"] < 0.75 * full["peak_memory_mib"]


# --- the best batch size -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SIZED)
def test_the_best_batch_size_is_the_last_that_fits_where_more_images_cost_nothing(name):
    model = Sleeper(0.002, most=20)

    found = load_measurement(name).measure(model, small(), Conditions(batch_size="best"))

    assert found.conditions.batch_size == 16
    assert max(model.batches) == 16


def test_the_best_batch_size_is_small_where_more_images_gain_nothing():
    class Linear(Sleeper):
        def forward(self, x):
            self.seconds = 0.005 * max(4, len(x))
            return super().forward(x)

    model = Linear()

    found = throughput.measure(model, small(), Conditions(batch_size="best"))

    assert found.conditions.batch_size in (4, 8)
    assert max(model.batches) <= 32


@pytest.mark.parametrize("name", SIZED)
def test_not_even_one_image_fits(name):
    with pytest.raises(MeasurementFailed, match="out of memory at every batch size, from 1 on") as error:
        load_measurement(name).measure(Sleeper(0, most=0), small(), Conditions(batch_size="best"))

    assert error.value.kind == "out_of_memory"
    assert "\n" not in str(error.value)


def test_the_cpus_allocator_is_out_of_memory_too():
    error = RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory: you tried")

    assert conditions.is_out_of_memory(error)
    assert not conditions.is_out_of_memory(RuntimeError("no kernel"))


# --- compilation ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_compilation_without_a_compiler_is_one_clear_line(name, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")

    with pytest.raises(SetupError, match=r"there is no compiler here \(looked for no-such-compiler\)"):
        load_measurement(name).measure(Sleeper(0), small(), replace(CPU, compile=True))


def test_a_compilation_that_fails_is_one_clear_line(monkeypatch):
    def broken(model, **options):
        def run(images):
            raise torch._dynamo.exc.Unsupported("no such operator\nand forty lines more")

        return run

    import torch._dynamo

    monkeypatch.setattr(conditions, "check_compiler", lambda device, mode: None)
    monkeypatch.setattr(torch, "compile", broken)

    with pytest.raises(
        MeasurementFailed, match=r"compilation failed at batch size 8 \(16 pixels, float32, cpu\): "
    ) as error:
        throughput.measure(Sleeper(0), small(), replace(CPU, compile=True))
    assert error.value.kind == "compilation"
    assert "\n" not in str(error.value)


@pytest.mark.full
@pytest.mark.parametrize("name", NAMES)
def test_a_compiled_network_is_measured(name):
    if not shutil.which("g++"):
        pytest.skip("no compiler")

    found = load_measurement(name).measure(seeded_build(small(), 0), small(), replace(CPU, compile=True))

    assert found.conditions.compile
    assert found.spread >= 0


# --- disturbed -----------------------------------------------------------------------------------------------------


class Fake:
    """A measurement whose tries spread as they are told."""

    METRICS = ("speed",)

    def __init__(self, *spreads):
        self.spreads, self.tries = list(spreads), 0

    def measure(self, model, arch, asked):
        spread, self.tries = self.spreads[self.tries], self.tries + 1
        return conditions.Measured(
            metrics={"speed": 100.0 + self.tries, "speed_spread": spread}, conditions=asked, repeats=5
        )


@pytest.fixture
def fake(monkeypatch):
    def make(*spreads, waited=0.0):
        one = Fake(*spreads)
        monkeypatch.setattr(repetition, "load_measurement", lambda name: one)
        clock = iter(range(100))
        monkeypatch.setattr(repetition, "_waited_s", lambda: waited * next(clock))
        return one

    return make


def test_a_calm_measurement_is_done_once(fake):
    one = fake(2.0)

    found = measure_calmly("speed", Sleeper(), small(), CPU)

    assert (one.tries, found.tries, found.disturbed, found.measured.metrics["speed"]) == (1, 1, False, 101)


def test_a_disturbed_measurement_is_repeated_until_it_is_calm(fake):
    fake(30.0, 2.0)

    found = measure_calmly("speed", Sleeper(), small(), CPU)

    assert (found.tries, found.disturbed, found.measured.metrics["speed"]) == (2, False, 102)


def test_one_that_stays_disturbed_says_so_and_is_the_calmest_try(fake):
    fake(30.0, 20.0, 40.0)

    found = measure_calmly("speed", Sleeper(), small(), CPU)

    assert (found.tries, found.disturbed, found.measured.metrics["speed"]) == (3, True, 102)
    assert found.as_attributes()["disturbed"] is True


def test_a_process_that_waits_for_a_core_is_disturbed_though_nothing_spreads(fake):
    fake(0.0, 0.0, 0.0, waited=10.0)

    found = measure_calmly("speed", Sleeper(), small(), CPU)

    assert found.disturbed
    assert found.tries == 3


def test_each_try_holds_the_device_anew(fake):
    import contextlib

    fake(30.0, 20.0, 40.0)
    held = []

    @contextlib.contextmanager
    def alone():
        held.append("in")
        yield
        held.append("out")

    measure_calmly("speed", Sleeper(), small(), CPU, alone)

    assert held == ["in", "out"] * 3


# --- the menu ------------------------------------------------------------------------------------------------------


def test_an_unknown_measurement_says_which_are_known():
    with pytest.raises(InputError, match="no measurement named 'thruput'; did you mean 'throughput'"):
        load_measurement("thruput")


def test_the_menu_is_free_of_torch_until_used():
    import subprocess
    import sys

    code = "import sys, coatnet_search.training.measurements as m; m.menu(); print('torch' in sys.modules)"

    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert other.stdout.strip() == "False"
    assert set(menu()) >= set(NAMES)


def test_training_throughput_never_folds():
    found = train_throughput.measure(seeded_build(small(), 0), small(), replace(CPU, fold=True))

    assert found.conditions.fold is False
