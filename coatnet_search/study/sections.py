"""The sections of a study file as frozen dataclasses: search, stop, resources, faults, choose, regimes, settle, audit.

The text below a key is its documentation and its description in the exported JSON Schema.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, Strict, with_config

from coatnet_search.core import checks
from coatnet_search.core.checks import Misplaced
from coatnet_search.core.errors import unknown
from coatnet_search.core.keys import (
    FORM,
    BatchSize,
    Compile,
    Constant,
    Count,
    CountOrZero,
    Number,
    Positive,
    Recipe,
    Share,
    Switch,
    Text,
    whole,
)
from coatnet_search.core.quantities import QUANTITIES


@with_config(FORM)
@dataclass(frozen=True, kw_only=True)
class ConditionsSpec:
    """Under which conditions the device is measured."""

    batch_size: BatchSize = None
    """Images at once; best: doubled until it gains nothing; null: 32 on a CPU, 256 on a GPU. Latency has 1."""
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Of weights and activations; in training, of activations. auto: bfloat16 on a GPU that has it, float16 on one that
    has only that, else float32."""
    memory_format: Literal["channels_last", "contiguous"] = "channels_last"
    """How images and weights of convolutions lie in memory."""
    compile: Compile = False
    """default: by torch.compile (true means the same, false off); graphs: and replayed as CUDA graphs."""
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
    """How often a trial whose process was killed is tried again, from its last checkpoint, also when the command is run
    again. Lost nodes do not count."""
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
