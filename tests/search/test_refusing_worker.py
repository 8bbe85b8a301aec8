"""What one of several workers cannot go on from is told at once, though the others wait for it."""

import time

import pytest
import torch

from coatnet_search.core.errors import InputError, SetupError
from coatnet_search.search.ray.train import MISTAKE, on_workers


@pytest.mark.ray
def test_the_refusal_of_one_worker_is_told_within_seconds(tmp_path):
    def work(_asked, _device, group):
        if group.rank == 1:
            raise SetupError("no compiler on this node")
        while True:
            group.sum(torch.zeros(1))  # waits for the other for ever

    with pytest.raises(InputError, match="no compiler on this node"):
        on_workers(work, {}, tmp_path, 2, gpus=False)

    assert time.time() - (tmp_path / MISTAKE).stat().st_mtime < 10
