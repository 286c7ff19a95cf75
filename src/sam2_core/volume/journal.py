"""The journal of a session: one JSON line an act, on disk before the act is done.

Lines are only ever appended. A crash can tear the last one; it is then ignored and cut off.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sam2_core.errors import InputError

FORMAT = "napari-sam2 journal 1"


class Journal:
    """An append-only file of records.

    Parameters
    ----------
    path : Path
        Opened if it exists, else created.

    Raises
    ------
    InputError
        If the file is no journal.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        fresh = not self.path.exists()
        self._file = open(self.path, "a+b")  # noqa: SIM115 - open as long as the session
        try:
            self._file.truncate(whole_length(self.path))
            if fresh or self.end == 0:
                self.append({"format": FORMAT})
        except BaseException:
            self._file.close()
            raise

    @property
    def end(self) -> int:
        """Where the next record will start, in bytes."""
        return os.fstat(self._file.fileno()).st_size

    def append(self, record: Mapping[str, Any]) -> tuple[int, int]:
        """Write a record and force it to disk.

        Returns
        -------
        (int, int)
            Where it starts and ends, in bytes.

        Raises
        ------
        OSError
            If it cannot be written; the journal is then as it was.
        """
        start = self.end
        line = json.dumps(record, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"
        try:
            self._file.write(line)
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError:
            self._discard(start)
            raise
        return start, start + len(line)

    def read(self, start: int = 0, end: int | None = None) -> Iterator[tuple[int, dict[str, Any]]]:
        """The records between two places, each with the place where it ends."""
        return read(self.path, start, self.end if end is None else end)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _discard(self, length: int) -> None:
        """Cut off a half-written record, and drop what the file object still buffers."""
        descriptor = os.dup(self._file.fileno())
        with contextlib.suppress(OSError):
            self._file.close()
        os.ftruncate(descriptor, length)
        self._file = os.fdopen(descriptor, "a+b")


def read(path: str | Path, start: int = 0, end: int | None = None) -> Iterator[tuple[int, dict[str, Any]]]:
    """The whole records of a journal, each with the place where it ends; a torn last line is left out.

    Raises
    ------
    InputError
        If the file is no journal, or is damaged before its last line.
    """
    end = whole_length(path) if end is None else end
    with open(path, "rb") as file:
        file.seek(start)
        place = start
        while place < end:
            line = file.readline()
            first, place = place == 0, place + len(line)
            try:
                record = json.loads(line)
            except ValueError:
                raise InputError(f"{path} is damaged at byte {place - len(line)}: restore it from a copy") from None
            if not first:
                yield place, record
            elif not isinstance(record, dict) or record.get("format") != FORMAT:
                raise InputError(f"{path} is no journal of this version: expected {FORMAT!r} in its first line")


def whole_length(path: str | Path) -> int:
    """Length in bytes of a journal without its torn last line."""
    with open(path, "rb") as file:
        length = file.seek(0, os.SEEK_END)
        while length > 0:
            start = max(0, length - (1 << 16))
            file.seek(start)
            newline = file.read(length - start).rfind(b"\n")
            if newline >= 0:
                return start + newline + 1
            length = start
    return 0
