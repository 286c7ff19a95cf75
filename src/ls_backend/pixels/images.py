"""The images, stacks and videos that tasks name, as pixels."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO, cast

import httpx
import numpy as np

from ls_backend.pixels.decoding import decode_image, image_key, image_window, to_uint8
from ls_backend.pixels.file_kinds import HEAD_BYTES, kind_of
from ls_backend.pixels.stack_frames import RawImage, StackFrames, open_stack
from ls_backend.pixels.video_clip import VideoClip, VideoFile
from ls_backend.regions.label_config import DEFAULT_FRAMERATE
from ls_backend.studio.address_cache import AddressCache
from ls_backend.studio.client import LabelStudio
from ls_backend.studio.contents import Contents, LocalPlanes

MEMORY_BYTES = 256 * 2**20
"""Default bound of the decoded images that are kept."""

DISK_BYTES = 4 * 2**30
"""Default bound of the videos that are kept."""

_PREFIX = "sam2-label-studio-"  # of the temporary files
_STACK_SHARE = 4  # the part of the memory, one of so many, that is for images of stacks: a long one must not fill it
_VIDEO_SECONDS = 600.0
_MAX_VIDEOS = 32  # kept, however small


@dataclass(frozen=True)
class ImageLimits:
    """The largest files that are fetched, and the most pixels of an image or a frame."""

    bytes: int = 64 * 2**20
    pixels: int = 100_000_000
    video_bytes: int = 2**30


@dataclass(frozen=True, eq=False)
class LoadedImage:
    """An image as the browser shows it.

    Parameters
    ----------
    key : str
        Tells it from every other: of the file's content and of how it became pixels.
    pixels : ndarray, (H, W) or (H, W, 3), uint8
        Turned as the EXIF data say.
    """

    key: str
    pixels: np.ndarray

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.pixels.shape[0], self.pixels.shape[1]


class Images:
    """Fetches and decodes what tasks name, once for all who want it. Used from one event loop.

    All methods take the address as the task has it, and the task's number, which addresses of cloud storages need.

    Parameters
    ----------
    client : LabelStudio
    limits : ImageLimits
    memory_bytes : int
        Bound of the decoded images that are kept; the newest always is.
    local : callable, optional
        Gives the frames and the number of a plane that this server itself shows at an address; None for others.
    folder : Path, optional
        For temporary files; what an earlier server left there is removed. By default the system's own.
    disk_bytes : int
        Bound of the videos that are kept; the newest always is.
    """

    def __init__(
        self,
        client: LabelStudio,
        limits: ImageLimits = ImageLimits(),
        memory_bytes: int = MEMORY_BYTES,
        local: LocalPlanes | None = None,
        folder: Path | None = None,
        disk_bytes: int = DISK_BYTES,
    ) -> None:
        self._limits = limits
        self._folder = folder
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            for left in folder.glob(f"{_PREFIX}*"):
                left.unlink(missing_ok=True)
        self._contents = Contents(client, local)
        share = memory_bytes // _STACK_SHARE
        self._images: AddressCache[LoadedImage] = AddressCache(
            self._contents, self._loaded, lambda image: image.pixels.nbytes, memory_bytes - share, limits.bytes
        )
        self._frames: AddressCache[RawImage] = AddressCache(
            self._contents, self._raw, lambda image: image.pixels.nbytes, share, limits.bytes
        )
        self._videos: AddressCache[VideoFile] = AddressCache(
            self._contents,
            lambda file, digest: VideoFile(file, digest, limits.pixels),
            lambda video: max(video.bytes, disk_bytes // _MAX_VIDEOS),
            disk_bytes,
            limits.video_bytes,
            self._new_file,
            _VIDEO_SECONDS,
        )

    @property
    def used_bytes(self) -> int:
        """Bytes of the decoded images that are kept."""
        return self._images.used_bytes + self._frames.used_bytes

    async def image(self, address: str, task: int | None = None) -> LoadedImage:
        """The image at an address.

        Raises
        ------
        RequestError
            It is not fetched, not there, too large, no image or damaged.
        """
        return await self._images.get(address, task)

    async def stack(self, addresses: Sequence[str], task: int | None = None) -> StackFrames:
        """A stack of images, of which the first is fetched. Raises as `image` does."""
        return await open_stack(addresses, self._frames, task)

    async def video(self, address: str, framerate: float = DEFAULT_FRAMERATE, task: int | None = None) -> VideoClip:
        """The video at an address, with the frames that Label Studio counts at a frame rate. Raises as `image` does."""
        return VideoClip(await self._videos.get(address, task), framerate)

    async def fetch_original(self, address: str, task: int | None = None) -> tuple[str, Path]:
        """The file at an address as it is, and its usual suffix, such as ".png"; whoever asked deletes it.

        Raises
        ------
        RequestError
            It is not fetched, not there, or larger than a video may be.
        """
        handle, name = await asyncio.to_thread(tempfile.mkstemp, prefix=_PREFIX, dir=self._folder)
        try:
            with os.fdopen(handle, "w+b") as file:
                await self._contents.read(address, file, self._limits.video_bytes, task, seconds=_VIDEO_SECONDS)
                file.seek(0)
                head = file.read(HEAD_BYTES)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        suffix = kind_of(head) or _suffix(address)
        return suffix, Path(name).rename(name + suffix)

    async def close(self) -> None:
        """Stop what is being fetched, and delete the videos that nobody uses any more."""
        for cache in (self._images, self._frames, self._videos):
            await cache.close()

    def _loaded(self, file: BinaryIO, digest: str) -> LoadedImage:
        raw = decode_image(file.read(), self._limits.pixels)
        window = image_window(raw)
        return LoadedImage(image_key(digest, window), to_uint8(raw, window))

    def _raw(self, file: BinaryIO, digest: str) -> RawImage:
        return RawImage(decode_image(file.read(), self._limits.pixels), digest)

    def _new_file(self) -> BinaryIO:
        return cast(BinaryIO, tempfile.NamedTemporaryFile(prefix=_PREFIX, dir=self._folder))


def _suffix(address: str) -> str:
    """The suffix that an address gives its file, empty if it is none to trust."""
    try:
        suffix = PurePosixPath(httpx.URL(address).path).suffix.lower()
    except (httpx.InvalidURL, ValueError):
        return ""
    return suffix if suffix[1:].isalnum() and suffix.isascii() and len(suffix) <= 6 else ""
