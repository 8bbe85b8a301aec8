"""Cuts a network's tensors out of shared ones, and adds their gradients back without full-size copies.

Autograd's own view adds a gradient of the shared tensor's full size, nearly all zeros, for every use of a slice. Here
the gradient of a slice is added straight to the same slice of ``.grad``, which is complete after ``backward``.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Cut(NamedTuple):
    """A slice: its shape, and (dimension, start, length) of each dimension that is not taken whole."""

    shape: tuple[int, ...]
    parts: tuple[tuple[int, int, int], ...]


def cut_of(whole: Sequence[int], wanted: Sequence[int], centred_from: int | None) -> Cut:
    """The slice of shape ``wanted``: leading entries, and the centre of the dimensions from ``centred_from`` on."""
    parts = []
    for dimension, (full, length) in enumerate(zip(whole, wanted, strict=True)):
        if length != full:
            centred = centred_from is not None and dimension >= centred_from
            parts.append((dimension, (full - length) // 2 if centred else 0, length))
    return Cut(tuple(wanted), tuple(parts))


def view(tensor: Tensor, cut: Cut) -> Tensor:
    """The slice of a tensor, by one call to torch (a tenth of the time of a small block is spent on such calls); by
    autograd's own views where autograd is to follow."""
    if torch.is_grad_enabled():
        for dimension, start, length in cut.parts:
            tensor = tensor.narrow(dimension, start, length)
        return tensor
    strides, offset = tensor.stride(), tensor.storage_offset()
    for dimension, start, _ in cut.parts:
        offset += start * strides[dimension]
    return tensor.as_strided(cut.shape, strides, offset)


def sliced(parameters: Sequence[Tensor], cuts: Sequence[Cut]) -> tuple[Tensor, ...]:
    """The slices, views of the parameters; gradients of leaves arrive in the slices of their ``.grad``.

    A tensor that has a history of its own (one that ``torch.func.functional_call`` puts in) is sliced by autograd.
    """
    if not torch.is_grad_enabled() or not all(parameter.is_leaf for parameter in parameters):
        return tuple(view(parameter, cut) for parameter, cut in zip(parameters, cuts, strict=True))
    found: tuple[Tensor, ...] = _Sliced.apply(cuts, *parameters)  # type: ignore[no-untyped-call]
    return found


class _Sliced(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, cuts: Sequence[Cut], *parameters: Tensor) -> tuple[Tensor, ...]:
        ctx.cuts, ctx.parameters = cuts, parameters
        ctx.set_materialize_grads(False)
        return tuple(view(parameter, cut) for parameter, cut in zip(parameters, cuts, strict=True))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        returned: list[Tensor | None] = [None] * len(grads)
        slices, added = [], []
        for place, (grad, (node, _)) in enumerate(zip(grads, ctx.next_functions, strict=True)):
            if grad is None or node is None:
                continue
            parameter, cut = ctx.parameters[place], ctx.cuts[place]
            if torch.is_grad_enabled() or (executed := _is_executed(node)) is None:
                returned[place] = _whole(parameter, cut, grad)
            elif executed:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                slices.append(view(parameter.grad, cut))
                added.append(grad)
        if slices:
            torch._foreach_add_(slices, added)
        return None, *returned


def _whole(parameter: Tensor, cut: Cut, grad: Tensor) -> Tensor:
    """The gradient in full size, for those who ask for it as a value (``autograd.grad``) or with a graph."""
    whole = torch.zeros_like(parameter)
    view(whole, cut).copy_(grad)
    return whole


def _is_executed(node: Any) -> bool | None:
    """Whether this backward pass adds to the leaf's ``.grad``: not where ``backward(inputs=...)`` names others.

    None: ``autograd.grad`` runs and asks for this leaf, which the engine says by an error.
    """
    try:
        return bool(torch._C._will_engine_execute_node(node))
    except RuntimeError:
        return None
