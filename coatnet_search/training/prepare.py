"""Makes a model ready for a recipe: device, memory format, stochastic depth; groups its parameters by weight decay."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from timm.optim import param_groups_weight_decay
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from coatnet_search.core.errors import InputError
from coatnet_search.training.compilation import GraphedSteps, check_compiler, compiled_by_block
from coatnet_search.training.device import exact_float32
from coatnet_search.training.heap import keep_memory
from coatnet_search.training.process_group import ProcessGroup
from coatnet_search.training.recipe import Recipe

Forward = Callable[[Tensor], Tensor]


def prepared(model: nn.Module, recipe: Recipe, device: torch.device) -> nn.Module:
    """The model on its device with the recipe's settings. Raises InputError where it cannot have one of them."""
    keep_memory(device)
    exact_float32(device)
    model.to(device)
    if recipe.channels_last:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    set_drop_path = getattr(model, "set_drop_path", None)
    if callable(set_drop_path):
        set_drop_path(recipe.drop_path)
    elif recipe.drop_path:
        raise InputError("recipe.drop_path: this model has no set_drop_path(rate); set recipe.drop_path=0")
    set_checkpointing = getattr(model, "set_grad_checkpointing", None)
    if callable(set_checkpointing):
        set_checkpointing(recipe.grad_checkpointing)
    elif recipe.grad_checkpointing:
        raise InputError("recipe.grad_checkpointing: this model has no set_grad_checkpointing(enable)")
    for module in _running(model):
        if isinstance(module, _BatchNorm):
            module.momentum = recipe.bn_momentum
    return model


def _running(model: nn.Module) -> Iterator[nn.Module]:
    """All modules, and those that a supernet runs without owning them."""
    for module in model.modules():
        yield module
        more = getattr(module, "running_modules", None)
        yield from more() if callable(more) else ()


def called(model: nn.Module, recipe: Recipe, device: torch.device, group: ProcessGroup) -> nn.Module:
    """What a training step calls: the model, compiled and shared among workers as asked, with the same parameters.

    Raises SetupError where there is no compiler, and InputError for graphs that several workers would share.
    """
    if recipe.compile:
        check_compiler(device, recipe.compile)
        model = compiled_by_block(model)
    if recipe.compile == "graphs":
        if group.size > 1:
            raise InputError(f"recipe.compile: graphs is for one worker, and {group.size} train; write default")
        return GraphedSteps(model)
    return group.wrap(model, device)


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Parameter groups: no decay for one-dimensional ones, biases, bias tables and what the model itself exempts."""
    exempt = getattr(model, "no_weight_decay", None)
    names = {"*relative_bias*", *(exempt() if callable(exempt) else ())}
    groups: list[dict[str, Any]] = param_groups_weight_decay(model, weight_decay, no_weight_decay_list=names)
    return groups


def in_memory_format(optimizer: torch.optim.Optimizer) -> None:
    """Moments get their parameters' memory format back: files are contiguous, channels-last weights are not."""
    for parameter, state in optimizer.state.items():
        for key, value in state.items():
            if value.shape == parameter.shape:
                state[key] = torch.empty_like(parameter).copy_(value)
