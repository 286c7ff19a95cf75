"""What was made of the files at addresses: each fetched once for all who wait for it, kept, and asked for anew."""

from __future__ import annotations

import asyncio
import hashlib
import io
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO, Generic, TypeVar

from ls_backend.errors import RequestError
from ls_backend.studio.addresses import shown
from ls_backend.studio.contents import Contents

_T = TypeVar("_T")

_MAX_KNOWN = 20_000  # addresses of which the digest is remembered
_MADE_AT_ONCE = 2
_OVERHEAD = 1024  # bytes that even the smallest value counts for


@dataclass(frozen=True)
class _Known:
    """What is remembered of the file at an address."""

    digest: str
    etag: str | None
    until: float  # on the clock of `time.monotonic`


class AddressCache(Generic[_T]):
    """What is made of the files at addresses, the least recently used of which are forgotten.

    Used from one event loop. The newest is kept, however large it is.

    Parameters
    ----------
    contents : Contents
    make : callable
        Makes the value of a file and its SHA-256; called in a thread, with the file at its beginning. A `RequestError`
        that it raises is completed with the address. The value may keep the file.
    size : callable
        Bytes that a value counts for.
    keep_bytes : int
        Bound of all values.
    file_bytes : int
        Largest file that is fetched.
    new_file : callable
        Gives a file that a download is written to; closing it has to remove it.
    seconds : float
        How long a download may take.
    """

    def __init__(
        self,
        contents: Contents,
        make: Callable[[BinaryIO, str], _T],
        size: Callable[[_T], int],
        keep_bytes: int,
        file_bytes: int,
        new_file: Callable[[], BinaryIO] = io.BytesIO,
        seconds: float = 60.0,
    ) -> None:
        self._contents = contents
        self._make = make
        self._size = size
        self._keep_bytes = keep_bytes
        self._file_bytes = file_bytes
        self._new_file = new_file
        self._seconds = seconds
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._values: OrderedDict[str, _T] = OrderedDict()
        self._used = 0
        self._running: dict[str, asyncio.Task[_T]] = {}
        self._making = asyncio.Semaphore(_MADE_AT_ONCE)

    @property
    def used_bytes(self) -> int:
        """What all values count for."""
        return self._used

    async def get(self, address: str, task: int | None = None) -> _T:
        """The value of the file at an address of a task, see `Downloads.fetch`, as it was not long ago.

        Raises
        ------
        RequestError
            It is not fetched, not there, too large, or nothing can be made of it.
        """
        key = self._contents.key(address, task)
        if key in self._values and self._is_fresh(key):
            self._values.move_to_end(key)
            self._known.move_to_end(key)
            return self._values[key]
        running = self._running.get(key)
        if running is None:
            running = asyncio.create_task(self._load(key, address, task))
            self._running[key] = running
            running.add_done_callback(lambda done: self._ended(key, done))
        return await asyncio.shield(running)  # who stops waiting does not stop it for others

    async def digest(self, address: str, task: int | None = None) -> str:
        """SHA-256 of the file at an address, remembered for longer than its value. Raises as `get` does."""
        key = self._contents.key(address, task)
        if not self._is_fresh(key):
            await self.get(address, task)
        return self._known[key].digest

    async def close(self) -> None:
        """Stop what is being fetched, and forget all."""
        running = list(self._running.values())
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        self._known.clear()
        self._values.clear()
        self._used = 0

    def _is_fresh(self, key: str) -> bool:
        known = self._known.get(key)
        return known is not None and time.monotonic() < known.until

    def _ended(self, key: str, done: asyncio.Task[_T]) -> None:
        del self._running[key]
        if not done.cancelled():
            done.exception()  # looked at, even if nobody waits any more

    async def _load(self, key: str, address: str, task: int | None) -> _T:
        held = self._values.get(key)
        known = None if held is None else self._known.get(key)
        file = self._new_file()
        try:
            etag = None if known is None else known.etag
            content = await self._contents.read(address, file, self._file_bytes, task, etag, self._seconds)
            digest = known.digest if content.unchanged and known else await asyncio.to_thread(_digest, file)
            if held is not None and known is not None and known.digest == digest:
                value = held
                file.close()
            else:
                value = await self._made(file, digest, address)
        except BaseException:
            file.close()
            raise
        self._keep(key, value)
        self._known[key] = _Known(digest, content.etag, content.until)
        self._known.move_to_end(key)
        while len(self._known) > _MAX_KNOWN:
            self._drop(self._known.popitem(last=False)[0])
        return value

    async def _made(self, file: BinaryIO, digest: str, address: str) -> _T:
        file.seek(0)
        async with self._making:
            try:
                return await asyncio.to_thread(self._make, file, digest)
            except RequestError as error:
                raise type(error)(f"{shown(address)} cannot be used: {error}") from None

    def _keep(self, key: str, value: _T) -> None:
        self._drop(key)
        self._values[key] = value
        self._used += self._size(value) + _OVERHEAD
        while self._used > self._keep_bytes and len(self._values) > 1:
            self._drop(next(iter(self._values)))

    def _drop(self, key: str) -> None:
        if key in self._values:
            self._used -= self._size(self._values.pop(key)) + _OVERHEAD


def _digest(file: BinaryIO) -> str:
    file.seek(0)
    digest = hashlib.sha256()
    while block := file.read(2**20):
        digest.update(block)
    return digest.hexdigest()
