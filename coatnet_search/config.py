"""YAML in, frozen dataclasses out; every mistake is one line with file, line and key. Alone in using pydantic.

``read_document("studies/x.yaml").parse(StudyFile)``. The text below a key is its documentation here and its description
in the exported JSON Schema. In a space, a scalar is a constant and a list is a dimension of the search.
"""

import dataclasses
import functools
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    PlainValidator,
    Strict,
    Tag,
    TypeAdapter,
    ValidationError,
    with_config,
)

from coatnet_search import checks
from coatnet_search.blocks import Scalar
from coatnet_search.checks import Misplaced, safe_name, wrong
from coatnet_search.document import Source, dump, read_source
from coatnet_search.errors import InputError, unknown
from coatnet_search.limits import Limit as AnyLimit
from coatnet_search.quantities import QUANTITIES
from coatnet_search.yaml_text import KeyPath

__all__ = [
    "AuditSpec",
    "ChooseSpec",
    "ConditionsSpec",
    "DataSpec",
    "Document",
    "EqualCost",
    "FaultsSpec",
    "HalvingSpec",
    "PeerSpec",
    "PublishedSpec",
    "RegimesSpec",
    "Resources",
    "SearchSpec",
    "SettleSpec",
    "SpaceFile",
    "StopSpec",
    "StudyFile",
    "SupernetSpec",
    "TrackingSpec",
    "TuneSpec",
    "dump",
    "json_schema",
    "read_document",
    "safe_name",
]  # fmt: skip

