"""In which precision a device trains and is measured, and that records of a CPU stay what they were."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from coatnet_search.study.load import load_study
from coatnet_search.study.study import Study
from coatnet_search.training.device import chosen_precision, exact_float32, software

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


def asked(precision: str, *sets: str) -> Study:
    return load_study("quickstart", [f"conditions.precision={precision}", *sets])


def key(study: Study) -> str:
    return study.key(study.space.decode(study.space.sample(np.random.default_rng(0))))


@pytest.mark.parametrize(
    ("capability", "chosen"), [((9, 0), "bfloat16"), ((8, 0), "bfloat16"), ((7, 5), "float16"), ((6, 1), "float32")]
)
def test_automatic_precision_is_the_half_that_a_gpu_has(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], chosen: str
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: capability)

    assert chosen_precision("auto", GPU) == chosen
    assert chosen_precision("float32", GPU) == "float32"
    assert chosen_precision("auto", CPU) == "float32"


@pytest.fixture
def rounded() -> Iterator[None]:
    """TF32 everywhere, as long as a test runs."""
    backends = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [backend.allow_tf32 for backend in backends]
    for backend in backends:
        backend.allow_tf32 = True
    yield
    for backend, allowed in zip(backends, before, strict=True):
        backend.allow_tf32 = allowed


@pytest.mark.usefixtures("rounded")
def test_float32_on_a_gpu_is_not_rounded_and_the_record_says_so() -> None:
    exact_float32(GPU)

    told = software(GPU)
    assert told["tf32"] == {"matmul": False, "convolution": False}
    assert told["torch"] == torch.__version__
    assert software(CPU) == {}


def test_on_a_cpu_automatic_precision_leaves_keys_and_the_study_as_they_were() -> None:
    automatic, explicit = asked("auto"), asked("float32")

    assert key(automatic) == key(explicit)
    assert automatic.values()["conditions"]["precision"] == "float32"


def test_on_a_gpu_another_precision_is_another_trial() -> None:
    automatic, explicit = asked("auto", "resources.gpus=1"), asked("float32", "resources.gpus=1")

    assert key(automatic) != key(explicit)
    assert automatic.values()["conditions"]["precision"] == "auto"
