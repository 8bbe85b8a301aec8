"""The rank and world size of a training process, and the few collective operations that its loop needs.

The workers' process group is made by whoever starts them; here are the few things that a loop asks of it.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, distributed, nn


@dataclass(frozen=True)
class ProcessGroup:
    """Worker ``rank`` of ``size``."""

    rank: int = 0
    size: int = 1

    @property
    def part(self) -> tuple[int, int]:
        return self.rank, self.size

    @property
    def first(self) -> bool:
        """Whether this is the worker that writes files."""
        return self.rank == 0

    def wrap(self, model: nn.Module, device: torch.device) -> nn.Module:
        """The model as it is called in training: gradients are the mean over the workers'. BatchNorm's statistics are
        those of a worker's own images; the first worker's running ones count, and are sent to all in each step. Buffers
        of whole numbers (places in attention's tables, counts of steps) are alike in all and not sent."""
        if self.size == 1:
            return model
        fixed = [name for name, buffer in model.named_buffers() if not buffer.is_floating_point()]
        wrapper = nn.parallel.DistributedDataParallel
        wrapper._set_params_and_buffers_to_ignore_for_model(model, fixed)  # type: ignore[no-untyped-call]
        return wrapper(model, device_ids=[device] if device.type == "cuda" else None)

    def mean(self, values: Tensor) -> Tensor:
        """The workers' mean of a tensor; waits for all of them."""
        return self.sum(values) / self.size if self.size > 1 else values

    def sum(self, values: Tensor) -> Tensor:
        """The workers' sum of a tensor; waits for all of them."""
        if self.size > 1:
            values = values.clone()
            distributed.all_reduce(values)
        return values

    def agrees(self, number: int, device: torch.device) -> bool:
        """Whether all workers have the same whole number; waits for all of them."""
        other = self.sum(torch.tensor([number, number**2], dtype=torch.float64, device=device))
        return self.size == 1 or (other / self.size).tolist() == [number, number**2]

    def wait(self) -> None:
        """Until all workers are here."""
        if self.size > 1:
            distributed.barrier()


SINGLE_PROCESS = ProcessGroup()
