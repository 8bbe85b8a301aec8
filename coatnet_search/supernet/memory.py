"""Counts how much memory a supernet takes, before any is allocated."""

from dataclasses import dataclass
from pathlib import Path

import torch

from coatnet_search.core.errors import SetupError

_CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Memory:
    """Bytes of the shared parameters and of the norms' statistics; activations come on top, as in any network."""

    parameters: int
    buffers: int

    @property
    def weights(self) -> int:
        return self.parameters + self.buffers

    def training(self, optimizer_states: int = 2) -> int:
        """With gradients, and ``optimizer_states`` numbers for each parameter (AdamW: 2)."""
        return self.weights + (1 + optimizer_states) * self.parameters

    def check(self, space_name: str, device: torch.device, *, training: bool = False) -> None:
        """Raises SetupError where the device does not have it free."""
        needed, free = self.training() if training else self.weights, free_bytes(device)
        if free is not None and needed > free:
            what = "its weights, gradients and moments" if training else "its weights"
            raise SetupError(
                f"the supernet of space {space_name} needs {_gib(needed)} for {what}, {_gib(free)} are free on "
                f"{device}; give its stages fewer or smaller widths, depths and block types, or take a larger device"
            )


def _gib(count: int) -> str:
    return f"{count / 2**30:.2f} GiB"


def free_bytes(device: torch.device) -> int | None:
    """Free memory of a device; None where the system does not say, and for the meta device, which takes none."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return host_bytes() if device.type == "cpu" else None


def host_bytes() -> int | None:
    """Free memory of this machine, within the limit of a container."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    try:
        limit, used, parts = ((_CGROUP / name).read_text() for name in ("memory.max", "memory.current", "memory.stat"))
    except OSError:
        return free  # no container
    if limit.strip() == "max":
        return free
    kinds = {name: int(count) for name, count in (line.split() for line in parts.splitlines())}
    given_up = kinds["inactive_file"] + kinds["active_file"]  # files that were read, kept while there is room
    return min(free, int(limit) - int(used) + given_up)
