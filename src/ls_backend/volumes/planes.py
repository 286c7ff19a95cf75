"""Planes of volumes as pictures for browsers, behind addresses that only this server can make.

An address ends in ``/planes/TOKEN/INDEX.png``. The token says which volume is shown and how, and is signed: whoever may
edit tasks in Label Studio can move planes about, but cannot make the server read anything else.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import io
import json
import os
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar
from urllib.parse import urlsplit

import numpy as np

from ls_backend.errors import NotFoundError
from sam2_core.errors import InputError
from sam2_core.volume.open import open_volume
from sam2_core.volume.planes import PlaneSource
from sam2_core.volume.volume import Volume
from sam2_core.volume.window import Window

TOKEN = r"[A-Za-z0-9_-]{1,4000}\.[A-Za-z0-9_-]{22}"
"""What a token looks like: its content and its signature."""

_ADDRESS = re.compile(rf"/planes/({TOKEN})/([0-9]{{1,9}})\.png")
_VERSION = 1
_SIGNATURE_BYTES = 16
_OPEN_VOLUMES = 8
_SOURCE_BYTES = 32 * 2**20  # raw planes kept for each open volume, so that a chunk is decoded once


@dataclass(frozen=True)
class PlaneSeries:
    """The planes of one volume along an axis, and how they are shown.

    Attributes
    ----------
    path : str
        The volume, absolute.
    axes : str or None
        Its axes as the user named them, where the file says nothing.
    level : int
        Resolution, 0 the finest.
    axis : str or None
        The planes lie across it; None for an image of one plane.
    fixed : tuple of (axis, position)
        Where the planes lie along the other axes.
    channels : tuple of int
        One, or up to three as red, green and blue.
    windows : tuple of (float, float)
        Intensities of black and white for each channel.
    expires : int or None
        Seconds since 1970 after which the planes are no longer shown.
    """

    path: str
    axes: str | None
    level: int
    axis: str | None
    fixed: tuple[tuple[str, int], ...]
    channels: tuple[int, ...]
    windows: tuple[tuple[float, float], ...]
    expires: int | None = None

    def open(self) -> Volume:
        """The volume.

        Raises
        ------
        InputError
            It is gone, or is not what it was.
        """
        return open_volume(self.path, axes=self.axes, level=self.level)

    def source(self) -> PlaneSource:
        """The planes as frames; errors as in `open`."""
        windows = [Window(low, high) for low, high in self.windows]
        return PlaneSource(
            self.open(),
            self.axis,
            fixed=dict(self.fixed),
            channel=self.channels,
            window=windows,
            cache_bytes=_SOURCE_BYTES,
        )


class PlaneAddresses:
    """Makes addresses of planes, and reads those that were made with the same key.

    Parameters
    ----------
    key : bytes
        Known to the server and to whoever puts volumes up, and to nobody else.
    url : str
        Where browsers find the server.
    """

    def __init__(self, key: bytes, url: str) -> None:
        self._key = hashlib.sha256(b"planes\0" + key).digest()
        self._url = url.rstrip("/")

    def make(self, series: PlaneSeries, indices: Iterable[int]) -> list[str]:
        """The addresses of some planes of a series."""
        token = self.token(series)
        return [f"{self._url}/planes/{token}/{index}.png" for index in indices]

    def token(self, series: PlaneSeries) -> str:
        """What stands for a series in addresses."""
        content = _encode(json.dumps(_packed(series), separators=(",", ":")).encode())
        return f"{content}.{self._signature(content)}"

    def read(self, address: str) -> tuple[PlaneSeries, int] | None:
        """The series and the plane that an address names, whether it has expired or not; None if it is not ours.

        Only the end of an address is looked at: the server may have been known by another name.
        """
        try:
            found = _ADDRESS.fullmatch(_end_of(urlsplit(address).path))
        except ValueError:
            return None
        series = self.series(found[1]) if found else None
        return None if series is None or found is None else (series, int(found[2]))

    def series(self, token: str) -> PlaneSeries | None:
        """The series of a token; None if it was not made with this key."""
        content, _, signature = token.partition(".")
        if not hmac.compare_digest(signature.encode(), self._signature(content).encode()):
            return None
        try:
            return _unpacked(json.loads(_decode(content)))
        except (ValueError, KeyError, TypeError, binascii.Error):
            return None  # of another release

    def _signature(self, content: str) -> str:
        return _encode(hmac.digest(self._key, content.encode(), "sha256")[:_SIGNATURE_BYTES])


@dataclass(frozen=True)
class Picture:
    """A plane as a PNG file, and the tag by which a browser knows that it has it already."""

    content: bytes
    etag: str


class PlaneReader:
    """Reads planes for those who have their addresses. Safe to use from several threads.

    Parameters
    ----------
    addresses : PlaneAddresses
    folders : sequence of path
        Only volumes below them are read.
    cache_bytes : int
        Bound on the pictures kept.

    Raises
    ------
    InputError
        One of the folders is not there.
    """

    def __init__(
        self, addresses: PlaneAddresses, folders: Sequence[str | os.PathLike], *, cache_bytes: int = 64 * 2**20
    ) -> None:
        self.addresses = addresses
        self._folders = [Path(folder).expanduser().resolve() for folder in folders]
        for folder in self._folders:
            if not folder.is_dir():
                raise InputError(f"there is no folder {folder}, whose volumes should be shown: correct --volumes")
        self._sources: _Recent[PlaneSource] = _Recent(_OPEN_VOLUMES)
        self._pictures: _Recent[Picture] = _Recent(cache_bytes)
        self._opening = threading.Lock()

    def local_plane(self, address: str) -> tuple[PlaneSource, int] | None:
        """The source and the index of a plane by its address; None if the address is not of a plane of ours.

        Raises
        ------
        NotFoundError
            The address has expired, or its volume is not there or not to be shown.
        InputError
            The volume is damaged.
        """
        found = self.addresses.read(address)
        if found is None:
            return None
        series, index = found
        source, _ = self._source(series)
        _check_plane(source, index)
        return source, index

    def picture(self, token: str, index: int) -> Picture:
        """A plane as PNG, 8 bits a channel; errors as in `local_plane`."""
        series = self.addresses.series(token)
        if series is None:
            raise NotFoundError(
                "there is no such plane: the address was not made by this server, but with other records (--labels,"
                " --state)"
            )
        source, state = self._source(series)
        _check_plane(source, index)
        picture = self._pictures.get((series, state, index))
        if picture is None:
            content = _png(plane_pixels(source, index))
            picture = Picture(content, f'"{hashlib.sha256(content).hexdigest()[:32]}"')
            self._pictures.put((series, state, index), picture, len(content))
        return picture

    def _source(self, series: PlaneSeries) -> tuple[PlaneSource, Hashable]:
        """An open source, and what tells that the volume was replaced since."""
        if series.expires is not None and series.expires < time.time():
            raise NotFoundError("the address of this plane has expired: put the volume up anew")
        path = Path(series.path)
        try:
            real = path.resolve(strict=True)
            status = real.stat()
        except (OSError, RuntimeError):
            raise NotFoundError(f"the volume {path.name} is gone: put it back where it was") from None
        if not any(real.is_relative_to(folder) for folder in self._folders):
            raise NotFoundError(
                f"the volume {path.name} is in no folder that this server shows: start it with --volumes FOLDER"
            )
        state = status.st_ino, status.st_mtime_ns
        with self._opening:
            source = self._sources.get((series, state))
            if source is None:
                source = series.source()
                self._sources.put((series, state), source, 1)
        return source, state


def plane_pixels(source: PlaneSource, index: int) -> np.ndarray:
    """A plane as it is shown: uint8, (H, W) or (H, W, 3)."""
    frame = source.frame(index)
    return frame if frame.dtype == np.uint8 else np.rint(frame * 255).astype(np.uint8)


def _check_plane(source: PlaneSource, index: int) -> None:
    if not 0 <= index < len(source):
        raise NotFoundError(f"{source.volume.name} has {len(source)} planes, there is none with the number {index}")


def _png(pixels: np.ndarray) -> bytes:
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", compress_level=2)  # fast; the way to the browser is usually short
    return stream.getvalue()


def _end_of(path: str) -> str:
    return path[max(path.rfind("/planes/"), 0) :]


def _packed(series: PlaneSeries) -> list[Any]:
    """A series as JSON; short, since it is in every address."""
    s = series
    return [_VERSION, s.path, s.axes, s.level, s.axis, dict(s.fixed), s.channels, s.windows, s.expires]


def _unpacked(content: list[Any]) -> PlaneSeries:
    version, path, axes, level, axis, fixed, channels, windows, expires = content
    if version != _VERSION:
        raise ValueError(version)
    return PlaneSeries(
        path=path,
        axes=axes,
        level=level,
        axis=axis,
        fixed=_pairs(fixed),
        channels=tuple(channels),
        windows=tuple((float(low), float(high)) for low, high in windows),
        expires=expires,
    )


def _pairs(fixed: Mapping[str, int]) -> tuple[tuple[str, int], ...]:
    return tuple((axis, int(position)) for axis, position in fixed.items())


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


_T = TypeVar("_T")


class _Recent(Generic[_T]):
    """What was used last, up to a total weight."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept: OrderedDict[Hashable, tuple[_T, int]] = OrderedDict()
        self._weight = 0
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> _T | None:
        with self._lock:
            if key not in self._kept:
                return None
            self._kept.move_to_end(key)
            return self._kept[key][0]

    def put(self, key: Hashable, value: _T, weight: int) -> None:
        with self._lock:
            _, before = self._kept.pop(key, (None, 0))
            self._kept[key] = value, weight
            self._weight += weight - before
            while self._weight > self._limit and self._kept:
                self._weight -= self._kept.popitem(last=False)[1][1]
