"""Embeddings in a folder, one safetensors file each; the least recently used go where they take up too much room.

Several processes may share a folder: a file is written beside its place and renamed. Its time is that of its last use.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
import uuid
import warnings
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from sam2_core.model.sam2 import ImageEmbedding

RECOUNT_EVERY = 64
"""Files written between two looks at what other processes wrote."""

KEPT_SHARE = 0.9
"""Part of the bound that stays when files have to go, so that they do not go one by one."""

ABANDONED_AFTER = 3600.0
"""Seconds after which an unfinished file is one that a killed process left."""

SUFFIX, PARTIAL = ".safetensors", ".partial"


class EmbeddingFolder:
    """Embeddings by key, on disk. Safe to use from several threads.

    Parameters
    ----------
    folder : Path
        Made when the first file is written.
    limit : int
        Bytes that the files may take up; other processes' latest files may come on top of it.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder = folder
        self.limit = limit
        self._lock = threading.Lock()
        self._used = 0
        self._uncounted = RECOUNT_EVERY  # the first file written makes it count what is there
        self._writable = True

    def __contains__(self, key: str) -> bool:
        return os.path.isfile(self._path(key))

    def read(self, key: str) -> ImageEmbedding | None:
        """The embedding; None if there is none, or its file is damaged."""
        from safetensors import SafetensorError
        from safetensors.torch import load

        from sam2_core.model.sam2 import ImageEmbedding

        path = self._path(key)
        try:
            tensors = load(path.read_bytes())
            checksum = int(tensors.pop("crc32"))
            high_res = (tensors["high_res_0"], tensors["high_res_1"]) if len(tensors) > 1 else None
            embedding = ImageEmbedding(tensors["features"], high_res)
        except (OSError, SafetensorError, KeyError, ValueError, RuntimeError):
            return None
        if checksum != _checksum(tensors):
            return None
        with contextlib.suppress(OSError):  # a folder that can only be read
            os.utime(path)
        return embedding

    def write(self, key: str, embedding: ImageEmbedding) -> None:
        """Keep an embedding; where the disk does not take it, warn once and write nothing more."""
        import torch
        from safetensors.torch import save

        if not self._writable:
            return
        tensors = {"features": embedding.features}
        if embedding.high_res is not None:
            tensors |= {"high_res_0": embedding.high_res[0], "high_res_1": embedding.high_res[1]}
        content = save({**tensors, "crc32": torch.tensor(_checksum(tensors))})
        path = self._path(key)
        partial = path.with_name(f".{uuid.uuid4().hex}{PARTIAL}")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                partial.write_bytes(content)
                os.replace(partial, path)
            finally:
                partial.unlink(missing_ok=True)
            self._count(len(content))
        except OSError as error:
            self._stop(error)

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}{SUFFIX}"

    def _count(self, written: int) -> None:
        with self._lock:
            self._used += written
            self._uncounted += 1
            if self._used > self.limit or self._uncounted > RECOUNT_EVERY:
                self._used, self._uncounted = self._make_room(), 0

    def _make_room(self) -> int:
        """Delete the files that were used longest ago if there are too many; the bytes of those that stay."""
        files = []
        with os.scandir(self.folder) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):  # another process may have deleted it
                    stat = entry.stat()
                    if entry.name.endswith(SUFFIX):
                        files.append((stat.st_mtime_ns, entry.path, stat.st_size))
                    elif entry.name.endswith(PARTIAL) and stat.st_mtime < time.time() - ABANDONED_AFTER:
                        os.unlink(entry.path)
        used = sum(size for _, _, size in files)
        if used > self.limit:
            for _, path, size in sorted(files):
                if used <= self.limit * KEPT_SHARE:
                    break
                with contextlib.suppress(OSError):  # the same
                    os.unlink(path)
                used -= size
        return used

    def _stop(self, error: OSError) -> None:
        with self._lock:
            first, self._writable = self._writable, False
        if first:
            warnings.warn(
                f"embeddings are no longer kept in {self.folder} ({error.strerror or error}): "
                "free some space there, or name another folder in SAM2_EMBEDDINGS_CACHE",
                stacklevel=2,
            )


def _checksum(tensors: dict[str, Tensor]) -> int:
    import torch

    value = 0
    for name in sorted(tensors):
        value = zlib.crc32(tensors[name].view(torch.uint8).numpy().data, value)
    return value
