"""A space file as a frozen dataclass: what may be chosen. A scalar is a constant, a list is a dimension of the search.

The text below a key is its documentation here and its description in the exported JSON Schema.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field, PlainValidator, Strict, with_config

from coatnet_search.core.canonical import Scalar
from coatnet_search.core.keys import FORM, Choices, Constant, Count, Limit, Sizes, Switch
from coatnet_search.core.limits import Limit as AnyLimit
from coatnet_search.space import checks

Stem = Annotated[Choices, PlainValidator(checks.stem, json_schema_input_type=Choices)]
Stage = Annotated[Choices, PlainValidator(checks.stage, json_schema_input_type=Choices)]
Head = Annotated[Mapping[str, Scalar], PlainValidator(checks.head, json_schema_input_type=dict[str, Scalar])]
ExactLimits = Annotated[
    Mapping[str, AnyLimit],
    PlainValidator(checks.exact_limits, json_schema_input_type=dict[Literal["params", "macs", "activations"], Limit]),
]


@with_config(FORM)
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
