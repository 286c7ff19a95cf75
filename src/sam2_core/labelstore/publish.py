"""How files come into a store: written apart, then renamed into place as one folder that nothing ever changes.

Renaming a folder to a name that is taken by a folder with something in it fails on every file system, local or
shared. So of two writers that want the same name exactly one gets it, without locks, and whoever is killed leaves
nothing but a folder below incoming/.
"""

from __future__ import annotations

import errno
import hashlib
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sam2_core.volume.files import disk_errors, remove

INCOMING = "incoming"
_TAKEN = (errno.EEXIST, errno.ENOTEMPTY)


@contextmanager
def incoming(store: Path) -> Iterator[Path]:
    """A new folder to write into; what is still there at the end is removed."""
    folder = store / INCOMING / uuid.uuid4().hex
    with disk_errors(folder):
        folder.mkdir(parents=True)
        try:
            yield folder
        finally:
            remove(folder)


def publish(folder: Path, target: Path) -> bool:
    """Rename a folder that is not empty to `target`; False if that name is taken."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.rename(folder, target)
    except OSError as error:
        if error.errno in _TAKEN:
            return False
        raise
    return True


def version_name(number: int) -> str:
    """Folder of a version: v000001 and so on."""
    return f"v{number:06d}"


def versions(folder: Path) -> list[int]:
    """Numbers of the versions in a folder, ascending."""
    if not folder.is_dir():
        return []
    names = (entry.name for entry in os.scandir(folder))
    return sorted(int(name[1:]) for name in names if name.startswith("v") and name[1:].isdecimal())


def digest_of(path: Path, leave_out: tuple[str, ...] = ()) -> str:
    """SHA-256 of a file; of a folder, over the names and digests of all files in it.

    Folders directly below `path` whose name is in `leave_out` do not count, nor do hidden files.
    """
    if path.is_file():
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    whole = hashlib.sha256()
    for file in sorted(_files(path, leave_out)):
        whole.update(f"{file.relative_to(path).as_posix()}\0{digest_of(file)}\n".encode())
    return whole.hexdigest()


def _files(folder: Path, leave_out: tuple[str, ...]) -> Iterator[Path]:
    for entry in os.scandir(folder):
        if entry.is_dir():
            if entry.name not in leave_out:
                yield from _files(Path(entry.path), ())
        # zarr's own .zattrs, .zarray and .zgroup are hidden files that count
        elif not entry.name.startswith(".") or entry.name.startswith(".z"):
            yield Path(entry.path)
