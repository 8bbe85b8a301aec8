"""Images a second of a network in inference, at one batch size, in float32."""

import torch
from torch import nn
from torch.utils.benchmark import Timer

from coatnet_search.arch import Arch

METRICS = ("throughput_images_per_s",)
BATCH_SIZE = {"cpu": 32, "cuda": 256}
MIN_SECONDS = 0.4  # of repeats, after one warm-up run


def measure(model: nn.Module, arch: Arch, device: torch.device) -> dict[str, float]:
    """``throughput_images_per_s`` (median of the repeats) and its ``_spread`` (interquartile range), channels last."""
    batch = BATCH_SIZE.get(device.type, BATCH_SIZE["cpu"])
    images = torch.zeros(batch, arch.in_channels, arch.image_size, arch.image_size, device=device)
    images = images.contiguous(memory_format=torch.channels_last)
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            timer = Timer("model(images)", globals={"model": model, "images": images},
                          num_threads=torch.get_num_threads())  # fmt: skip
            timer.timeit(1)
            seconds = timer.blocked_autorange(min_run_time=MIN_SECONDS).times
    finally:
        model.train(was_training)
    rates = batch / torch.tensor(sorted(seconds), dtype=torch.float64)
    low, middle, high = torch.quantile(rates, torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)).tolist()
    return {"throughput_images_per_s": middle, "throughput_images_per_s_spread": high - low}
