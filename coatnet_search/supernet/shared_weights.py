"""The shared tensors of one position of the supernet: each as large as the largest part there needs."""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from coatnet_search.core.errors import InputError
from coatnet_search.supernet.parts import Part
from coatnet_search.supernet.skeleton import Needed, Skeleton
from coatnet_search.supernet.slices import Cut, cut_of, sliced, view


def largest_tensors(label: str, skeletons: Sequence[Skeleton]) -> dict[str, Needed]:
    """By name, in each dimension the largest size. Raises InputError where equal names are different things."""
    found: dict[str, Needed] = {}
    for skeleton in skeletons:
        for needed in skeleton.tensors:
            before = found.setdefault(needed.name, needed)
            if before[2:] != needed[2:] or len(before.shape) != len(needed.shape):
                raise InputError(
                    f"{label}: {needed.name} is {before.shape} in one network and {needed.shape} in another, which "
                    "cannot share weights; give the option that decides it one value"
                )
            found[needed.name] = needed._replace(shape=tuple(map(max, before.shape, needed.shape)))
    return found


def num_bytes(tensors: Sequence[Needed]) -> int:
    return sum(math.prod(needed.shape) * needed.dtype.itemsize for needed in tensors)


def largest_parts(parts: Sequence[Part], skeletons: Sequence[Skeleton]) -> list[Part]:
    """The few largest of the parts, in which every tensor of every other part fits."""
    order = sorted(range(len(parts)), key=lambda place: -num_bytes(skeletons[place].tensors))
    kept: list[Part] = []
    shapes: dict[str, list[tuple[int, ...]]] = {}
    for place in order:
        needed = skeletons[place].tensors
        if not all(any(_fits(one.shape, other) for other in shapes.get(one.name, ())) for one in needed):
            kept.append(parts[place])
            for one in needed:
                shapes.setdefault(one.name, []).append(one.shape)
    return kept


def _fits(small: tuple[int, ...], large: tuple[int, ...]) -> bool:
    return all(a <= b for a, b in zip(small, large, strict=True))


class Shared(nn.Module):
    """Holds the tensors under the names that they have in the parts. ``made``: the largest parts, largest first,
    whose values it takes over; where one holds a tensor in full, that tensor itself."""

    def __init__(self, tensors: dict[str, Needed], made: Sequence[nn.Module]) -> None:
        super().__init__()
        states = [{**dict(module.named_parameters()), **dict(module.named_buffers())} for module in made]
        for needed in tensors.values():
            values = [state[needed.name].detach() for state in states if needed.name in state]
            *path, key = needed.name.split(".")
            home: nn.Module = self
            for name in path:
                if not hasattr(home, name):
                    home.add_module(name, nn.Module())
                home = getattr(home, name)
            value = _joined(needed, values)
            if needed.is_parameter:
                home.register_parameter(key, nn.Parameter(value))
            else:
                home.register_buffer(key, value)

    def holder(self, needed: Needed) -> tuple[dict[str, Tensor], str]:
        """The dict that holds a tensor, and its key there: the tensor itself may be replaced by ``to`` or a load."""
        path, _, key = needed.name.rpartition(".")
        home = self.get_submodule(path)
        holder: dict[str, Tensor] = home._parameters if needed.is_parameter else home._buffers  # type: ignore[assignment]
        return holder, key


def _joined(needed: Needed, values: Sequence[Tensor]) -> Tensor:
    if values[0].shape == needed.shape:
        return values[0]
    whole = torch.zeros(needed.shape, dtype=needed.dtype, device=values[0].device)
    for value in reversed(values):
        view(whole, cut_of(needed.shape, value.shape, needed.centred)).copy_(value)
    return whole


class Step:
    """One part of a network at its place: a skeleton, and the slices that it puts on."""

    def __init__(self, skeleton: Skeleton, shared: Shared, whole: dict[str, Needed]) -> None:
        self.skeleton = skeleton
        self._homes = [shared.holder(needed) for needed in skeleton.tensors]
        self.cuts = [cut_of(whole[one.name].shape, one.shape, one.centred) for one in skeleton.tensors]
        cut = [place for place, cut in enumerate(self.cuts) if cut.parts]
        self._parameters = [place for place in cut if skeleton.tensors[place].is_parameter]
        self._buffers = [place for place in cut if not skeleton.tensors[place].is_parameter]
        self._parameter_cuts: list[Cut] = [self.cuts[place] for place in self._parameters]

    def tensors(self) -> list[Tensor]:
        """What the skeleton puts on: whole tensors themselves, else slices (views)."""
        found = [holder[key] for holder, key in self._homes]
        if self._parameters:
            slices = sliced([found[place] for place in self._parameters], self._parameter_cuts)
            for place, value in zip(self._parameters, slices, strict=True):
                found[place] = value
        for place in self._buffers:
            found[place] = view(found[place], self.cuts[place])
        return found

    def named_slices(self) -> Iterator[tuple[str, Tensor, Cut]]:
        """Name in the part, shared tensor, and which slice of it this step uses."""
        for needed, (holder, key), cut in zip(self.skeleton.tensors, self._homes, self.cuts, strict=True):
            yield needed.name, holder[key], cut
