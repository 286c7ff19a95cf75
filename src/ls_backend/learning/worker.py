"""What works in the background of the event loop, and how it is ended."""

from __future__ import annotations

import asyncio
import contextlib


async def end_of(worker: asyncio.Task[None] | None, patience: float) -> None:
    """Wait for a worker that was told to stop; it is cancelled if it goes on for longer than `patience` seconds."""
    if worker is None:
        return
    _, running = await asyncio.wait({worker}, timeout=patience)
    for task in running:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
