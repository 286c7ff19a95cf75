"""Embeddings that are computed once: the most recent in memory, more of them in a folder on disk.

One cache serves any number of models, images and threads. It knows an embedding by the model, the image (both as texts
that their owners choose) and the frame.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from sam2_core.predict.embedding_files import EmbeddingFolder
from sam2_core.weights.table import cache_dir

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from sam2_core.model.sam2 import ImageEmbedding, SAM2Base

MEMORY_BYTES = 2**30
"""Default bound of what a cache holds in memory."""

DISK_BYTES = 10 * 2**30
"""Default bound of what it holds on disk."""

_SETTINGS = (bool, int, float, str, tuple, list)  # of a module, beside its parts

VERSION = 1
"""Part of every key: to be raised when the same model and image come to give another embedding."""


class EmbeddingCache:
    """Embeddings of many images, the least recently used of which are forgotten. Safe to use from several threads.

    float32 is kept as float16: masks stay the same to within a pixel, and twice as many embeddings fit.

    Parameters
    ----------
    folder : Path, optional
        For what memory does not keep, and for later processes; see `embeddings_dir`. Processes may share it. A damaged
        file counts as missing, and where the folder cannot be written one warning says so. None for memory alone.
    memory_bytes, disk_bytes : int
        Bounds of what is kept.
    """

    def __init__(
        self, folder: str | os.PathLike | None, memory_bytes: int = MEMORY_BYTES, disk_bytes: int = DISK_BYTES
    ) -> None:
        self.memory_bytes = memory_bytes
        self._folder = None if folder is None else EmbeddingFolder(Path(folder).expanduser(), disk_bytes)
        self._memory: OrderedDict[str, ImageEmbedding] = OrderedDict()
        self._used = 0
        self._lock = threading.Lock()
        self._claims: WeakValueDictionary[str, threading.Lock] = WeakValueDictionary()

    def of(self, model_key: str, source_key: str, read_only: bool = False) -> SourceEmbeddings:
        """The embeddings of one source of frames.

        Parameters
        ----------
        model_key : str
            Tells models apart, as `SAM2VideoPredictor.embedding_key` does.
        source_key : str
            Tells images apart, and what is shown of them: level, channels, windows.
        read_only : bool
            Use what is there and keep nothing, as for a pass over a whole volume.
        """
        return SourceEmbeddings(self, f"{VERSION}\n{model_key}\n{source_key}", read_only)

    # What follows serves `SourceEmbeddings`; embeddings are as `pack` gives them.

    def holds(self, key: str) -> bool:
        """Whether there is an embedding, without reading it."""
        with self._lock:
            if key in self._memory:
                return True
        return self._folder is not None and key in self._folder

    def read(self, key: str, keep: bool = True) -> ImageEmbedding | None:
        """The embedding if there is one; `keep` it in memory if it was on disk."""
        with self._lock:
            if key in self._memory:
                self._memory.move_to_end(key)
                return self._memory[key]
        packed = None if self._folder is None else self._folder.read(key)
        if packed is not None and keep:
            self._remember(key, packed)
        return packed

    def write(self, key: str, packed: ImageEmbedding) -> None:
        """Keep an embedding."""
        packed = _each(packed, lambda tensor: tensor.detach().cpu())
        self._remember(key, packed)
        if self._folder is not None:
            self._folder.write(key, packed)

    def claim(self, key: str) -> threading.Lock:
        """Held by the thread that computes this embedding, for others to wait for it."""
        with self._lock:
            return self._claims.setdefault(key, threading.Lock())

    def _remember(self, key: str, packed: ImageEmbedding) -> None:
        with self._lock:
            if key in self._memory:
                self._used -= _bytes(self._memory.pop(key))
            self._memory[key] = packed
            self._used += _bytes(packed)
            while self._used > self.memory_bytes:
                self._used -= _bytes(self._memory.popitem(last=False)[1])


@dataclass(frozen=True)
class SourceEmbeddings:
    """What a cache holds of one source, by frame; made by `EmbeddingCache.of`."""

    cache: EmbeddingCache
    source: str
    read_only: bool = False

    def __contains__(self, frame: int) -> bool:
        return self.cache.holds(self._key(frame))

    def get(self, frame: int, device: torch.device | str = "cpu") -> ImageEmbedding | None:
        """The embedding of a frame, on a device; None if the cache has none."""
        packed = self.cache.read(self._key(frame), keep=not self.read_only)
        return None if packed is None else unpack(packed, device)

    def put(self, frame: int, embedding: ImageEmbedding) -> None:
        """Keep the embedding of a frame, unless `read_only`."""
        if not self.read_only:
            self.cache.write(self._key(frame), pack(embedding))

    def find(
        self, frame: int, compute: Callable[[], ImageEmbedding], device: torch.device | str = "cpu", keep: bool = True
    ) -> tuple[ImageEmbedding, bool]:
        """The embedding of a frame, computed by one thread only if several ask for it.

        Parameters
        ----------
        frame : int
        compute : callable
            Gives the embedding if the cache has none.
        device : torch.device or str
            Where the result is to be.
        keep : bool
            Keep what was not in memory, unless `read_only`.

        Returns
        -------
        embedding : ImageEmbedding
            Rounded as the cache does, also when it was computed, so that masks do not depend on what was kept.
        computed : bool
            Whether it had to be computed.
        """
        key, keep = self._key(frame), keep and not self.read_only
        with self.cache.claim(key):
            packed = self.cache.read(key, keep)
            computed = packed is None
            if packed is None:
                packed = pack(compute())
                if keep:
                    self.cache.write(key, packed)
        return unpack(packed, device), computed

    def _key(self, frame: int) -> str:
        return hashlib.sha256(f"{self.source}\n{frame}".encode()).hexdigest()


def embeddings_dir() -> Path:
    """Folder of embeddings for a user: SAM2_EMBEDDINGS_CACHE, or a folder in that of downloaded checkpoints."""
    chosen = os.environ.get("SAM2_EMBEDDINGS_CACHE")
    return Path(chosen).expanduser() if chosen else cache_dir() / "embeddings"


def model_key(model: SAM2Base) -> str:
    """Digest of all that decides a model's embeddings: weights and settings of its image encoder, and the input size.

    Models that differ in nothing but the decoder or the memory share their embeddings.
    """
    import torch

    digest = hashlib.sha256(f"{model.image_size} {model.use_high_res_features_in_sam}".encode())
    decoder = model.sam_mask_decoder
    parts: list[nn.Module] = [model.image_encoder]
    if model.use_high_res_features_in_sam:
        parts += [decoder.conv_s0, decoder.conv_s1]
    for part in parts:
        for name, module in part.named_modules():
            # two configs can have weights of the same shapes, and differ in the size of their windows
            settings = {k: v for k, v in vars(module).items() if k[0] != "_" and isinstance(v, _SETTINGS)}
            settings.pop("training")
            digest.update(f"{name} {type(module).__name__} {sorted(settings.items())}".encode())
        for name, value in part.state_dict().items():
            digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def pack(embedding: ImageEmbedding) -> ImageEmbedding:
    """An embedding as it is kept: float16 instead of float32 where its values allow, in one layout."""
    import torch

    def packed(tensor: Tensor) -> Tensor:
        half = tensor.to(torch.float16) if tensor.dtype == torch.float32 else tensor
        return (half if half.isfinite().all() else tensor).contiguous()

    return _each(embedding, packed)


def unpack(packed: ImageEmbedding, device: torch.device | str = "cpu") -> ImageEmbedding:
    """The embedding on a device, float32 where it was."""
    import torch

    def unpacked(tensor: Tensor) -> Tensor:
        there = tensor.to(device)
        return there.float() if there.dtype == torch.float16 else there

    return _each(packed, unpacked)


def _each(embedding: ImageEmbedding, change: Callable[[Tensor], Tensor]) -> ImageEmbedding:
    from sam2_core.model.sam2 import ImageEmbedding

    high_res = embedding.high_res
    return ImageEmbedding(
        change(embedding.features), None if high_res is None else (change(high_res[0]), change(high_res[1]))
    )


def _bytes(packed: ImageEmbedding) -> int:
    return sum(tensor.nbytes for tensor in (packed.features, *(packed.high_res or ())))
