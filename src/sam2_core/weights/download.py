"""Download a checkpoint: resumed where it broke off, verified, and never half there under its own name."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from sam2_core.errors import InputError
from sam2_core.weights.table import Checkpoint

if TYPE_CHECKING:
    import requests

CHUNK = 1 << 18
TIMEOUT = (10, 60)  # seconds to connect, and of silence


def download(checkpoint: Checkpoint, progress: bool = True) -> Path:
    """Fetch a checkpoint into the cache, unless it is there already.

    The bytes gather in ``NAME.part``, which a later call continues; the file gets its own name only when its size
    and SHA-256 are right. Of several processes that want the same file one downloads and the others wait.

    Parameters
    ----------
    checkpoint : Checkpoint
        An entry of the table.
    progress : bool
        Show a progress bar when standard error is a terminal.

    Returns
    -------
    Path
        The complete, verified file.

    Raises
    ------
    InputError
        The server cannot be reached or refuses, the file is not the one expected, or the cache cannot be written
        or is full.
    """
    path = checkpoint.path
    if checkpoint.url is None or path.exists():
        return existing(checkpoint)
    from filelock import FileLock

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(path.name + ".lock")):
            if not path.exists():
                _complete(checkpoint, checkpoint.part, progress)
    except OSError as error:
        raise InputError(
            f"cannot write {checkpoint.filename} to {path.parent} ({error.strerror or error}): make room or give it "
            "write permission, or set SAM2_CACHE_DIR to another folder"
        ) from error
    return path


def existing(checkpoint: Checkpoint) -> Path:
    """The path of a checkpoint that should be on disk.

    Raises
    ------
    InputError
        It is not there, or its size is not the one known.
    """
    path = checkpoint.path
    if not path.is_file():
        if checkpoint.bundled:
            raise InputError(f"{checkpoint.filename} is missing from the package: install napari-sam2 again")
        if checkpoint.is_own:
            raise InputError(f"{path} is gone: run sam2 models add FILE --name {checkpoint.name} --force")
        raise InputError(f"{checkpoint.name} is not downloaded: run sam2 models download {checkpoint.name}")
    size = path.stat().st_size
    if checkpoint.bytes is not None and size != checkpoint.bytes:
        raise InputError(
            f"{path} has {size} bytes, {checkpoint.name} has {checkpoint.bytes}: delete it and run "
            f"sam2 models download {checkpoint.name}"
        )
    return path


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _complete(checkpoint: Checkpoint, part: Path, progress: bool) -> None:
    """Bring the partial file to its end, verify it and give it its name."""
    resumed = _size(part) > 0
    _fetch_all(checkpoint, part, progress)
    fault = _fault(checkpoint, part)
    if fault and resumed:  # the beginning may be of another file: once more, from nothing
        part.unlink()
        _fetch_all(checkpoint, part, progress)
        fault = _fault(checkpoint, part)
    if fault:
        part.unlink()
        raise InputError(
            f"{checkpoint.url} is not the {checkpoint.name} that was published ({fault}), and was removed: try again, "
            f"or save the right file as {checkpoint.path}"
        )
    os.replace(part, checkpoint.path)


def _fetch_all(checkpoint: Checkpoint, part: Path, progress: bool) -> None:
    """Request the file until it is all there, as long as every request brings some of it."""
    import requests

    while True:
        before = _size(part)
        try:
            _fetch(checkpoint, part, progress)
            return
        except requests.RequestException as error:
            if _size(part) <= before:
                raise InputError(_unreachable(checkpoint, _reason(error))) from error


def _fetch(checkpoint: Checkpoint, part: Path, progress: bool) -> None:
    """One request for what is missing, appended to the partial file."""
    import requests
    from tqdm import tqdm

    done, total = _size(part), checkpoint.bytes
    if total is not None and done > total:
        part.unlink()
        done = 0
    if done and done == total:
        return
    headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={done}-"} if done else {})}
    assert checkpoint.url is not None
    with requests.get(checkpoint.url, headers=headers, stream=True, timeout=TIMEOUT) as response:
        if response.status_code == 416:  # nothing after what is here: complete, or not this file's beginning
            if _total(response) != done:
                part.unlink()
                _fetch(checkpoint, part, progress)
            return
        response.raise_for_status()
        if response.status_code != 206 or not _starts_at(response, done):
            done = 0
        total = total or done + int(response.headers.get("Content-Length", 0)) or None
        free = shutil.disk_usage(part.parent).free
        if total is not None and total - done > free:
            raise InputError(
                f"{checkpoint.name} needs {(total - done) / 1e6:.0f} MB more in {part.parent}, where "
                f"{free / 1e6:.0f} MB are free: make room, or set SAM2_CACHE_DIR to another folder"
            )
        with (
            part.open("ab" if done else "wb") as file,
            tqdm(
                desc=checkpoint.name,
                total=total,
                initial=done,
                unit="B",
                unit_scale=True,
                disable=None if progress else True,
            ) as bar,
        ):
            response.raw.enforce_content_length = False  # keep the bytes of a short answer; it is noticed below
            for chunk in response.iter_content(CHUNK):
                file.write(chunk)
                bar.update(len(chunk))
            file.flush()
            os.fsync(file.fileno())
    if total is not None and _size(part) < total:
        raise requests.ConnectionError("the connection closed before the end")


def _fault(checkpoint: Checkpoint, part: Path) -> str | None:
    """What is wrong with a finished download, if anything."""
    size = _size(part)
    if checkpoint.bytes is not None and size != checkpoint.bytes:
        return f"{size} bytes instead of {checkpoint.bytes}"
    if checkpoint.sha256 is not None and (digest := sha256_of(part)) != checkpoint.sha256:
        return f"its SHA-256 is {digest}"
    return None


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _total(response: requests.Response) -> int | None:
    """The file's size from ``Content-Range: bytes 5-9/10`` or ``bytes */10``."""
    end = response.headers.get("Content-Range", "").rpartition("/")[2]
    return int(end) if end.isdigit() else None


def _starts_at(response: requests.Response, offset: int) -> bool:
    return response.headers.get("Content-Range", "").startswith(f"bytes {offset}-")


def _reason(error: requests.RequestException) -> str:
    if error.response is not None:
        return f"the server answered {error.response.status_code} {error.response.reason}".rstrip()
    known = {
        "ChunkedEncodingError": "the connection broke off",
        "ConnectTimeout": "no answer",
        "ConnectionError": "no connection",
        "ReadTimeout": "no answer",
        "SSLError": "no trusted connection",
    }
    return known.get(type(error).__name__, str(error))


def _unreachable(checkpoint: Checkpoint, reason: str) -> str:
    return (
        f"cannot download {checkpoint.name} ({reason}): fetch {checkpoint.url} where there is a network and save it "
        f"as {checkpoint.path}"
    )
