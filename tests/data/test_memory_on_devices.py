"""Where the images of a small data set lie: on the device, or in the machine's memory where it has little."""

import numpy as np
import torch

from coatnet_search.data.memory import InMemory, holds


def test_images_that_would_fill_a_gpu_stay_in_the_machines_memory(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _device: (8 << 30, 24 << 30))

    assert holds(torch.device("cuda"), 1 << 30)
    assert not holds(torch.device("cuda"), (1 << 30) + 1)
    assert holds(torch.device("cpu"), 1 << 40)


def test_batches_are_on_the_device_also_where_the_images_are_not():
    """A device without memory ("meta") stands for a GPU."""
    images = InMemory(np.zeros((6, 1, 8, 8), dtype=np.uint8), 8)
    device = torch.device("meta")
    images._there[device] = images.pixels  # too many for it

    batches = list(images.plain(torch.arange(6), 4, 8, device))

    assert [batch.device for batch in batches] == [device] * 2
    assert [len(batch) for batch in batches] == [4, 2]
