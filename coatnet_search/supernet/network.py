"""Supernet: all networks of a space in one set of shared weights. B batch, C channels, S image size."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from coatnet_search.architecture.arch import Arch, Candidate
from coatnet_search.architecture.build import Init, initialise, mismatches, recomputed
from coatnet_search.core.errors import InputError
from coatnet_search.space.space import Space
from coatnet_search.supernet.blueprint import Blueprint, Place
from coatnet_search.supernet.memory import Memory
from coatnet_search.supernet.parts import Branch, Part
from coatnet_search.supernet.shared_weights import Shared, Step, largest_parts
from coatnet_search.supernet.slices import view

_REMEMBERED = 4096  # candidates whose steps are kept


class Network:
    """A candidate as the supernet runs it: its architecture, branches, and the steps with their names in ``arch``."""

    def __init__(self, arch: Arch, branches: tuple[Branch, ...], steps: Sequence[tuple[str, Place, Step]]) -> None:
        self.arch, self.branches, self.steps = arch, branches, steps


class Supernet(nn.Module):
    """``net(x, candidate)``: (B, C, S, S) -> (B, num_classes), the network of any candidate with shared weights.

    Each stage has one branch of weights for each block type, and each block of a branch tensors as large as the largest
    block that may stand there. A candidate's network uses slices: the first blocks of a stage, of each block the
    leading channels (and so, at one head size, the leading heads), of kernels and of tables of relative biases the
    centre. Options that are numbers (expand, kernel, se_ratio, stride) thus share weights. Values that are text or
    switches (norm, pool, activation, stride_at, relative) make another function of the same numbers and have branches
    of their own, as block types have. Image size and head size are one.

    The code that runs is that of ``blocks``: modules without weights, made once in the constructor, put slices on for a
    call. ``backward`` leaves complete gradients in ``.grad`` (hooks on parameters and wrappers that rely on them, such
    as DistributedDataParallel, do not see slices: reduce ``.grad`` after it). Weights follow from torch's random state,
    as in ``build``; under ``torch.device("meta")`` nothing is allocated.

    Raises InputError where the space has several image or head sizes, SetupError where the weights do not fit.
    """

    def __init__(self, space: Space, *, init: Init = "normal") -> None:
        super().__init__()
        self.space = space
        self.grad_checkpointing = False
        self._blueprint = Blueprint(space)
        self._blueprint.memory.check(space.name, torch.get_default_device())
        made = {place: [part.make() for part in self._largest(place)] for place in self._blueprint.parts}
        initialise(nn.ModuleList(module for modules in made.values() for module in modules), init)
        for place, modules in made.items():
            _install(self, place, Shared(self._blueprint.tensors[place], modules))
        self._steps = {(place, part): self._step(place, part)
                       for place, parts in self._blueprint.parts.items() for part in parts}  # fmt: skip
        self._networks: dict[tuple[Any, ...], Network] = {}
        self._move_skeletons()

    def _largest(self, place: Place) -> list[Part]:
        parts = self._blueprint.parts[place]
        return largest_parts(parts, [self._blueprint.skeletons[part] for part in parts])

    def _step(self, place: Place, part: Part) -> Step:
        shared = self.get_submodule(".".join(place))
        assert isinstance(shared, Shared)
        return Step(self._blueprint.skeletons[part], shared, self._blueprint.tensors[place])

    # --- running ------------------------------------------------------------------------------------------------------

    def forward(self, x: Tensor, candidate: Candidate, *, drop_path: float = 0.0) -> Tensor:
        """Class scores of the candidate's network; ``drop_path``: see ``CoAtNet.set_drop_path``.

        Raises InputError where the candidate is not one of the space, or the images are not of its size.
        """
        side = self.network(candidate).arch.image_size
        if x.shape[-2:] != (side, side):
            raise InputError(f"images of {x.shape[-2]}x{x.shape[-1]} pixels: this supernet's have {side}x{side}")
        (_, _, stem), *blocks, (_, _, head) = self.network(candidate).steps
        x = self._run(stem, x)
        for number, (_, _, block) in enumerate(blocks):
            rate = drop_path * number / max(1, len(blocks) - 1)
            x = self._run(block, x, rate, recompute=self.grad_checkpointing and torch.is_grad_enabled())
        return self._run(head, x)

    def _run(self, step: Step, x: Tensor, drop_path: float = 0.0, recompute: bool = False) -> Tensor:
        skeleton, tensors = step.skeleton, step.tensors()

        def with_tensors() -> Any:
            return skeleton.with_tensors(tensors, training=self.training, drop_path=drop_path)

        if recompute:
            return recomputed(skeleton.module, x, with_tensors)
        with with_tensors():
            y: Tensor = skeleton.module(x)
        return y

    def network(self, candidate: Candidate) -> Network:
        """What the candidate's network is made of. Raises InputError where it is not one of the space."""
        try:
            values = tuple([candidate[name] for name in self.space.choices])
            found = self._networks.get(values) if len(candidate) == len(values) else None
        except (KeyError, TypeError):
            found = None
        if found is None:
            found = self._make_network(candidate)
            if len(self._networks) >= _REMEMBERED:
                self._networks.clear()
            self._networks[tuple(candidate[name] for name in self.space.choices)] = found
        return found

    def _make_network(self, candidate: Candidate) -> Network:
        self.space.check(candidate)
        if reasons := self.space.problems(candidate):
            raise InputError(f"candidate: {reasons[0]}")
        arch, stages = self.space.decode(candidate), self.space.stages_of(candidate)
        steps = [(name, place, self._steps[place, part])
                 for name, place, part in self._blueprint.network(arch, stages)]  # fmt: skip
        return Network(arch, self._blueprint.branches_of(stages), steps)

    def running_modules(self) -> Iterator[nn.Module]:
        """The modules without weights that run, for settings such as the momentum of norms; ``modules`` has none of
        them."""
        for skeleton in self._blueprint.skeletons.values():
            yield from skeleton.module.modules()

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Keep the input of each block alone for the backward pass and compute the rest of it again."""
        self.grad_checkpointing = enable

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._move_skeletons()
        return self

    def _move_skeletons(self) -> None:
        device = next(self.parameters()).device
        for skeleton in self._blueprint.skeletons.values():
            skeleton.move(device)

    # --- taking out and putting in ------------------------------------------------------------------------------------

    @torch.no_grad()
    def extract(self, candidate: Candidate) -> tuple[Arch, dict[str, Tensor]]:
        """The candidate's network alone, as copies: ``build(*net.extract(candidate))`` is the same function."""
        network = self.network(candidate)
        tensors = {
            f"{prefix}.{name}": view(tensor, cut).detach().clone()
            for prefix, _, step in network.steps
            for name, tensor, cut in step.named_slices()
        }
        return network.arch, tensors

    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Takes over a supernet's ``state_dict``. Raises InputError that names what is missing, not known or of another
        shape; nothing is loaded then."""
        if wrong := mismatches(weights, self.state_dict()):
            raise InputError(f"weights of another supernet: {wrong}; nothing was loaded")
        self.load_state_dict(weights, assign=next(self.parameters()).is_meta)
        self._move_skeletons()

    # --- what belongs to what -----------------------------------------------------------------------------------------

    @property
    def memory(self) -> Memory:
        """How many bytes it takes; ``memory_needed(space)`` says so without a supernet."""
        return self._blueprint.memory

    @property
    def branches(self) -> tuple[Branch, ...]:
        """Every (stage, block type) branch, in the order of the network."""
        return self._blueprint.branches

    def branches_of(self, candidate: Candidate) -> tuple[Branch, ...]:
        """The branch that each stage of the candidate's network goes through."""
        return self.network(candidate).branches


def _install(root: nn.Module, place: Iterable[str], shared: Shared) -> None:
    """Puts a module at its path, with plain modules on the way."""
    *path, last = place
    for name in path:
        if name not in root._modules:
            root.add_module(name, nn.Module())
        root = root.get_submodule(name)
    root.add_module(last, shared)
