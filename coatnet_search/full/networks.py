"""A name, file or RUN:ID -> the network that is trained in full: built, started from weights, saved.

Shapes: B images a batch, C channels, S side in pixels, K classes.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from timm.layers import DropPath
from torch import Tensor, nn

from coatnet_search.architecture.arch import Arch
from coatnet_search.architecture.build import CoAtNet, seeded_build
from coatnet_search.architecture.cost import Count, cost, count_module
from coatnet_search.architecture.family import DEPTHWISE, FAMILY, named_arch
from coatnet_search.architecture.peer_spec import PeerSpec
from coatnet_search.architecture.peers import TIMM, create, load_timm, make_peer, native_size, read_weights
from coatnet_search.architecture.tensor_files import read_file
from coatnet_search.architecture.timm_bridge import PAPER, from_timm
from coatnet_search.architecture.timm_names import check_name, create_by_name
from coatnet_search.architecture.trained_weights import Start, load_trained, without_prefixes
from coatnet_search.architecture.weights import save_weights
from coatnet_search.core.errors import InputError, SetupError
from coatnet_search.core.schema import read_document
from coatnet_search.core.whole_file import whole_file
from coatnet_search.record.fold import read_trials, read_values, record_path
from coatnet_search.study.load import study_of_values
from coatnet_search.study.lookup import load_arch
from coatnet_search.supernet.folder import load_supernets
from coatnet_search.training import checkpoint
from coatnet_search.training.recipe import Recipe

INHERITED = "inherited"  # as a source of weights
PRETRAINED = "pretrained"
_TIMM = "coatnet_search.timm"  # the key in a file's metadata
FAR = 2.0  # a network with this many times fewer or more parameters than the nearest of the family has no size of it


@dataclass(frozen=True, kw_only=True)
class Network:
    """``shape``: the architecture, or of a network of timm one without stages that has its image size, channels and
    classes. ``promise``: what a search measured of it (``metrics``, ``budget``, where), empty where none did."""

    name: str
    shape: Arch
    timm: str | None = None
    promise: Mapping[str, Any] = field(default_factory=dict)

    def at(self, image_size: int) -> "Network":
        return dataclasses.replace(self, shape=dataclasses.replace(self.shape, image_size=image_size))

    @functools.cached_property
    def count(self) -> Count:
        """Parameters, multiply-adds and activations. Raises InputError where it does not work at its image size."""
        if self.timm is None:
            if reasons := self.shape.problems():
                raise InputError(f"{self.name}: {reasons[0]}")
            found = cost(self.shape)
            return Count(found.params, found.macs, found.activations)
        try:
            return count_module(self._of_timm, self.shape.in_channels, self.shape.image_size)
        except (RuntimeError, AssertionError, ValueError) as error:
            side, reason = self.shape.image_size, str(error).splitlines()[0]
            raise InputError(f"{self.name}: does not work at {side} pixels: {reason}") from None

    def build(self, seed: int, recipe: Recipe | None = None) -> nn.Module:
        """Freshly initialised by ``seed`` alone, (B, C, S, S) -> (B, K)."""
        if self.timm is None:
            return seeded_build(self.shape, seed, init=recipe.init if recipe else "normal")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self._of_timm()

    def _of_timm(self, **options: Any) -> nn.Module:
        assert self.timm is not None
        model = create(self.timm, self.shape.image_size, num_classes=self.shape.num_classes,
                       in_chans=self.shape.in_channels, **options)  # fmt: skip
        places = [module for module in model.modules() if isinstance(module, DropPath)]
        if not places:  # they are made only where there is something to drop
            model = create(self.timm, self.shape.image_size, num_classes=self.shape.num_classes,
                           in_chans=self.shape.in_channels, **_droppable(self.timm), **options)  # fmt: skip
            places = [module for module in model.modules() if isinstance(module, DropPath)]

        def set_drop_path(rate: float) -> None:
            if rate and not places:
                raise InputError(f"recipe.drop_path: {self.name} has no stochastic depth; set recipe.drop_path=0")
            for place, module in enumerate(places):
                module.drop_prob = rate * place / max(1, len(places) - 1)

        model.set_drop_path = set_drop_path  # type: ignore[assignment]
        set_drop_path(0.0)
        return model

    def started(self, seed: int, recipe: Recipe, weights: str | None) -> tuple[nn.Module, Start | None]:
        """A network with the weights of a source (see ``read_tensors``), and what was loaded.

        Raises InputError for weights of another network, SetupError for weights that are not here.
        """
        model = self.build(seed, recipe)
        if weights is None:
            return model, None
        tensors = read_tensors(weights, self)
        try:
            if self.timm is not None:
                return model, load_timm(self.timm, model, self.shape, tensors)
            return model, load_trained(model, tensors)
        except InputError as error:
            raise InputError(f"--weights {weights}: {error}") from None

    def save(self, model: nn.Module, path: Path) -> None:
        """Writes the model's tensors with what it is; the old file stays until the new is whole."""
        if self.timm is None:
            assert isinstance(model, CoAtNet)
            save_weights(model, path)
            return
        tensors = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
        with whole_file(path) as half:
            save_file(tensors, half, metadata={_TIMM: self.timm, "format": "pt"})

    def to_dict(self) -> dict[str, Any]:
        return {"name": self.name, "shape": self.shape.to_dict(), "timm": self.timm, "promise": dict(self.promise)}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> "Network":
        return cls(**{**value, "shape": Arch.from_dict(value["shape"])})


