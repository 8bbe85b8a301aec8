"""A study file as a frozen dataclass: its keys, what each means, and which of them go together.

``read_document("studies/x.yaml").parse(StudyFile)``. The text below a key is its documentation here and its description
in the exported JSON Schema. In a space, a scalar is a constant and a list is a dimension of the search.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag, with_config

from coatnet_search.analysis.tune_spec import TuneSpec
from coatnet_search.architecture.peer_spec import PeerSpec
from coatnet_search.core import checks
from coatnet_search.core.checks import Misplaced
from coatnet_search.core.keys import FORM, INLINE, NAME, Count, Limit, Number, Positive, Recipe, Text
from coatnet_search.data.spec import DataSpec
from coatnet_search.space.file import SpaceFile
from coatnet_search.study.sections import (
    AuditSpec,
    ChooseSpec,
    ConditionsSpec,
    EqualCost,
    FaultsSpec,
    PublishedSpec,
    RegimesSpec,
    Resources,
    SearchSpec,
    SettleSpec,
    StopSpec,
    TrackingSpec,
)
from coatnet_search.supernet.spec import SupernetSpec

DEFAULT_STRATEGY = "predictor"
LISTED, SETTLE = "listed", "settle"  # orders of a scaling study's runs: as written down; most useful first


def _peer(value: object) -> object:
    """``resnet18`` is ``{timm: resnet18}``."""
    return {"timm": value} if isinstance(value, str) else value


def _form_of_space(value: object) -> str:
    return INLINE if isinstance(value, dict) else NAME


@with_config(FORM)
@dataclass(frozen=True, kw_only=True)
class StudyFile:
    """A study: one question, and all that it takes to answer it."""

    question: Text
    """What the study is to answer, in a sentence."""
    space: Annotated[Annotated[Text, Tag(NAME)] | Annotated[SpaceFile, Tag(INLINE)], Discriminator(_form_of_space)]
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


FILES: dict[str, type] = {"study": StudyFile, "space": SpaceFile}