T = TypeVar("T")
_NAME, _INLINE = "<name>", "<inline>"  # marks of the two forms of ``space``; no key of a file has brackets
DEFAULT_STRATEGY = "predictor"
LISTED, SETTLE = "listed", "settle"  # orders of a scaling study's runs: as written down; most useful first
_FORM = ConfigDict(extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


def _whole(value: object) -> object:
    """1.0e+4 is a whole number too."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Count = Annotated[int, Strict(), Field(ge=1), BeforeValidator(_whole)]
CountOrZero = Annotated[int, Strict(), Field(ge=0), BeforeValidator(_whole)]
Number = Annotated[float, Strict()]
Text = Annotated[str, Strict(), Field(min_length=1)]
Positive = Annotated[float, Strict(), Field(gt=0)]
NotNegative = Annotated[float, Strict(), Field(ge=0)]
Rate = Annotated[float, Strict(), Field(ge=0, lt=1)]
Switch = Annotated[bool, Strict()]
Share = Annotated[float, Strict(), Field(ge=0), AfterValidator(checks.share)]
BatchSize = Annotated[
    int | str | None, PlainValidator(checks.batch_size, json_schema_input_type=int | Literal["best"] | None)
]
Constant = Annotated[Scalar, PlainValidator(checks.scalar, json_schema_input_type=Scalar)]
Choice = Annotated[checks.Choice, PlainValidator(checks.choice, json_schema_input_type=Scalar | list[Scalar])]
Choices = Mapping[str, Choice]
Sizes = Annotated[int | tuple[int, ...], PlainValidator(checks.sizes, json_schema_input_type=int | list[int])]
Limit = Annotated[AnyLimit, PlainValidator(checks.limit, json_schema_input_type=AnyLimit)]
Stem = Annotated[Choices, PlainValidator(checks.stem, json_schema_input_type=Choices)]
Stage = Annotated[Choices, PlainValidator(checks.stage, json_schema_input_type=Choices)]
Head = Annotated[Mapping[str, Scalar], PlainValidator(checks.head, json_schema_input_type=dict[str, Scalar])]
Recipe = Annotated[Choices, PlainValidator(checks.recipe, json_schema_input_type=Choices)]
ExactLimits = Annotated[
    Mapping[str, AnyLimit],
    PlainValidator(checks.exact_limits, json_schema_input_type=dict[Literal["params", "macs", "activations"], Limit]),
]


@with_config(_FORM)
@dataclass(frozen=True, kw_only=True)
class SpaceFile:
    """A space: what may be chosen. A scalar is a constant, a list is a dimension."""

    description: Annotated[str, Strict()] = ""
    """One line for people: what the space is for."""
    image_size: Sizes
    """Side of the input in pixels; it defines what a network costs."""
    in_channels: Count = 3
    """Channels of an image; a study replaces it by its data's."""
    num_classes: Count = 10
    """Classes to tell apart; a study replaces it by its data's."""
    stem: Stem = field(default_factory=dict)
    """kind (conv or patch), depth in convolutions, width in channels, stride, bias, norm_eps, activation."""
    stages: Annotated[tuple[Stage, ...], Field(min_length=1)]
    """Each: block (C, T or a full name), depth in blocks, width in channels, stride (1 or 2), the blocks' options."""
    head: Head = field(default_factory=dict)
    """hidden (true: a dense layer before the classifier), norm_eps."""
    head_size: Sizes | None = None
    """Channels of one attention head, for all stages; null: the block's own default."""
    convolution_first: Switch = False
    """The paper's rule: no convolution stage after an attention stage."""
    limits: ExactLimits = field(default_factory=dict)
    """Bounds of params, macs, activations: a number is the upper one; [low, high] both, of which one may be null."""
    only: tuple[Mapping[str, Constant], ...] = ()
    """The combinations that alone are allowed, each as values of dimensions (s3_relative: true); none: all are."""


@with_config(_FORM)
@dataclass(frozen=True, kw_only=True)
class DataSpec:
    """What is learned from, and how its validation split is made."""

    name: Text
    """The kind of data set: digits, parquet, image_folder, cifar10, cifar100."""
    path: Text | None = None
    """File or folder of the data; null where the kind needs none."""
    val_fraction: Annotated[Number, Field(gt=0, lt=1)] = 0.1
    """Share of the training images that is held out for validation."""
    seed: CountOrZero = 0
    """Seed of the validation split."""
    num_images: Count | None = None
    """Train on a stratified subset of so many images, nested by size; null: on all."""
    min_per_class: Count = 1
    """Least images of a class in such a subset, and in every regime."""
    download: Switch = False
    """Whether data that is not there may be downloaded."""
    workers: CountOrZero = 0
    """Processes that decode images; 0: the training process does."""


@with_config(_FORM)
@dataclass(frozen=True, kw_only=True)
class ConditionsSpec:
    """Under which conditions the device is measured."""

    batch_size: BatchSize = None
    """Images at once; best: doubled until it gains nothing; null: 32 on a CPU, 256 on a GPU. Latency has 1."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of weights and activations; in training, of activations."""
    memory_format: Literal["channels_last", "contiguous"] = "channels_last"
    """How images and weights of convolutions lie in memory."""
    compile: Switch = False
    """true: by torch.compile."""
    fold: Switch = False
    """true: BatchNorms are folded into convolutions, for inference."""


@with_config(_FORM)
@dataclass(frozen=True, kw_only=True)
class HalvingSpec:
    """Successive halving: trials pause after first, first * factor, ... epochs, and the best of each rung go on."""

    first: Count
    """Epochs of the first rung; recipe.epochs must be first times a power of factor."""
    factor: Annotated[int, Strict(), Field(ge=2), BeforeValidator(_whole)] = 3
    """Of the trials at a rung, one in so many goes on, to so many times the epochs."""


@with_config(_FORM)
@dataclass(frozen=True, kw_only=True)
class SearchSpec:
    """How the next candidates are chosen, and how many of them."""

    strategy: Text = ""
    """A name of the strategies' menu (predictor, where none is given); of a scaling study: listed (then), settle."""
    trials: Count | None = None
    """How many candidates are tried; of a scaling study at most so many of its runs, null: all of them."""
    seed: CountOrZero = 0
    """Seed of the search; trial n draws from (seed, n)."""
    options: Mapping[str, Constant] = field(default_factory=dict)
    """The strategy's own options."""
    halving: HalvingSpec | None = None
    """Trials that do not promise to reach the front are stopped early; null: all are trained in full."""
    baseline: CountOrZero = 0
    """Random candidates that are trained in full after the search, for comparison; the search never sees them."""


@with_config(_FORM)
@dataclass(frozen=True, kw_only=True)
class StopSpec:
    """When a search ends before its trials are used up; the rules may change on resume."""

    device_hours: Positive | None = None
    """Hours for which all trials together may occupy a device: GPU-hours where resources.gpus is set."""
    wall_hours: Positive | None = None
    """Hours for which the study may run, all its sessions together."""
    hypervolume_gain: Annotated[Number, Field(gt=0, lt=1)] | None = None
    """Expected gain of a further trial, as a share of the objectives' box, below which no more are proposed."""


@with_config(_FORM)
@dataclass(frozen=True, kw_only=True)
class Resources:
    """What one trial occupies; a fraction lets trials share a device."""

    cpus: Share = 1.0
    """CPU cores of one trial."""
    gpus: Share = 0.0
    """GPUs of one trial."""
    accelerator: Text | None = None
    """The type of GPU, as Ray names it (H100, A100): trials run on nodes with it alone, so that speeds compare."""


@with_config(_FORM)
@dataclass(frozen=True, kw_only=True)
class FaultsSpec:
    """What one trial may take before it is ended, and what happens when trials are lost."""

    minutes: Positive | None = None
    """Longest wall time of a trial on its device; a longer one fails as timeout."""
    silent_minutes: Positive | None = None
    """Longest time between two reports (epochs) of a trial, its start counted; a longer one fails as timeout."""
    memory_gib: Positive | None = None
    """Most memory of a trial's process and its children; null: what the machine has."""
    retries: CountOrZero = 1
    """How often a trial whose process was killed is tried again, from its last checkpoint. Lost nodes do not count."""
    equal_failures: Count = 3
    """So many first trials that all fail alike end the search; so do 4 times as many in a row, later on."""
    checkpoints_gib: Positive | None = None
    """Most disk that the checkpoints of running trials take; beyond it none is started. null: the disk's space."""
    reserve_gib: Annotated[Number, Field(ge=0)] = 1.0
    """Free disk below which no further trial is started."""


@with_config(_FORM)
@dataclass(frozen=True, kw_only=True)
class ChooseSpec:
    """The rule by which finished trials become chosen architectures."""

    limit: Mapping[str, Number] = field(default_factory=dict)
    """Bounds that a chosen one keeps: costs from above, maximised metrics from below."""
    top: Count = 3
    """How many are chosen."""


@with_config(_FORM)
@dataclass(frozen=True, kw_only=True)
class PeerSpec:
    """A network of timm that stands beside the candidates: same data, same budget, same device."""

    timm: Text
    """Its name in timm, such as resnet18 or efficientnet_b0."""
    evaluate: Literal["trained", "fine-tuned", "measured"] = "trained"
    """trained: from scratch; fine-tuned: from its weights; measured: costs and speed alone."""
    weights: Text | None = None
    """Safetensors file to fine-tune from; null: the weights in this machine's hub cache. Nothing is downloaded."""
    image_size: Count | None = None
    """Side of its input in pixels; null: that of the space. Images are resized."""
    recipe: Recipe = field(default_factory=dict)
    """What replaces values of the study's recipe for this network alone, such as lr; never epochs."""

    def __post_init__(self) -> None:
        if self.weights and self.evaluate != "fine-tuned":
            raise Misplaced("weights are for fine-tuning; write evaluate: fine-tuned, or remove them", ("weights",))
        for key in ("name", "epochs"):
            if key in self.recipe:
                raise Misplaced(f"a peer has the study's {key}; remove it", ("recipe", key))


@with_config(_FORM)
@dataclass(frozen=True, kw_only=True)
class PublishedSpec:
    """A result that was printed elsewhere for one of the study's choices."""

    where: Annotated[Mapping[str, Constant], Field(min_length=1)]
    """The choice: values of dimensions, layout, size, num_images (a share of all up to 1)."""
    metric: Text
    """What the result is of: val_top1, error, train_loss, generalisation_gap, ..."""
    value: Number | None = None
    """The result as printed (accuracies as fractions); null: only an order was printed."""
    rank: Count | None = None
    """Place in that order, 1 the best; equal places are about equal. null: the order of the values."""
    note: Annotated[str, Strict()] = ""
    """What a reader must know of it: other settings, known conflicts."""

    def __post_init__(self) -> None:
        if self.metric not in QUANTITIES:
            raise Misplaced(unknown("metric", self.metric[:60], QUANTITIES), ("metric",))
        if (self.value is None) is (self.rank is None):
            raise Misplaced(
                "expected the value that was printed, or rank: its place where only an order was", ("value",)
            )


@with_config(_FORM)
@dataclass(frozen=True, kw_only=True)
class EqualCost:
    """What the layouts of a scaling study cost, so that they compare: exact costs, alike on every machine and after a
    resume. With a measured throughput a restart would plan other networks; ``match LAYOUT --throughput N --device D``
    finds networks of equal speed and writes them as files, with what was measured."""

    macs: Positive
    """Multiply-adds of one image; at size 1."""
    params: Positive | None = None
    """Parameters at size 1; null: whatever the multiply-adds give."""
    tolerance: Annotated[Number, Field(gt=0, lt=1)] = 0.05
    """How far multiply-adds may be off, as a share."""
    params_tolerance: Annotated[Number, Field(gt=0, lt=1)] = 0.1
    """How far parameters may be off, as a share."""


@with_config(_FORM)
@dataclass(frozen=True, kw_only=True)
class RegimesSpec:
    """Amounts of training data: nested, stratified subsets of the data set, the same for every network."""

    num_images: Annotated[tuple[Positive, ...], Field(min_length=1)] = (1.0,)
    """Images of each regime: whole numbers from 2 are counts, values up to 1 are shares of the training images."""
    draws: Count = 1
    """Different subsets of each size."""
    seeds: Count = 1
    """Trainings of each network on each subset; seeds follow search.seed."""
    min_steps: CountOrZero = 0
    """Least length of a training in steps: small regimes get more epochs."""
    doubled: Switch = False
    """true: one more training of each layout and regime with twice the epochs, which shows where runs are too short."""


@with_config(_FORM)
@dataclass(frozen=True, kw_only=True)
class TuneSpec:
    """A sweep over values of the recipe, for each layout and regime, before its runs; each replaces one value alone."""

    lr: tuple[Positive, ...] = ()
    """Learning rates that are tried beside the recipe's."""
    weight_decay: tuple[NotNegative, ...] = ()
    """Weight decays that are tried beside the recipe's."""
    drop_path: tuple[Rate, ...] = ()
    """Rates of stochastic depth that are tried beside the recipe's."""

    def __post_init__(self) -> None:
        if not any(self.values().values()):
            raise Misplaced("expected values of lr, weight_decay or drop_path to try", ("lr",))

    def values(self) -> dict[str, tuple[float, ...]]:
        """The values to try of each key that has any."""
        return {key: values for key, values in dataclasses.asdict(self).items() if values}


@with_config(_FORM)
@dataclass(frozen=True, kw_only=True)
class SettleSpec:
    """When a scaling study with search.strategy settle has run enough."""

    at_data: Positive
    """Training images that the choice is for."""
    at_size: Positive | None = None
    """The size of the ladder among whose layouts is chosen; null: among all."""
    probability: Annotated[Number, Field(gt=0, lt=1)] = 0.95
    """P(best) that settles it."""
    regret: Positive | None = None
    """Expected regret of the best, in error (a fraction), below which it is settled too; null: only P(best) counts."""


@with_config(_FORM)
@dataclass(frozen=True, kw_only=True)
class SupernetSpec:
    """The supernet whose weights candidates inherit: how it is trained, or where a trained one lies."""

    path: Text | None = None
    """A trained supernet to take: a RUN, or its folder supernet; null: one is trained first, into the RUN."""
    epochs: Count | None = None
    """Passes over the training images, one layout a step; needed where one is trained."""
    mode: Literal["sandwich", "single-path"] = "sandwich"
    """sandwich: a step trains the largest, the smallest and random networks of its layout; single-path: one random."""
    random_networks: CountOrZero | None = None
    """Random networks of a sandwich step; null: 2."""
    distillation: Literal["kl", "alpha", "none"] | None = None
    """What a sandwich's others learn: the largest's answers by kl or alpha divergence; none: labels. null: kl."""
    sampling: Literal["log", "linear"] = "log"
    """Random networks are uniform in multiply-adds on this scale."""
    partition: Literal["none", "layout", "both"] = "none"
    """none: all layouts share weights; layout: one supernet for each, with the same steps in all; both: candidates
    inherit from the shared one, and the report sets the others beside it."""
    recipe: Recipe = field(default_factory=dict)
    """What replaces values of the study's recipe; mixup and RandAugment are off unless they are named here."""
    seed: CountOrZero = 0
    """Of its weights, the order of layouts and the random networks."""
    workers: Count = 1
    """Processes that train it, each on its share of every batch with resources.cpus and gpus; several need Ray."""
    recalibration_images: Count = 1024
    """Training images from which a candidate's norms get fresh statistics before it is scored."""

    def __post_init__(self) -> None:
        if self.path is not None:
            for one in dataclasses.fields(self):
                usual = one.default if one.default is not dataclasses.MISSING else {}
                if one.name not in ("path", "recalibration_images") and getattr(self, one.name) != usual:
                    raise Misplaced("the supernet at path is trained already; remove this, or path", (one.name,))
        elif self.epochs is None:
            raise Misplaced("this key is missing; add it (Passes over the training images), or path", ("epochs",))
        if self.mode == "single-path":
            for name in ("random_networks", "distillation"):
                if getattr(self, name) is not None:
                    raise Misplaced("a single path has one network a step and no teacher; remove it", (name,))
        if "epochs" in self.recipe:
            raise Misplaced("a supernet's epochs are supernet.epochs; remove it", ("recipe", "epochs"))
        if "name" in self.recipe:
            raise Misplaced("a supernet has the study's recipe; remove it", ("recipe", "name"))


@with_config(_FORM)
@dataclass(frozen=True, kw_only=True)
class AuditSpec:
    """Networks that are trained alone after a search with inherited weights, to see how well those rank."""

    candidates: Annotated[int, Strict(), Field(ge=10), BeforeValidator(_whole)] = 36
    """How many networks: equal numbers of each layout and of three bands of multiply-adds."""
    seeds: Annotated[int, Strict(), Field(ge=2), BeforeValidator(_whole)] = 2
    """Trainings of each; their seeds follow search.seed."""
    epochs: Count | None = None
    """Epochs of each training; null: those of the study's recipe."""
    num_images: Count | None = None
    """Training images of each, a stratified subset; null: all."""
    recipe: Recipe = field(default_factory=dict)
    """What replaces values of the study's recipe; never its name or epochs."""
    records: tuple[Text, ...] = ()
    """RUNs of stand-alone trainings: those of the same network, budget, data and recipe count, and are not repeated."""

    def __post_init__(self) -> None:
        for key, instead in (("name", "the study's recipe"), ("epochs", "epochs of its own, audit.epochs")):
            if key in self.recipe:
                raise Misplaced(f"an audit has {instead}; remove it", ("recipe", key))


@with_config(_FORM)
@dataclass(frozen=True, kw_only=True)
class TrackingSpec:
    """The mirror of a study's record in MLflow."""

    uri: Annotated[Text, AfterValidator(checks.tracking_uri)] | None = None
    """Tracking URI, without password; null: a SQLite file under runs/."""
    experiment: Text | None = None
    """Name of the MLflow experiment; null: the study's name."""
    enabled: Switch = True
    """false: no mirror."""


def _peer(value: object) -> object:
    """``resnet18`` is ``{timm: resnet18}``."""
    return {"timm": value} if isinstance(value, str) else value


def _form_of_space(value: object) -> str:
    return _INLINE if isinstance(value, dict) else _NAME


@with_config(_FORM)
@dataclass(frozen=True, kw_only=True)
class StudyFile:
    """A study: one question, and all that it takes to answer it."""

    question: Text
    """What the study is to answer, in a sentence."""
    space: Annotated[Annotated[Text, Tag(_NAME)] | Annotated[SpaceFile, Tag(_INLINE)], Discriminator(_form_of_space)]
    """A bundled space's name, the path of a space file, or the space itself."""
    data: DataSpec
    """What is learned from."""
    evaluate: Literal["trained", "inherited", "measured"] = "trained"
    """trained: each candidate is trained and scored; inherited: scored with the weights of a supernet; measured: its
    costs and speed alone."""
    supernet: SupernetSpec | None = None
    """With evaluate inherited: the supernet."""
    recipe: Recipe = field(default_factory=dict)
    """How a candidate is trained: name, and what replaces the named recipe's values (epochs, batch_size, ...)."""
    objectives: Annotated[Mapping[str, Literal["min", "max"]], Field(min_length=1)]
    """Metric names and their direction: error, val_loss, macs, params, throughput_images_per_s, ..."""
    measure: tuple[Text, ...] = ("throughput",)
    """What is measured on the device for each trial: throughput, latency, train_throughput, peak_memory."""
    measure_when: Literal["start", "end"] = "start"
    """start: before a trial is trained; end: all finished ones after the search, for the report and the choice."""
    conditions: ConditionsSpec = field(default_factory=ConditionsSpec)
    """Under which conditions it is measured."""
    search: SearchSpec = field(default_factory=SearchSpec)
    """How candidates are chosen; a scaling study needs none."""
    peers: tuple[Annotated[PeerSpec, BeforeValidator(_peer)], ...] = ()
    """Networks of timm that are trained, fine-tuned or measured beside the candidates; a name alone is trained."""
    published: tuple[PublishedSpec, ...] = ()
    """Results that were printed elsewhere for the study's choices; the verb `published` sets ours beside them."""
    replicates: Count = 1
    """Trainings of a candidate: finished ones near the front are trained again at the end, with the seeds after."""
    near_front: Annotated[Number, Field(ge=0, lt=1)] = 0.1
    """Probability of being on the front, given the noise between seeds, that replicates ask for; 0: all have them."""
    stop: StopSpec = field(default_factory=StopSpec)
    """When a search ends before its trials are used up."""
    audit: AuditSpec | None = None
    """Trains some candidates of a search with inherited weights alone, after it; null: its ranking is unaudited."""
    equal_cost: EqualCost | None = None
    """Makes the study a scaling study: no search, but each layout at this cost, on each regime."""
    layouts: tuple[Text, ...] = ()
    """Layouts of a scaling study, such as C-C-T-T; none: all of the space's."""
    sizes: Annotated[tuple[Positive, ...], Field(min_length=1)] = (1.0,)
    """A ladder of sizes: multiples of equal_cost."""
    instances: Count = 1
    """Different networks of each layout and size; layouts are compared over them."""
    regimes: RegimesSpec = field(default_factory=RegimesSpec)
    """Amounts of training data."""
    tune: TuneSpec | None = None
    """A sweep per layout and regime, whose best values its runs are trained with; null: all have the recipe's."""
    settle: SettleSpec | None = None
    """For whom search.strategy settle runs what is most useful next, and when it stops."""
    match: Literal["epochs", "steps"] = "epochs"
    """What regimes have in common: epochs (small ones take less time), or steps (every run sees as many images)."""
    limits: Mapping[str, Limit] = field(default_factory=dict)
    """Bounds on metrics: a number bounds costs from above, maximised metrics from below; a pair is [low, high]."""
    resources: Resources = field(default_factory=Resources)
    """What one trial occupies."""
    faults: FaultsSpec = field(default_factory=FaultsSpec)
    """What one trial may take, and what happens when trials are lost."""
    storage: Annotated[Text, AfterValidator(checks.storage_uri)] | None = None
    """URI (s3://bucket/folder, gs://...) where running trials keep checkpoints too; null: in the RUN's folder alone,
    which all nodes then must share."""
    choose: ChooseSpec = field(default_factory=ChooseSpec)
    """Which finished trials become chosen architectures."""
    tracking: TrackingSpec = field(default_factory=TrackingSpec)
    """Where MLflow mirrors the record."""

    def __post_init__(self) -> None:
        if self.evaluate != "measured" and not isinstance(self.recipe.get("name"), str):
            raise Misplaced("expected the name of a recipe, such as small-images", ("recipe", "name"))
        self._check_inherited()
        if not self.search.strategy:
            usual = DEFAULT_STRATEGY if self.equal_cost is None else LISTED
            object.__setattr__(self, "search", dataclasses.replace(self.search, strategy=usual))
        if self.replicates > 1 and (self.evaluate != "trained" or self.equal_cost is not None):
            instead = "has regimes.seeds instead" if self.equal_cost else f"with evaluate: {self.evaluate} has no seeds"
            raise Misplaced(f"a study {instead}; remove it", ("replicates",))
        if self.audit is not None and self.evaluate != "inherited":
            raise Misplaced("an audit is of inherited scores; write evaluate: inherited, or remove it", ("audit",))
        if self.equal_cost is None:
            self._check_search()
        else:
            self._check_scaling()

    def _check_inherited(self) -> None:
        if (self.supernet is not None) is not (self.evaluate == "inherited"):
            raise Misplaced("evaluate: inherited and supernet: go together; write both, supernet: {epochs: N} at least",
                            ("supernet",))  # fmt: skip
        if self.evaluate == "inherited":
            for place, peer in enumerate(self.peers):
                if peer.evaluate != "measured":
                    raise Misplaced("a peer has no place in the supernet; write evaluate: measured, or remove it",
                                    ("peers", place, "evaluate"))  # fmt: skip

    def _check_search(self) -> None:
        if self.search.halving and self.evaluate != "trained":
            raise Misplaced(f"halving splits the epochs of a training, and with evaluate: {self.evaluate} candidates "
                            "have none; remove it", ("search", "halving"))  # fmt: skip
        if self.search.trials is None:
            raise Misplaced("this key is missing; add it (How many candidates are tried)", ("search", "trials"))
        for name, default in (("layouts", ()), ("sizes", (1.0,)), ("instances", 1), ("regimes", RegimesSpec()),
                              ("tune", None), ("settle", None)):  # fmt: skip
            if getattr(self, name) != default:
                raise Misplaced("this is for scaling studies; add equal_cost: {macs: ...}, or remove it", (name,))

    def _check_scaling(self) -> None:
        if self.stop.hypervolume_gain is not None:
            raise Misplaced("a scaling study has no front to grow; write search.strategy settle, or remove it",
                            ("stop", "hypervolume_gain"))  # fmt: skip
        if self.search.strategy not in (LISTED, SETTLE):
            raise Misplaced(f"a scaling study runs what it lists: expected {LISTED} or {SETTLE}, got "
                            f"{self.search.strategy!r}", ("search", "strategy"))  # fmt: skip
        if (self.settle is not None) is not (self.search.strategy == SETTLE):
            raise Misplaced("settle: and search.strategy settle go together; write both, settle: {at_data: N} with the "
                            "number of images that the choice is for", ("settle",))  # fmt: skip
        if self.search.options:
            raise Misplaced(f"{self.search.strategy} has no options; remove them", ("search", "options"))
        if self.search.baseline:
            raise Misplaced("a scaling study searches nothing that a baseline could stand beside; remove it",
                            ("search", "baseline"))  # fmt: skip
        if self.search.halving:
            raise Misplaced("a scaling study trains all its runs in full; remove it", ("search", "halving"))
        if self.evaluate != "trained":
            raise Misplaced("a scaling study trains its networks; write evaluate: trained", ("evaluate",))
        if self.data.num_images is not None:
            raise Misplaced("a scaling study has regimes instead; remove it", ("data", "num_images"))


_FILES: dict[str, type] = {"study": StudyFile, "space": SpaceFile}


class Document(Source):
    """A YAML file that can be checked against one of the dataclasses above."""

    def parse(self, cls: type[T]) -> T:
        """The file as ``cls``; mappings are plain dicts, sequences tuples. Raises InputError for one mistake of it."""
        try:
            checked: T = _adapter(typing.cast(Any, cls)).validate_python(self.value)
            return checked
        except ValidationError as error:
            found = [(self._place(one), one) for one in error.errors(include_url=False)]
        # An unknown key comes first: it is often the missing one in another spelling. Then by line. A list is also
        # called too short where its items are wrong, so that comes last.
        rank = {_UNKNOWN: 0, "too_short": 2}
        at, first = min(found, key=lambda pair: (rank.get(pair[1]["type"], 1), self.line(pair[0]) or 0))
        raise self.error(at, _message(cls, at, first))

    @staticmethod
    def _place(fault: Any) -> KeyPath:
        inner = fault.get("ctx", {}).get("error")
        at = tuple(part for part in fault["loc"] if part not in (_NAME, _INLINE))
        return (*at, *inner.at) if isinstance(inner, Misplaced) else at


def read_document(path: str | Path, text: str | None = None) -> Document:
    """Read a YAML file, or ``text``, whose name ``path`` then is: a study, a space, or free-form such as an arch.

    Raises InputError, one line with file and line, for whatever is wrong with it; SetupError where it cannot be read.
    """
    source = read_source(path, text)
    return Document(source.name, source.value, source.places)


def json_schema(kind: str) -> dict[str, Any]:
    """The JSON Schema (2020-12) of a file kind, ``study`` or ``space``, for editors and other tools."""
    if kind not in _FILES:
        raise InputError(unknown("kind of file", kind, _FILES))
    schema = _adapter(_FILES[kind]).json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


_UNKNOWN = "unexpected_keyword_argument"
_EXPECTED = {
    "int_type": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "string_type": "text",
    "string_too_short": "some text",
    "dict_type": "a mapping (key: value)",
    "mapping_type": "a mapping (key: value)",
    "dataclass_type": "a mapping (key: value)",
    "tuple_type": "a list",
    "too_short": "at least one entry",
    "literal_error": "{expected}",
    "greater_than_equal": "a number of at least {ge:g}",
    "greater_than": "a number above {gt:g}",
    "less_than": "a number below {lt:g}",
}


@functools.cache
def _adapter(cls: Any) -> TypeAdapter[Any]:
    return TypeAdapter(cls)


def _message(cls: type, at: KeyPath, fault: Any) -> str:
    """What is wrong, in this project's words."""
    kind, context = fault["type"], fault.get("ctx", {})
    if kind == "value_error":
        return str(context["error"])
    if kind == _UNKNOWN:
        return unknown("key", str(at[-1])[:60], _keys(cls, at[:-1]))
    if kind == "missing":
        return f"this key is missing; add it ({_keys(cls, at[:-1])[str(at[-1])].rstrip('.')})"
    return wrong(_EXPECTED[kind].format(**context), fault["input"])


def _dataclasses(hint: Any) -> Iterator[type]:
    """The dataclasses that a type hint mentions, at any depth."""
    if is_dataclass(hint):
        yield typing.cast(type, hint)
    for inner in typing.get_args(hint):
        yield from _dataclasses(inner)


def _keys(cls: type, at: KeyPath) -> dict[str, str]:
    """The keys that a dataclass within ``cls`` knows, with their documentation's first line."""
    for part in at:
        if isinstance(part, str):  # a number is a place in a list: its items' class is the one that was found
            cls = next(_dataclasses(typing.get_type_hints(cls, include_extras=False)[part]))
    properties = _adapter(cls).json_schema()["properties"]
    return {key: value.get("description", "") for key, value in properties.items()}
