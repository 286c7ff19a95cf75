"""The endpoint from which browsers get the planes of volumes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Header, Path, Response

from ls_backend.volumes.planes import TOKEN, PlaneAddresses, PlaneReader
from sam2_core.volume.planes import PlaneSource

# The address itself is what lets someone see a plane, no cookie is: so pages of any origin may read it, and Label
# Studio, which fetches images by script and paints them on canvases, has to be one of them, whatever its name is.
_HEADERS = {
    "Access-Control-Allow-Origin": "*",
    "Cross-Origin-Resource-Policy": "cross-origin",
    "Cache-Control": "private, max-age=3600",
    "X-Content-Type-Options": "nosniff",
}

_READ_AT_ONCE = 2
"""Planes; a browser asks for those of a whole stack, and other requests need threads, too."""


class PlaneRoutes:
    """Serves planes; `router` holds the endpoint.

    Parameters
    ----------
    key : bytes
        Signs the addresses.
    folders : sequence of path
        Only volumes below them are shown.
    url : str
        Where browsers find the server.
    """

    def __init__(self, key: bytes, folders: Sequence[str | os.PathLike], url: str) -> None:
        self.addresses = PlaneAddresses(key, url)
        self._reader = PlaneReader(self.addresses, folders)
        self._reading = asyncio.Semaphore(_READ_AT_ONCE)
        self.router = APIRouter()
        self.router.add_api_route(
            "/planes/{token}/{index}.png",
            self._plane,
            response_class=Response,
            responses={200: {"content": {"image/png": {}}}, 304: {"description": "The browser has it already."}},
            name="plane",
        )

    def local_plane(self, address: str) -> tuple[PlaneSource, int] | None:
        """The source and the index of a plane by its address, see `PlaneReader.local_plane`."""
        return self._reader.local_plane(address)

    async def _plane(
        self,
        token: Annotated[str, Path(pattern=f"^{TOKEN}$")],
        index: Annotated[int, Path(ge=0, lt=10**9)],
        if_none_match: Annotated[str | None, Header()] = None,
    ) -> Response:
        """One plane of a volume, as PNG."""
        async with self._reading:
            picture = await asyncio.to_thread(self._reader.picture, token, index)
        headers = {**_HEADERS, "ETag": picture.etag}
        if if_none_match is not None and picture.etag in if_none_match:
            return Response(status_code=304, headers=headers)
        return Response(picture.content, media_type="image/png", headers=headers)
