"""The content of an address of task data, wherever it is: in Label Studio, elsewhere, in the task, in this server."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

from ls_backend.errors import BusyError
from ls_backend.studio.client import LabelStudio
from ls_backend.studio.data_urls import decode_data_url, is_data_url
from ls_backend.volumes.planes import plane_pixels
from sam2_core.volume.planes import PlaneSource

FRESH_SECONDS = 60.0
"""After this time a file is asked for again, by its tag if it has one."""

LASTING_SECONDS = 3600.0
"""The same for files that never change under their address."""

LocalPlanes = Callable[[str], tuple[PlaneSource, int] | None]
"""Gives the planes, and which of them, that this server itself shows at an address; None for every other address."""

_DOWNLOADS = 8  # at a time


@dataclass(frozen=True)
class Content:
    """What was read.

    Parameters
    ----------
    unchanged : bool
        It is still what has the tag that was asked about; nothing was written.
    etag : str or None
        Its tag, to ask with next time.
    until : float
        How long it counts as unchanged, on the clock of `time.monotonic`.
    """

    unchanged: bool
    etag: str | None
    until: float


class Contents:
    """Reads what is at addresses.

    Parameters
    ----------
    client : LabelStudio
    local : callable, optional
    """

    def __init__(self, client: LabelStudio, local: LocalPlanes | None = None) -> None:
        self._client = client
        self._local = local
        self._downloads = asyncio.Semaphore(_DOWNLOADS)

    def key(self, address: str, task: int | None) -> str:
        """What tells addresses apart; short, also for images that are in the address."""
        address = address.strip()
        if is_data_url(address):
            return f"data:{hashlib.sha256(address.encode()).hexdigest()}"
        # the same address in a cloud may be in the storage of one project and not of another
        return address if address.startswith(("/", "http")) else f"{address}\n{task}"

    async def read(
        self,
        address: str,
        into: BinaryIO,
        limit_bytes: int,
        task: int | None = None,
        etag: str | None = None,
        seconds: float = 60.0,
    ) -> Content:
        """Write what is at an address into `into`; see `Downloads.fetch`.

        Raises
        ------
        RequestError
            It is not fetched, not there, or too large.
        """
        now = time.monotonic()
        try:
            if is_data_url(address):
                into.write(await asyncio.to_thread(decode_data_url, address, limit_bytes))
                return Content(False, None, float("inf"))
            if self._local is not None and await asyncio.to_thread(_write_plane, self._local, address, into):
                return Content(False, None, now + FRESH_SECONDS)
            lasting = self._client.policy.target(address, task).lasting
            async with self._downloads:
                fetched = await self._client.download(address, into, limit_bytes, task=task, etag=etag, seconds=seconds)
        except OSError as error:
            why = error.strerror or type(error).__name__
            raise BusyError(f"the server cannot keep the file ({why}): make room on its disk", retry_after=60) from None
        return Content(fetched.unchanged, fetched.etag, now + (LASTING_SECONDS if lasting else FRESH_SECONDS))


def _write_plane(local: LocalPlanes, address: str, into: BinaryIO) -> bool:
    """Write the plane that this server itself shows at an address, as an image file; False if it shows none there."""
    from PIL import Image

    found = local(address)
    if found is not None:
        Image.fromarray(plane_pixels(*found)).save(into, "BMP")  # nothing is gained by compressing it
    return found is not None