def _droppable(name: str) -> dict[str, Any]:
    """The option that makes timm build a network with stochastic depth, where it has that option."""
    try:
        with torch.device("meta"):
            create_by_name(name, drop_path_rate=0.5)
    except TypeError:
        return {}
    return {"drop_path_rate": 0.5}


# --- by name ---------------------------------------------------------------------------------------------------------


def find_network(name: str, *, image_size: int | None, own_size: int, in_channels: int, num_classes: int) -> Network:
    """What ``name`` means for given data: an architecture (see ``load_arch``) or ``timm:NAME``.

    ``image_size`` None is the file's or trial's own; for layouts ``own_size``, for ``timm:NAME`` its native one, and
    for a file of ``choose`` that holds a network of timm ``own_size``, as in the search. The published CoAtNets of timm
    become architectures. Raises InputError that says what was expected.
    """
    ends: dict[str, Any] = {"in_channels": in_channels, "num_classes": num_classes}
    if peer := _peer_of_file(name):
        found = find_network(f"{TIMM}{peer}", image_size=image_size or own_size, own_size=own_size, **ends)
        return dataclasses.replace(found, promise=_promise(name))
    if name.startswith(TIMM):
        known = name.removeprefix(TIMM)
        check_name(known)
        side = image_size or native_size(known)
        if known not in PAPER:
            return Network(name=name, timm=known, shape=Arch(image_size=side, **ends))
        with torch.device("meta"):
            arch, _ = from_timm(known)
        return Network(name=name, shape=dataclasses.replace(arch, image_size=side, **ends))
    from_file = Path(name).suffix in (".yaml", ".yml") or ":" in name
    arch = load_arch(name, image_size=image_size or (None if from_file else own_size), **ends)
    return Network(name=name, shape=arch, promise=_promise(name))


def _peer_of_file(name: str) -> str | None:
    """timm's name in a file of ``choose`` that holds no architecture of ours."""
    if Path(name).suffix not in (".yaml", ".yml"):
        return None
    found = read_document(Path(name)).value
    return str(found["timm"]) if isinstance(found, dict) and found.get("timm") else None


def _promise(name: str) -> dict[str, Any]:
    """What the search that found an architecture says of it."""
    if Path(name).suffix in (".yaml", ".yml"):
        found = read_document(Path(name)).value
        wanted = ("study", "trial", "metrics", "budget", "rank", "objective")
        told = {key: found[key] for key in wanted if "metrics" in found and found.get(key) is not None}
        return {**told, **_images(found["arch"])} if told and isinstance(found.get("arch"), dict) else told
    run, colon, wanted_id = name.rpartition(":")
    if not colon or not record_path(Path(run)).is_file():
        return {}
    for trial in read_trials(Path(run)):
        ids = (str(trial.number), trial.arch.id if trial.arch else "")
        if trial.state == "done" and (wanted_id in ids or (len(wanted_id) > 2 and ids[1].startswith(wanted_id))):
            budget = dataclasses.asdict(trial.budget) if trial.budget else {}
            seen = _images(trial.arch.to_dict()) if trial.arch else {}
            return {"study": Path(run).name, "trial": trial.number, "metrics": dict(trial.metrics), "budget": budget,
                    **seen}  # fmt: skip
    return {}


def _images(arch: Mapping[str, Any]) -> dict[str, Any]:
    """What the images of a search were like: full training on others does not tell whether its choice was right."""
    return {"images": {name: arch.get(name) for name in ("in_channels", "num_classes")}}


def family_size(network: Network) -> str | None:
    """The member of the family whose recipes are meant: by its name, else the nearest in parameters within a factor of
    two; None where the network is of no such size."""
    plain = network.name.strip().lower().replace("_", "-").removeprefix(TIMM)
    named = plain.removesuffix("-224").removesuffix(DEPTHWISE)
    if named in FAMILY:
        return named.removesuffix("-printed")
    params = network.count.params
    ends = {"num_classes": network.shape.num_classes, "in_channels": network.shape.in_channels}
    far = {size: abs(math.log(params / cost(named_arch(size, **ends)).params))
           for size in FAMILY if not size.endswith("printed")}  # fmt: skip
    nearest = min(far, key=far.__getitem__)
    return nearest if far[nearest] <= math.log(FAR) else None


# --- weights ---------------------------------------------------------------------------------------------------------


