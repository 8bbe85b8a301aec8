"""Files that cannot be written to their end: nothing is left over, and the error names the file."""

import contextlib
import errno
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from coatnet_search.architecture.tensor_files import write_tensors
from coatnet_search.core.csv_file import write_csv
from coatnet_search.core.whole_file import whole_file, write_text
from coatnet_search.record.journal import write_json
from coatnet_search.training import checkpoint
from coatnet_search.training.checkpoint import Checkpoint


@contextlib.contextmanager
def room_for(size: int) -> Iterator[None]:
    """No file of this process grows beyond ``size`` bytes, as on a disk that is nearly full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


TENSORS = {"weight": torch.zeros(100_000)}
WRITERS = {
    "text": lambda path: write_text(path, "x" * 100_000),
    "JSON": lambda path: write_json(path, ["x"] * 100_000),
    "CSV": lambda path: write_csv(path, ["name"], [["x" * 10]] * 100_000),
    "tensors": lambda path: write_tensors(path, TENSORS, "key", "what"),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_a_disk_that_is_full_midway_is_named_with_the_file_and_nothing_is_left(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("as before")

    with room_for(10_000), pytest.raises(OSError, match="File too large") as caught:
        WRITERS[kind](path)

    assert (caught.value.errno, caught.value.filename) == (errno.EFBIG, str(path))
    assert [found.name for found in tmp_path.iterdir()] == ["file"] and path.read_text() == "as before"


def test_a_checkpoint_that_does_not_fit_leaves_the_one_before_and_names_its_file(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, Checkpoint(1, {"weight": torch.ones(2)}, []), {})

    with room_for(10_000), pytest.raises(OSError, match="File too large") as caught:
        checkpoint.save(tmp_path, Checkpoint(2, TENSORS, []), {})

    found = checkpoint.load(tmp_path, {})
    assert found is not None and found.epoch == 1
    assert caught.value.filename == str(tmp_path / "epoch-000002.safetensors")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["epoch-000001.json", "epoch-000001.safetensors"]


def test_a_mistake_that_is_not_of_the_disk_stays_what_it_is(tmp_path: Path) -> None:
    def mistaken() -> None:
        with whole_file(tmp_path / "file") as half:
            half.write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        mistaken()

    assert list(tmp_path.iterdir()) == []
