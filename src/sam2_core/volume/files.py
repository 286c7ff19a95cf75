"""Writing so that nothing half-made stays: beside and renamed, and failures of the disk in one sentence."""

from __future__ import annotations

import errno
import json
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sam2_core.errors import InputError

_REASONS = {
    errno.ENOSPC: "the disk is full: free some space or write elsewhere",
    errno.EDQUOT: "the disk quota is used up: free some space or write elsewhere",
    errno.EROFS: "the disk is read-only: write elsewhere",
    errno.EACCES: "permission is denied: write elsewhere or change the permissions",
    errno.EPERM: "permission is denied: write elsewhere or change the permissions",
    errno.ENOTDIR: "a part of this path is a file: choose another path",
}


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn a full, read-only or forbidden disk into an InputError that names `path`; pass on all else."""
    try:
        yield
    except OSError as error:
        if error.errno in _REASONS:
            raise InputError(f"{path} cannot be written, {_REASONS[error.errno]}") from error
        raise


def beside(path: Path) -> Path:
    """A hidden name in the same folder, for what is not whole yet."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.partial")


@contextmanager
def replacing(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Write a file or folder beside `path` and rename it when the block ends well.

    Yields
    ------
    Path
        Where to write; it does not exist yet. It is removed if the block fails.

    Raises
    ------
    InputError
        If `path` exists and `overwrite` is false or it is a folder where a file is written, or the reverse;
        or if the disk is full or cannot be written.
    """
    if path.exists() and not overwrite:
        raise InputError(f"{path} exists: choose another name or give --overwrite")
    partial = beside(path)
    old: Path | None = None
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield partial
            if path.exists() and path.is_dir() != partial.is_dir():
                kind = "folder" if path.is_dir() else "file"
                raise InputError(f"{path} is a {kind} and is not replaced: choose another name")
            if path.is_dir():  # a folder cannot be replaced in one step
                old = path.rename(beside(path))
            partial.replace(path)
        except BaseException:
            if old is not None and not path.exists():
                old.rename(path)
            remove(partial)
            raise
    if old is not None:
        remove(old)


def write_json(path: Path, content: Any) -> None:
    """Write or replace a JSON file, whole or not at all."""
    with replacing(path, overwrite=True) as partial:
        partial.write_text(json.dumps(content, indent=1), encoding="utf-8")


def remove(path: Path) -> None:
    """Delete a file or folder if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
