"""A record that grows: what a follower gives is what a fresh reading gives."""

import os
import zlib

import pandas as pd
import pytest
from frames import frame_of, search, trial, write_run

from coatnet_search.core.errors import InputError
from coatnet_search.record.fold import read_record
from coatnet_search.record.follow import Follower


def test_a_record_read_in_pieces_gives_the_frame_of_the_whole(tmp_path):
    run = write_run(tmp_path / "run", search(30))
    whole = (run / "trials.jsonl").read_bytes()
    follower = Follower(run)

    for end in (0, 3000, 3001, len(whole) // 2, len(whole)):  # in the middle of lines
        (run / "trials.jsonl").write_bytes(whole[:end])
        seen = follower.frame()

    pd.testing.assert_frame_equal(seen, read_record(run))


def test_nothing_is_read_again_while_nothing_was_written(tmp_path):
    run = write_run(tmp_path / "run", search(5))
    follower = Follower(run)

    first, version = follower.frame(), follower.version

    assert follower.frame() is first
    assert follower.version == version


def test_a_record_that_was_replaced_is_read_afresh(tmp_path):
    run = write_run(tmp_path / "run", search(9))
    follower = Follower(run)
    follower.frame()

    other = write_run(tmp_path / "other", frame_of(trial(0)))
    os.replace(other / "trials.jsonl", run / "trials.jsonl")

    assert list(follower.frame()["number"]) == [0]


def test_a_record_that_is_gone_is_empty(tmp_path):
    run = write_run(tmp_path / "run", search(3))
    follower = Follower(run)
    follower.frame()

    (run / "trials.jsonl").unlink()

    assert follower.frame().empty


def test_a_trial_whose_line_is_damaged_is_not_finished(tmp_path):
    run = write_run(tmp_path / "run", frame_of(trial(0), trial(1)))
    follower = Follower(run)
    lines = (run / "trials.jsonl").read_bytes().splitlines(keepends=True)

    (run / "trials.jsonl").write_bytes(b"".join([*lines[:-1], lines[-1].replace(b"terminal", b"terminus")]))

    assert list(follower.frame()["state"]) == ["done", "running"]


def test_a_record_of_a_newer_version_is_an_error_that_names_it(tmp_path):
    run = write_run(tmp_path / "run", frame_of(trial(0)))
    lines = [line.replace(b'"schema":1', b'"schema":9').rpartition(b',"crc":')[0] + b"}" for line in
             (run / "trials.jsonl").read_bytes().splitlines()]  # fmt: skip
    signed = [line[:-1] + b',"crc":"%08x"}\n' % zlib.crc32(line) for line in lines]
    (run / "trials.jsonl").write_bytes(b"".join(signed))

    with pytest.raises(InputError, match="written in schema 9"):
        Follower(run).frame()
