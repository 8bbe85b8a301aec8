"""Reads a growing record on from where it was read last, for pages that look again and again."""

import os
import threading
from pathlib import Path

import pandas as pd

from coatnet_search.record.fold import Fold, frame_of, named, read_record, record_path, scan
from coatnet_search.record.journal import uncollected
from coatnet_search.record.line import CRC


class Follower:
    """The frame of a RUN at this moment, as ``read_record`` gives it, for the price of what was appended since.

    A record that was replaced (a repair, a merge, another study in its place) is read afresh; one with a damaged line
    is read as a whole each time that it grows, until its driver has mended it. A last line counts once its newline is
    there. Safe to use from several threads.
    """

    def __init__(self, run: str | Path) -> None:
        self._path, self._lock = record_path(run), threading.Lock()
        self._begin(0)

    def _begin(self, inode: int) -> None:
        self._inode, self._offset, self._fold, self._damaged = inode, 0, Fold(), False
        self._frame: pd.DataFrame | None = None

    def frame(self) -> pd.DataFrame:
        """Not to be changed in place: it is handed out again while the record stays as it is. Raises InputError for a
        record of a newer version; no file is an empty record."""
        with self._lock:
            inode, size = self._identity()
            if inode != self._inode or size < self._offset:
                self._begin(inode)
            grown = self._read_on()
            if self._frame is None or grown:
                self._frame = self._whole() if self._damaged else self._folded()
            return self._frame

    @property
    def version(self) -> tuple[int, int]:
        """Equal while the record is the same: what was made of its frame then still holds."""
        return self._inode, self._offset

    def _identity(self) -> tuple[int, int]:
        try:
            found = os.stat(self._path)
        except FileNotFoundError:
            return 0, 0
        return found.st_ino, found.st_size

    def _read_on(self) -> bool:
        found = scan(self._path, self._offset)
        grown, self._offset = found.end > self._offset, found.end
        self._damaged |= bool(found.damaged) or found.torn.count(CRC) > 1
        self._fold.add(found.events)
        return grown

    def _folded(self) -> pd.DataFrame:
        with uncollected():
            return named(frame_of(self._fold.rows()), self._path)

    def _whole(self) -> pd.DataFrame:
        return read_record(self._path)
