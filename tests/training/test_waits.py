"""A training step waits for nothing: what it needs is on the device from the epoch's start."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from coatnet_search.data.augmentation import generator
from coatnet_search.data.randaugment import RandAugment

MADE_UP_GPU = "COATNET_SEARCH_NULL_GPU"  # a program that starts a command with a made-up GPU in place of a real one
SCRIPT = Path(__file__).parent.parent / "helpers" / "gpu_waits.py"


class Devices(TorchDispatchMode):
    """Notes each operation that tensors of two devices take part in, numbers of no dimension apart."""

    def __init__(self) -> None:
        super().__init__()
        self.mixed: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, given: Any = (), named: Any = None) -> Any:
        found = function(*given, **(named or {}))
        tensors = [value for value in (*given, found) if isinstance(value, torch.Tensor)]
        if len({tensor.device for tensor in tensors}) > 1:
            self.mixed.append(str(function))
        return found


@pytest.mark.parametrize("channels", [1, 3])
def test_a_step_of_randaugment_copies_nothing_to_its_device_and_reads_nothing_back(channels):
    device = torch.device("meta")  # holds no values, so that an operation which asks for one fails
    images = torch.empty(64, channels, 16, 16, device=device)
    change = RandAugment(2, 15, 128, generator(0), batch=64, device=device)

    with Devices() as seen:
        result = change(images, 64, 128)

    assert result.shape == images.shape
    assert seen.mixed == []


def test_no_training_step_but_the_first_waits_for_the_gpu():
    launcher = os.environ.get(MADE_UP_GPU)
    if not launcher and not torch.cuda.is_available():
        pytest.skip(f"no GPU here, and {MADE_UP_GPU} names no program that makes one up")

    command = [*([launcher] if launcher else []), sys.executable, str(SCRIPT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250, check=False)

    assert done.returncode == 0, done.stderr[-2000:]
    waits = json.loads(done.stdout.splitlines()[-1])
    assert {name: found[1:] for name, found in waits.items()} == {"plain": [0] * 5, "augmented": [0] * 5}
