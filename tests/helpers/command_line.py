"""The command line as tests use it: in this process, with its exit code and what it printed."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from coatnet_search.cli.main import main


@dataclass(frozen=True)
class Printed:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def error(self) -> str:
        """The one line of an error; anything else on either stream is a fault of its own."""
        lines = [line for line in self.err.splitlines() if not line.endswith(" ...")]  # what it was about to do
        assert self.out == "", self.out
        assert len(lines) == 1, self.err
        assert lines[0].startswith("error: ")
        assert "Traceback" not in self.err
        return lines[0].removeprefix("error: ")


def call(capsys: pytest.CaptureFixture[str], *words: object) -> Printed:
    """Runs ``coatnet-search WORDS``."""
    capsys.readouterr()
    code = main([str(word) for word in words])
    out, err = capsys.readouterr()
    return Printed(code, out, err)


def digit_folder(root: Path, count: int = 120, side: int = 8) -> Path:
    """``count`` real digits as PNG files of ``side`` pixels, one folder a class."""
    digits = load_digits()
    for number, (image, label) in enumerate(zip(digits.images[:count], digits.target, strict=False)):
        folder = root / f"digit-{label}"
        folder.mkdir(parents=True, exist_ok=True)
        picture = Image.fromarray((image * 15.9).astype(np.uint8)).resize((side, side))
        picture.save(folder / f"{number}.png")
    return root
