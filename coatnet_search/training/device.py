"""A torch device -> its name in records and tables, and its identity on this machine."""

import torch


def device_id(device: torch.device) -> str:
    """One name per device on this machine: ``cpu``, or the GPU's UUID."""
    if device.type != "cuda":
        return "cpu"
    return str(torch.cuda.get_device_properties(device).uuid)


def describe(device: torch.device) -> str:
    """The device in words, as records and tables name it: ``cpu (2 threads)``, ``NVIDIA H200``."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"cpu ({torch.get_num_threads()} thread{'s' if torch.get_num_threads() > 1 else ''})"
