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

import timm
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from timm.layers import DropPath
from torch import Tensor, nn

from coatnet_search.architecture.arch import Arch
from coatnet_search.architecture.build import CoAtNet, build, fit_tables, seeded_build
from coatnet_search.architecture.cost import Count, cost, count_module
from coatnet_search.architecture.family import DEPTHWISE, FAMILY, named_arch
from coatnet_search.architecture.peer_spec import PeerSpec
from coatnet_search.architecture.peers import TIMM, create, make_peer, native_size
from coatnet_search.architecture.timm_bridge import PAPER, from_timm
from coatnet_search.architecture.timm_names import check_name, create_by_name
from coatnet_search.architecture.weights import save_weights
from coatnet_search.core.errors import InputError, SetupError
from coatnet_search.core.schema import read_document
from coatnet_search.record.fold import read_trials, read_values, record_path
from coatnet_search.study.load import study_of_values
from coatnet_search.study.lookup import load_arch
from coatnet_search.supernet.folder import load_supernets
from coatnet_search.training import checkpoint
from coatnet_search.training.recipe import Recipe

INHERITED = "inherited"  # as a source of weights
HEAD = "head.fc."  # of our networks: the layer that goes where the number of classes changes
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

    def started(self, seed: int, recipe: Recipe, weights: str | None) -> tuple[nn.Module, list[str]]:
        """A network with the weights of a source (see ``read_tensors``), and what had to be changed, as sentences: bias
        tables of another image size are resized, another number of classes gets a new head.

        Raises InputError for weights of another network, SetupError for weights that are not here.
        """
        if weights is None:
            return self.build(seed, recipe), []
        if self.timm is not None:
            return self._started_timm(seed, weights)
        tensors = read_tensors(weights, self)
        fresh = self.build(seed, recipe)
        fitted, said = _fitted(tensors, fresh.state_dict(), self.shape.num_classes)
        try:
            return build(self.shape, fitted), said
        except InputError as error:
            raise InputError(f"--weights {weights}: {error}") from None

    def _started_timm(self, seed: int, weights: str) -> tuple[nn.Module, list[str]]:
        path = _timm_file(self, weights)
        overlay: dict[str, Any] = {"file": str(path)}
        classes = _classes_of(self.timm or "", path)
        if classes is not None:
            overlay["num_classes"] = classes
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            try:
                model = self._of_timm(pretrained=True, pretrained_cfg_overlay=overlay)
            except (RuntimeError, SafetensorError) as error:
                first = " ".join(str(error).splitlines()[:2])
                raise InputError(f"--weights {weights}: weights of another network: {first[:200]}") from None
        other = classes not in (None, self.shape.num_classes)
        return model, [_new_head(classes or 0, self.shape.num_classes)] if other else []

    def save(self, model: nn.Module, path: Path) -> None:
        """Writes the model's tensors with what it is; the old file stays until the new is whole."""
        if self.timm is None:
            assert isinstance(model, CoAtNet)
            save_weights(model, path)
            return
        half = path.with_name(f".{path.name}.half")
        tensors = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
        save_file(tensors, half, metadata={_TIMM: self.timm, "format": "pt"})
        half.replace(path)

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
    it. Raises InputError or SetupError that says what was expected."""
    if source == INHERITED:
        return _inherited(network)
    path = Path(source)
    if path.is_dir():
        path = path / "model.safetensors"
    if path.suffix != ".safetensors" and not path.exists():
        return _of_trial(source)
    if not path.is_file():
        raise SetupError(f"--weights: {path} is not there; give a .safetensors file, a folder with one, or RUN:ID")
    tensors, metadata = read_file(path)
    if _TIMM in metadata:
        raise InputError(f"--weights: {path} holds timm's {metadata[_TIMM]}, not {network.name}")
    if network.name.startswith(TIMM) and any(name.startswith("stages.0.blocks.") for name in tensors):
        return _converted(network, path)
    return tensors


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


def read_file(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file. Raises InputError where it is another kind of file, or damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: not a whole safetensors file: {error}") from None


def _converted(network: Network, path: Path) -> Mapping[str, Tensor]:
    """Weights in timm's own names and shapes of one of its published CoAtNets."""
    theirs = Network(name=network.name, shape=network.shape, timm=network.name.removeprefix(TIMM))
    classes = _classes_of(theirs.timm or "", path)
    shape = dataclasses.replace(network.shape, num_classes=classes or network.shape.num_classes)
    model, _ = dataclasses.replace(theirs, shape=shape)._started_timm(0, str(path))
    return from_timm(model)[1]


def _of_trial(source: str) -> Mapping[str, Tensor]:
    run, colon, wanted = source.rpartition(":")
    if not colon or not record_path(Path(run)).is_file():
        raise SetupError(f"--weights: {source} is not there; give a .safetensors file, a folder with one, or RUN:ID")
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


def _fitted(
    tensors: Mapping[str, Tensor], own: Mapping[str, Tensor], classes: int
) -> tuple[dict[str, Tensor], list[str]]:
    """The weights for a network whose fresh state dict is ``own``, and what was changed."""
    said = []
    fitted = fit_tables(tensors, own)
    resized = [name for name in fitted if fitted[name].shape != tensors[name].shape]
    if resized:
        sides = tensors[resized[0]].shape[-1], fitted[resized[0]].shape[-1]
        said.append(
            f"{len(resized)} relative-bias tables were resized, the first from {sides[0]} to {sides[1]} offsets"
        )
    head = f"{HEAD}weight"
    if head in fitted and head in own and fitted[head].shape[0] != classes and fitted[head].ndim == own[head].ndim:
        said.append(_new_head(fitted[head].shape[0], classes))
        fitted |= {name: value for name, value in own.items() if name.startswith(HEAD)}
    return fitted, said


def _new_head(before: int, now: int) -> str:
    return f"the weights tell {before} classes apart, the data has {now}: the head is new"


def _timm_file(network: Network, source: str) -> Path:
    path = Path(source)
    if path.is_dir():
        path = path / "model.safetensors"
    if source == "pretrained":
        assert network.timm is not None
        spec = PeerSpec(timm=network.timm, evaluate="fine-tuned")
        found = make_peer(spec, network.shape.image_size, network.shape.in_channels, network.shape.num_classes).weights
        assert found is not None
        return found
    if not path.is_file():
        raise SetupError(f"--weights: {path} is not there; give a .safetensors file, a folder with one, or pretrained "
                         "(timm's own, where they are on this machine)")  # fmt: skip
    return path


def _classes_of(name: str, path: Path) -> int | None:
    """The number of classes of a file of timm's weights; None where it has no classifier."""
    if path.suffix != ".safetensors":
        return None
    default = timm.get_pretrained_cfg(name)
    classifier = getattr(default, "classifier", None) if default else None
    tensors, _ = read_file(path)
    weight = tensors.get(f"{classifier}.weight")
    return None if weight is None else int(weight.shape[0])
