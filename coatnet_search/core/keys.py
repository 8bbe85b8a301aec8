"""The types of the keys in study and space files: what pydantic checks of one value, and what its JSON Schema says."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, PlainValidator, Strict

from coatnet_search.core import checks
from coatnet_search.core.canonical import Scalar
from coatnet_search.core.limits import Limit as AnyLimit

FORM = ConfigDict(extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)
NAME, INLINE = "<name>", "<inline>"  # marks of the two forms of ``space``; no key of a file has brackets


def whole(value: object) -> object:
    """1.0e+4 is a whole number too."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Count = Annotated[int, Strict(), Field(ge=1), BeforeValidator(whole)]
CountOrZero = Annotated[int, Strict(), Field(ge=0), BeforeValidator(whole)]
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
Compile = Annotated[
    bool | Literal["graphs"],
    PlainValidator(checks.compile_mode, json_schema_input_type=bool | Literal["off", "default", "graphs"]),
]
Constant = Annotated[Scalar, PlainValidator(checks.scalar, json_schema_input_type=Scalar)]
Choice = Annotated[checks.Choice, PlainValidator(checks.choice, json_schema_input_type=Scalar | list[Scalar])]
Choices = Mapping[str, Choice]
Sizes = Annotated[int | tuple[int, ...], PlainValidator(checks.sizes, json_schema_input_type=int | list[int])]
Limit = Annotated[AnyLimit, PlainValidator(checks.limit, json_schema_input_type=AnyLimit)]
Recipe = Annotated[Choices, PlainValidator(checks.recipe, json_schema_input_type=Choices)]
