"""Files that task data name, fetched as the policy of addresses allows: streamed, bounded, redirected by hand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import BinaryIO

import httpx

from ls_backend.errors import ForbiddenAddressError, TooLargeError, UpstreamError
from ls_backend.studio.addresses import AddressPolicy, Target, resolve, shown
from ls_backend.studio.tokens import Credentials
from ls_backend.studio.upstream import check_up, refusal, tried_again

MAX_REDIRECTS = 3

_BLOCK = 2**20  # bytes that are written at a time, in a thread: a disk may be slow
_REDIRECTS = (301, 302, 303, 307, 308)


@dataclass(frozen=True)
class Fetched:
    """How a download ended.

    Parameters
    ----------
    unchanged : bool
        The file is still the one with the tag that was asked about; nothing was written.
    etag : str or None
        The file's tag, to ask with next time.
    """

    unchanged: bool
    etag: str | None


class Downloads:
    """Fetches files.

    Parameters
    ----------
    policy : AddressPolicy
    credentials : Credentials
    own, foreign : httpx.AsyncClient
        For Label Studio itself and for other hosts; neither follows redirections or keeps cookies.
    """

    def __init__(
        self, policy: AddressPolicy, credentials: Credentials, own: httpx.AsyncClient, foreign: httpx.AsyncClient
    ) -> None:
        self._policy = policy
        self._credentials = credentials
        self._own = own
        self._foreign = foreign

    async def fetch(
        self,
        address: str,
        into: BinaryIO,
        limit_bytes: int,
        *,
        task: int | None = None,
        etag: str | None = None,
        seconds: float = 60.0,
    ) -> Fetched:
        """Write the file at an address into `into`, from its beginning; what is there is replaced.

        Parameters
        ----------
        address : str
            As task data have it.
        into : binary file
        limit_bytes : int
            Whatever length the host announces.
        task : int, optional
            The task it is of, needed for addresses of cloud storages.
        etag : str, optional
            Do not fetch a file that still has this tag.
        seconds : float
            Time for all of it, redirections and further tries included.

        Raises
        ------
        ForbiddenAddressError
            The address, or one that it redirects to, is not fetched.
        TooLargeError
            The file is longer than the limit.
        UpstreamError
            The host does not give it.
        """
        start = self._policy.target(address, task)

        async def attempt() -> Fetched:
            into.seek(0)
            into.truncate()
            async with self._open(start, etag) as (target, response):
                if response.status_code == 304 and etag is not None:
                    return Fetched(True, etag)
                if response.status_code != 200:
                    check_up(response.status_code)
                    raise refusal(response.status_code, shown(address), _host(target), target.authorised)
                await self._write(response, into, limit_bytes, shown(address))
                return Fetched(False, response.headers.get("etag"))

        try:
            async with asyncio.timeout(seconds):
                return await tried_again(attempt, _host(start), repeatable=True)
        except TimeoutError:
            raise UpstreamError(f"{shown(address)} did not arrive within {seconds:g} s: try again") from None

    async def _write(self, response: httpx.Response, into: BinaryIO, limit: int, what: str) -> None:
        too_large = TooLargeError(f"{what} is larger than the {limit / 2**20:.4g} MiB that are fetched")
        announced = response.headers.get("content-length", "")
        if announced.isdecimal() and int(announced) > limit:
            raise too_large
        block = bytearray()
        length = 0
        async for part in response.aiter_bytes():
            length += len(part)
            if length > limit:
                raise too_large
            block += part
            if len(block) >= _BLOCK:
                await asyncio.to_thread(into.write, block)
                block = bytearray()  # a new one: a cancelled wait leaves the thread writing the old one
        await asyncio.to_thread(into.write, block)

    @asynccontextmanager
    async def _open(self, target: Target, etag: str | None) -> AsyncIterator[tuple[Target, httpx.Response]]:
        """The answer for a target, after redirections; its body is not read yet."""
        redirects = 0
        refused: str | None = None
        while True:
            token = await self._credentials.header(self._own, refused) if target.authorised else None
            async with self._send(target, token, etag) as response:
                if response.status_code == 401 and token is not None and refused is None and self._credentials.renews():
                    refused = token
                elif response.status_code in _REDIRECTS and "location" in response.headers:
                    redirects += 1
                    if redirects > MAX_REDIRECTS:
                        raise ForbiddenAddressError(f"{shown(target.url)} redirects too often")
                    target = self._policy.redirected(target, response.headers["location"])
                else:
                    yield target, response
                    return

    @asynccontextmanager
    async def _send(self, target: Target, token: str | None, etag: str | None) -> AsyncIterator[httpx.Response]:
        headers = {"Accept": "*/*", "Accept-Encoding": "identity"}
        if token is not None:
            headers["Authorization"] = token
        if etag is not None:
            headers["If-None-Match"] = etag
        if not target.foreign:
            async with self._own.stream("GET", target.url, headers=headers) as response:
                yield response
            return
        # connected to by the IP address that was checked: looked up again, the name could lead elsewhere
        headers["Host"] = target.url.netloc.decode()
        name = {"sni_hostname": target.url.raw_host.decode()}
        addresses = await resolve(target.url)
        for place, address in enumerate(addresses):
            request = self._foreign.build_request(
                "GET", target.url.copy_with(host=address), headers=headers, extensions=name
            )
            try:
                response = await self._foreign.send(request, stream=True)
            except httpx.ConnectError:
                if place == len(addresses) - 1:
                    raise
                continue
            try:
                yield response
            finally:
                await response.aclose()
            return


def _host(target: Target) -> str:
    return target.url.host if target.foreign else f"Label Studio at {target.url.scheme}://{target.url.netloc.decode()}"
