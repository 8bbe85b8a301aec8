"""A torch device -> its name in records and tables, its identity on this machine, and the precisions that it has."""

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Literal

import torch

NATIVE_BFLOAT16 = 8  # compute capability (Ampere) from which matrix products are in bfloat16; older cards emulate them
NATIVE_FLOAT16 = 7  # (Volta) from which they are in float16
Precision = Literal["float32", "bfloat16", "float16"]
DTYPES: dict[Precision, torch.dtype] = {
    "float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}  # fmt: skip
DRIVER = Path("/sys/module/nvidia/version")


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


def chosen_precision(asked: Literal["auto"] | Precision, device: torch.device) -> Precision:
    """What ``auto`` is on a device: bfloat16 on a GPU that has it natively, float16 on one that has only that, else
    float32."""
    if asked != "auto":
        return asked
    if device.type != "cuda":
        return "float32"
    capability = torch.cuda.get_device_capability(device)[0]
    return "bfloat16" if capability >= NATIVE_BFLOAT16 else "float16" if capability >= NATIVE_FLOAT16 else "float32"


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[Any]:
    """Within it networks compute in this precision, as in training: weights stay float32."""
    return torch.autocast(device.type, DTYPES[precision]) if precision != "float32" else nullcontext()


def exact_float32(device: torch.device) -> None:
    """float32 is float32 on a GPU: by default torch rounds it to TF32 in convolutions alone, which favours these."""
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False


def software(device: torch.device) -> dict[str, Any]:
    """On a GPU what its speed depends on besides the network: TF32, and the versions of what runs it."""
    if device.type != "cuda":
        return {}
    return {
        "tf32": {"matmul": torch.backends.cuda.matmul.allow_tf32, "convolution": torch.backends.cudnn.allow_tf32},
        "torch": torch.__version__, "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
        "driver": DRIVER.read_text(encoding="ascii").strip() if DRIVER.is_file() else None,
    }  # fmt: skip
