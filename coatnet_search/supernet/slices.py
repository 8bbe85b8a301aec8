"""Which part of a shared tensor a network uses, and how its gradient gets there without a full-size detour.

Autograd's own view adds a gradient of the shared tensor's full size, nearly all zeros, for every use of a slice. Here
the gradient of a slice is added straight to the same slice of ``.grad``, which is complete after ``backward``.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

Cut = tuple[tuple[int, int, int], ...]  # (dimension, start, length) of each that is not taken whole


def cut_of(whole: Sequence[int], wanted: Sequence[int], centred_from: int | None) -> Cut:
    """The slice of shape ``wanted``: leading entries, and the centre of the dimensions from ``centred_from`` on."""
    cut = []
    for dimension, (full, length) in enumerate(zip(whole, wanted, strict=True)):
        if length != full:
            centred = centred_from is not None and dimension >= centred_from
            cut.append((dimension, (full - length) // 2 if centred else 0, length))
    return tuple(cut)


def view(tensor: Tensor, cut: Cut) -> Tensor:
    for dimension, start, length in cut:
        tensor = tensor.narrow(dimension, start, length)
    return tensor


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
        nodes = (node for node, _ in ctx.next_functions)
        return None, *(
            _deliver(parameter, cut, grad, node)
            for parameter, cut, grad, node in zip(ctx.parameters, ctx.cuts, grads, nodes, strict=True)
        )


def _deliver(parameter: Tensor, cut: Cut, grad: Tensor | None, node: Any) -> Tensor | None:
    """Adds to the slice of ``.grad``; or the full-size gradient, for those who ask for it as a value or a graph."""
    if grad is None or node is None:
        return None
    if torch.is_grad_enabled() or _is_asked_for(node):
        whole = torch.zeros_like(parameter)
        view(whole, cut).copy_(grad)
        return whole
    if torch._C._will_engine_execute_node(node):  # else ``backward(inputs=...)`` names others
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        view(parameter.grad, cut).add_(grad)
    return None


def _is_asked_for(node: Any) -> bool:
    """Whether ``torch.autograd.grad`` runs and this leaf is among its inputs, which the engine says by an error."""
    try:
        torch._C._will_engine_execute_node(node)
    except RuntimeError:
        return True
    return False