def read_tensors(source: str, network: Network) -> Mapping[str, Tensor]:
    """The state dict of a file of safetensors, of a folder that holds ``model.safetensors`` (of full training, or
    exported), or of an interrupted trial, ``RUN:ID``; ``inherited``: what the supernet of the network's own RUN has for
    it; ``pretrained``: timm's own for one of its networks, from this machine's cache. Raises InputError or SetupError
    that says what was expected."""
    if source == INHERITED:
        return _inherited(network)
    if source == PRETRAINED:
        return read_weights(_cached(network))
    path = Path(source)
    if path.is_dir():
        path = path / "model.safetensors"
    if path.suffix != ".safetensors" and not path.exists():
        return _of_trial(source)
    if not path.is_file():
        raise SetupError(_nowhere(str(path)))
    tensors, metadata = read_file(path)
    if metadata.get(_TIMM, network.timm) != network.timm:
        raise InputError(f"--weights: {path} holds timm's {metadata[_TIMM]}, not {network.name}")
    if network.timm is None and network.name.startswith(TIMM) and any(".blocks." in name for name in tensors):
        return _converted(network, tensors)
    return tensors


def _nowhere(source: str) -> str:
    return (f"--weights: {source} is not there; give a .safetensors file, a folder with one, RUN:ID, or pretrained "
            "(timm's own, where they are on this machine)")  # fmt: skip


def _cached(network: Network) -> Path:
    name = network.timm or network.name.removeprefix(TIMM)
    if network.timm is None and not network.name.startswith(TIMM):
        raise InputError(f"--weights {PRETRAINED}: {network.name} is no network of timm; give a file")
    spec = PeerSpec(timm=name, evaluate="fine-tuned")
    found = make_peer(spec, network.shape.image_size, network.shape.in_channels, network.shape.num_classes).weights
    assert found is not None
    return found


def _inherited(network: Network) -> Mapping[str, Tensor]:
    """Out of the supernet of the search that found the network."""
    path = Path(network.name)
    of_file = path.suffix in (".yaml", ".yml")  # RUN/chosen/1-C-C-T-T-....yaml
    run = path.parent.parent if of_file else Path(network.name.rpartition(":")[0])
    number = network.promise.get("trial")
    if number is None or not record_path(run).is_file():
        raise InputError(f"--weights inherited: {network.name} is no finished trial of a search; give RUN:ID, or a "
                         "file of RUN/chosen")  # fmt: skip
    study = study_of_values(read_values(run / "study.yaml"))
    if study.file.supernet is None:
        raise InputError(f"--weights inherited: {run} has evaluate: {study.file.evaluate}, and no supernet")
    trial = next(trial for trial in read_trials(run) if trial.number == number)
    nets = load_supernets(study.supernet_place(run), study.space)
    return nets.extract(trial.candidate)[1]


def _converted(network: Network, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Weights in timm's own names and shapes of one of its published CoAtNets, under ours; of the file's own image
    size, channels and classes, so that what does not fit is seen where ours are loaded."""
    name, plain = network.name.removeprefix(TIMM), without_prefixes(tensors, ())
    head, first, table = (plain.get(key) for key in (*_TIMM_ENDS, _TIMM_TABLE))
    shape = dataclasses.replace(
        network.shape,
        num_classes=network.shape.num_classes if head is None else head.shape[0],
        in_channels=network.shape.in_channels if first is None else first.shape[1],
        image_size=network.shape.image_size if table is None else 8 * (math.isqrt(table.shape[0]) + 1),
    )
    model = Network(name=network.name, timm=name, shape=shape).build(0)
    try:
        load_timm(name, model, shape, plain)
    except InputError as error:
        raise InputError(f"--weights for {network.name}: {error}") from None
    return {key: value for key, value in from_timm(model)[1].items() if head is not None or "head.fc." not in key}


_TIMM_ENDS = ("head.fc.weight", "stem.conv1.weight")
_TIMM_TABLE = "stages.2.blocks.0.attn.rel_pos.relative_position_bias_table"  # (2 S/16 - 1)^2 offsets


def _of_trial(source: str) -> Mapping[str, Tensor]:
    run, colon, wanted = source.rpartition(":")
    if not colon or not record_path(Path(run)).is_file():
        raise SetupError(_nowhere(source))
    trials = [one for one in read_trials(Path(run)) if wanted in (str(one.number), one.arch.id if one.arch else "")]
    if not trials:
        raise InputError(f"--weights: {run} has no trial {wanted!r}")
    folder = Path(run) / "checkpoints" / str(trials[0].key)
    found = checkpoint.load(folder, {})
    if found is None:
        raise SetupError(f"--weights: the weights of trial {wanted} of {run} were not kept (a finished trial's are "
                         "removed); train without --weights")  # fmt: skip
    prefix = "ema." if any(name.startswith("ema.") for name in found.tensors) else "model."
    return {name.removeprefix(prefix): value for name, value in found.tensors.items() if name.startswith(prefix)}
