"""Puts trained weights into a network: all of its tensors, or an error that names those that do not fit.

Not a misfit, and said: a head for other classes, tables of other sizes, images of other channels. Everything that
starts a network from a file goes through ``load_trained``.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from timm.models import adapt_input_conv
from torch import Tensor, nn

from coatnet_search.architecture.build import fit_tables, mismatches
from coatnet_search.core.errors import InputError

PREFIXES = ("module.", "model.")  # what wrappers of torch and trainers of others put before each name
COMPILED = "_orig_mod."  # what torch.compile puts before the names of the module that it was given, anywhere


@dataclass(frozen=True, kw_only=True)
class Start:
    """What a network began with: ``loaded`` of its ``tensors`` came from the file; ``changes``: what had to be done to
    them, as sentences."""

    loaded: int
    tensors: int
    changes: tuple[str, ...] = ()

    @property
    def sentences(self) -> list[str]:
        return [f"{self.loaded} of the network's {self.tensors} tensors were loaded", *self.changes]


def without_prefixes(weights: Mapping[str, Tensor], own: Iterable[str]) -> dict[str, Tensor]:
    """The weights under the names that the network (``own``: its tensors' names) has for them, where a wrapper has put
    a word before all of them."""
    found, names = {name.replace(COMPILED, ""): value for name, value in weights.items()}, list(own)
    while True:
        before = next((prefix for prefix in PREFIXES if found and all(name.startswith(prefix) for name in found)), None)
        if before is None or any(name.startswith(before) for name in names):
            return found
        found = {name.removeprefix(before): value for name, value in found.items()}


def load_trained(model: nn.Module, weights: Mapping[str, Tensor], given: Mapping[str, Tensor] | None = None) -> Start:
    """Loads weights into a freshly built network, whose ``pretrained_cfg`` names its head and first convolution.

    ``given``: the file's own tensors, where ``weights`` were made of them. Raises InputError that names what does not
    fit; then nothing was loaded.
    """
    own, cfg = model.state_dict(), getattr(model, "pretrained_cfg", None) or {}
    weights = without_prefixes(weights, own)
    fitted = fit_tables(weights, own)
    tables = _resized(fitted, weights if given is None else given)
    changes = [
        *([_tables(tables)] if tables else []),
        *_input_changed(fitted, own, cfg),
        *(heads := _head_renewed(fitted, own, cfg)),
    ]
    if wrong := mismatches(fitted, own):
        fits = sum(name in weights and weights[name].shape == own[name].shape for name in own)
        raise InputError(f"weights of another network, {fits} of its {len(own)} tensors fit: {wrong}; nothing was "
                         "loaded")  # fmt: skip
    model.load_state_dict(fitted)
    new = sum(fitted[name] is own[name] for name in own) if heads else 0
    return Start(loaded=len(own) - new, tensors=len(own), changes=tuple(changes))


def named(cfg: Mapping[str, Any], key: str) -> tuple[str, ...]:
    """The modules that timm's description of a network names under ``key``; of some networks several."""
    found = cfg.get(key) or ()
    return (found,) if isinstance(found, str) else tuple(found)


def _resized(fitted: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> list[tuple[str, Tensor, Tensor]]:
    return [(name, given[name], value) for name, value in fitted.items()
            if name in given and given[name].shape != value.shape and given[name].ndim == value.ndim]  # fmt: skip


def _tables(resized: list[tuple[str, Tensor, Tensor]]) -> str:
    name, before, now = resized[0]
    return f"{len(resized)} tables were resized, the first, {name}, from {tuple(before.shape)} to {tuple(now.shape)}"


def _input_changed(fitted: dict[str, Tensor], own: Mapping[str, Tensor], cfg: Mapping[str, Any]) -> list[str]:
    """Fits the first convolution to images of other channels: summed for one, else repeated and scaled."""
    said = []
    for module in named(cfg, "first_conv"):
        name = f"{module}.weight"
        if name not in fitted or name not in own or fitted[name].ndim != 4 or own[name].ndim != 4:
            continue
        before, now = fitted[name].shape[1], own[name].shape[1]
        if before != now and fitted[name].shape[:1] == own[name].shape[:1]:
            fitted[name] = adapt_input_conv(now, fitted[name], base_chans=before)
            said.append(f"{name} was fitted from {before} to {now} channels")
    return said


def _head_renewed(fitted: dict[str, Tensor], own: Mapping[str, Tensor], cfg: Mapping[str, Any]) -> list[str]:
    """Puts the fresh head in place of one that tells other classes apart, or where the file has none."""
    said: list[str] = []
    for module in named(cfg, "classifier"):
        name = f"{module}.weight"
        if name not in own:
            continue
        before = fitted[name].shape if name in fitted else None
        if before is None or (before != own[name].shape and before[1:] == own[name].shape[1:]):
            said.append("the weights have no head: it is new" if before is None else f"the weights tell {before[0]} "
                        f"classes apart, the data has {own[name].shape[0]}: the head is new")  # fmt: skip
            fitted |= {key: value for key, value in own.items() if key.startswith(f"{module}.")}
    return list(dict.fromkeys(said))
