"""Small architectures and spaces for the tests."""

from typing import Any

from coatnet_search.architecture.arch import Arch, Head, Stage, Stem
from coatnet_search.space.file import SpaceFile
from coatnet_search.space.space import Space

C, T = "C", "T"


def small(*stages: Stage, image_size: int = 16, **changes: Any) -> Arch:
    """A network of thousands of parameters; by default one convolution and one attention stage on 8x8 and 4x4."""
    given = stages or (
        Stage(block=C, depth=1, width=8, stride=2),
        Stage(block=T, depth=2, width=16, stride=2, head_size=8),
    )
    values: dict[str, Any] = {"num_classes": 5, "stem": Stem(depth=1, width=8, stride=1), "head": Head(), **changes}
    return Arch(image_size=image_size, stages=given, **values)


def space(*rows: dict[str, Any], **changes: Any) -> Space:
    """A space on 8x8 images with a stem of one convolution; each row is a stage's."""
    values: dict[str, Any] = {
        "image_size": 8, "in_channels": 1, "num_classes": 3, "head_size": 8,
        "stem": {"kind": "conv", "depth": 1, "width": 8, "stride": 1}, **changes}  # fmt: skip
    stages = tuple({key: tuple(v) if isinstance(v, list) else v for key, v in row.items()} for row in rows)
    return Space(SpaceFile(stages=stages, **values))
