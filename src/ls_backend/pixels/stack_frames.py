"""A stack of images as frames: each fetched when it is asked for, from the thread of whoever works on it."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import OrderedDict
from collections.abc import Coroutine, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from ls_backend.errors import BusyError, RequestError
from ls_backend.pixels.decoding import image_key, to_uint8
from ls_backend.studio.address_cache import AddressCache
from sam2_core.predict.frames import check_index
from sam2_core.predict.transforms import estimate_window

MAX_FRAMES = 20_000

_AHEAD = 2  # frames that are fetched before they are asked for
_HELD = 5  # frames that are held whatever the cache does, those fetched ahead among them
_WINDOW_FRAMES = 5  # that are looked at for the window of a stack

_T = TypeVar("_T")


@dataclass(frozen=True, eq=False)
class RawImage:
    """An image in its own type, and the SHA-256 of its file."""

    pixels: np.ndarray  # (H, W) or (H, W, 3)
    digest: str


class StackFrames:
    """The images of a stack, in order, through one intensity window if they have more than 8 bits.

    `frame` and `frame_key` are for other threads than the event loop's. Made by `open_stack`.
    """

    def __init__(
        self,
        addresses: Sequence[str],
        cache: AddressCache[RawImage],
        task: int | None,
        first: RawImage,
        window: tuple[float, float] | None,
    ) -> None:
        self._addresses = list(addresses)
        self._cache = cache
        self._task = task
        self._size: tuple[int, int] = (first.pixels.shape[0], first.pixels.shape[1])
        self._loop = asyncio.get_running_loop()
        self._running: OrderedDict[int, asyncio.Task[RawImage]] = OrderedDict()
        self._last = 0
        self.window = window
        facts = json.dumps([self._addresses, image_key(first.digest, window)])
        self.key = f"stack-{hashlib.sha256(facts.encode()).hexdigest()}"

    def __len__(self) -> int:
        return len(self._addresses)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self._size

    def frame(self, i: int) -> np.ndarray:
        """Frame `i`, (H, W) or (H, W, 3) uint8.

        Raises
        ------
        RequestError
            It cannot be had, or is unlike the first; the sentence names it.
        """
        raw = self._wait(self._fetch(check_index(i, len(self))))
        return to_uint8(raw.pixels, self.window)

    def frame_key(self, i: int) -> str:
        """What tells this frame from every other image; the same as of an image on its own if that has 8 bits."""
        digest = self._wait(self._named(i, self._cache.digest(self._addresses[check_index(i, len(self))], self._task)))
        return image_key(digest, self.window)

    def _wait(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        """What a coroutine gives on the event loop, waited for in this thread."""
        stopping = BusyError("the server is stopping: try again in a moment")
        if not self._loop.is_running():
            coroutine.close()
            raise stopping
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        while True:
            try:
                return future.result(timeout=1.0)
            except CancelledError:
                raise stopping from None
            except TimeoutError:
                # a loop that was stopped would leave this thread waiting for ever
                if not self._loop.is_running():
                    future.cancel()
                    raise stopping from None

    async def _fetch(self, i: int) -> RawImage:
        step = 1 if i >= self._last else -1
        self._last = i
        wanted = self._start(i)
        for ahead in range(1, _AHEAD + 1):
            if 0 <= i + step * ahead < len(self):
                self._start(i + step * ahead)
        while len(self._running) > _HELD:
            self._running.popitem(last=False)
        return await asyncio.shield(wanted)

    def _start(self, i: int) -> asyncio.Task[RawImage]:
        task = self._running.get(i)
        if task is None or (task.done() and (task.cancelled() or task.exception() is not None)):
            task = asyncio.create_task(self._checked(i))
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
            self._running[i] = task
        self._running.move_to_end(i)
        return task

    async def _checked(self, i: int) -> RawImage:
        raw = await self._named(i, self._cache.get(self._addresses[i], self._task))
        height, width = raw.pixels.shape[:2]
        if (height, width) != self._size:
            raise RequestError(
                f"image {i + 1} of the stack is {width} x {height} pixels but the first is {self._size[1]} x"
                f" {self._size[0]}: all have to be of one size"
            )
        if (raw.pixels.dtype == np.uint8) != (self.window is None):
            raise RequestError(f"image {i + 1} of the stack is {raw.pixels.dtype}, unlike the first: make all alike")
        return raw

    async def _named(self, i: int, coroutine: Coroutine[Any, Any, _T]) -> _T:
        try:
            return await coroutine
        except RequestError as error:
            raise type(error)(f"image {i + 1} of the stack: {error}") from None


async def open_stack(addresses: Sequence[str], cache: AddressCache[RawImage], task: int | None) -> StackFrames:
    """The frames of a stack, of which the first is fetched, and a few more if a window has to be found.

    Raises
    ------
    RequestError
        There are none or too many, or one of those that are fetched cannot be had.
    """
    if not addresses:
        raise RequestError("the stack of the task has no images")
    if len(addresses) > MAX_FRAMES:
        raise RequestError(f"the stack of the task has {len(addresses)} images, more than {MAX_FRAMES}: split it")
    first = await cache.get(addresses[0], task)
    if first.pixels.dtype == np.uint8:
        return StackFrames(addresses, cache, task, first, None)
    places = np.unique(np.linspace(0, len(addresses) - 1, _WINDOW_FRAMES).round().astype(int))
    some = [first.pixels] + [(await cache.get(addresses[int(i)], task)).pixels for i in places[1:]]
    window = await asyncio.to_thread(estimate_window, lambda i: some[i], len(some))
    return StackFrames(addresses, cache, task, first, window)
