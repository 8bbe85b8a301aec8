"""The sections of a study file, a frozen dataclass each, in the order in which a study uses them.

The text below a key is its documentation and its description in the exported JSON Schema.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, Strict, with_config

from coatnet_search import checks
from coatnet_search.checks import Misplaced
from coatnet_search.errors import unknown
from coatnet_search.keys import (
    FORM,
    BatchSize,
    Constant,
    Count,
    CountOrZero,
    NotNegative,
    Number,
    Positive,
    Rate,
    Recipe,
    Share,
    Switch,
    Text,
    whole,
)
from coatnet_search.quantities import QUANTITIES


@with_config(FORM)
@dataclass(frozen=True, kw_only=True)
class DataSpec:
    """What is learned from, and how its validation split is made."""

    name: Text
    """The kind of data set: digits, parquet, image_folder, cifar10, cifar100."""
    path: Annotated[Text, AfterValidator(checks.data_place)] | None = None
    """File or folder of the data, also as a URI (s3://bucket/folder, gs://...), which each machine fetches once; null
    where the kind needs none."""
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


@with_config(FORM)
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


@with_config(FORM)
@dataclass(frozen=True, kw_only=True)
class HalvingSpec:
    """Successive halving: trials pause after first, first * factor, ... epochs, and the best of each rung go on."""

    first: Count
    """Epochs of the first rung; recipe.epochs must be first times a power of factor."""
    factor: Annotated[int, Strict(), Field(ge=2), BeforeValidator(whole)] = 3
    """Of the trials at a rung, one in so many goes on, to so many times the epochs."""


@with_config(FORM)
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


@with_config(FORM)
@dataclass(frozen=True, kw_only=True)
class StopSpec:
    """When a search ends before its trials are used up; the rules may change on resume."""

    device_hours: Positive | None = None
    """Hours for which all trials together may occupy a device: GPU-hours where resources.gpus is set."""
    wall_hours: Positive | None = None
    """Hours for which the study may run, all its sessions together."""
    hypervolume_gain: Annotated[Number, Field(gt=0, lt=1)] | None = None
    """Expected gain of a further trial, as a share of the objectives' box, below which no more are proposed."""


@with_config(FORM)
@dataclass(frozen=True, kw_only=True)
class Resources:
    """What one trial occupies; a fraction lets trials share a device."""

    cpus: Share = 1.0
    """CPU cores of each of a trial's workers."""
    gpus: Share = 0.0
    """GPUs of each of a trial's workers."""
    workers: Count = 1
    """Processes that train one trial, each on its share of every batch; several need Ray and recipe.micro_batch."""
    accelerator: Text | None = None
    """The type of GPU, as Ray names it (H100, A100): trials run on nodes with it alone, so that speeds compare."""

    def __post_init__(self) -> None:
        if self.workers > 1 and self.gpus not in (0, 1):
            raise Misplaced("each of several workers has a GPU to itself, or none; write 1 or 0", ("gpus",))

    @property
    def devices(self) -> float:
        """Devices that a trial occupies: GPUs where it asks for them, else its workers' CPUs as one each."""
        return (self.gpus or 1.0) * self.workers


@with_config(FORM)
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
    """Most disk that the checkpoints of running trials, and of paused ones, take; beyond it none is started. null: the
    disk's space."""
    reserve_gib: Annotated[Number, Field(ge=0)] = 1.0
    """Free disk below which no further trial is started."""


@with_config(FORM)
@dataclass(frozen=True, kw_only=True)
class ChooseSpec:
    """The rule by which finished trials become chosen architectures."""

    limit: Mapping[str, Number] = field(default_factory=dict)
    """Bounds that a chosen one keeps: costs from above, maximised metrics from below."""
    top: Count = 3
    """How many are chosen."""


@with_config(FORM)
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


@with_config(FORM)
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


@with_config(FORM)
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


@with_config(FORM)
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


@with_config(FORM)
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


@with_config(FORM)
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


@with_config(FORM)
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


@with_config(FORM)
@dataclass(frozen=True, kw_only=True)
class AuditSpec:
    """Networks that are trained alone after a search with inherited weights, to see how well those rank."""

    candidates: Annotated[int, Strict(), Field(ge=10), BeforeValidator(whole)] = 36
    """How many networks: equal numbers of each layout and of three bands of multiply-adds."""
    seeds: Annotated[int, Strict(), Field(ge=2), BeforeValidator(whole)] = 2
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


@with_config(FORM)
@dataclass(frozen=True, kw_only=True)
class TrackingSpec:
    """The mirror of a study's record in MLflow."""

    uri: Annotated[Text, AfterValidator(checks.tracking_uri)] | None = None
    """Tracking URI, without password; null: a SQLite file under runs/."""
    experiment: Text | None = None
    """Name of the MLflow experiment; null: the study's name."""
    enabled: Switch = True
    """false: no mirror."""
