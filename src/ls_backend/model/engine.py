"""What asks the model: clicks first and those of several users together, then frames of propagations, then the rest."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ls_backend.model.models import Models, Served
from ls_backend.model.tracking import PromptedObject, Tracking, plan_tracking
from ls_backend.model.work_queue import Observer, Urgency, WorkQueue
from sam2_core.masks import mask_to_region, rle_to_mask

if TYPE_CHECKING:
    from sam2_core.predict.frames import FrameSource
    from sam2_core.predict.prompted_images import ImageAnswer, ImagePrompt

_TOGETHER_ON_CPU, _TOGETHER_ELSEWHERE = 4, 16
"""Prompts that are answered together: a CPU does more of them hardly faster, and who comes next waits longer."""

_CLICKS_ON_CPU, _CLICKS_ELSEWHERE = 4, 64
"""Clicks of automatic masks that are done between two looks at what is more urgent."""

_READING = 32
"""Propagations that may wait for a frame at the same time."""


class Image(Protocol):
    """An image in memory, as `pixels.images.LoadedImage` has it."""

    @property
    def key(self) -> str: ...
    @property
    def pixels(self) -> np.ndarray: ...
    @property
    def size(self) -> tuple[int, int]: ...


class Engine:
    """Has a model asked in one thread; its methods are for an event loop.

    A request that is cancelled leaves the queue. One that names no model gets the one that is current when it comes,
    to its end.

    Parameters
    ----------
    models : Models
    limit : int
        Most requests that wait: a click for so many clicks, a propagation for so many clicks and propagations,
        anything else for so many of all. More get a `BusyError`.
    batch : int, optional
        Most prompts that are answered together; by default what suits the device.

    Attributes
    ----------
    observer : Observer, optional
        Told of each piece of work, called "answer", "embed", "automatic" or "track" (a frame), in the thread that did
        it; with "answer", the number of prompts.
    """

    def __init__(self, models: Models, limit: int = 64, batch: int | None = None) -> None:
        self.models = models
        self.observer: Observer | None = None
        self._batch = batch
        self._queue = WorkQueue(limit, self._observe)
        # not the event loop's own threads: with all of them waiting for frames, nobody could fetch these
        self._reading = ThreadPoolExecutor(_READING, thread_name_prefix="sam2-reading")

    @property
    def queue_length(self) -> int:
        """How many requests wait."""
        return len(self._queue)

    async def start(self) -> None:
        """Begin to work."""
        self._queue.start()

    async def stop(self) -> None:
        """End after what is under way; what waits gets a `BusyError`."""
        await asyncio.to_thread(self._queue.stop)

    async def embed(self, image: Image, model: str | None = None) -> bool:
        """See to it that an image is embedded, when nothing else waits; whether it was not."""
        served = await self._served(model)
        return await self._alone(
            Urgency.BACKGROUND, "embed", lambda: served.prompted.embed(image.key, lambda: image.pixels)
        )

    async def answer(self, image: Image, prompts: Sequence[ImagePrompt], model: str | None = None) -> list[ImageAnswer]:
        """The masks that prompts on an image give, before all else and together with those of other requests."""
        since: float | None = time.monotonic()
        served = await self._served(model)
        asked = [(image.key, lambda: image.pixels, image.size, prompt) for prompt in prompts]
        is_new = bool(asked) and image.key not in served.prompted
        if is_new:  # apart, so that clicks on images that are embedded do not wait for it
            await self._alone(Urgency.IMAGE, "embed", partial(served.prompted.embed, image.key, lambda: image.pixels))

        def work(parts: list[list[Any]]) -> list[list[ImageAnswer]]:
            answers = iter(served.prompted.answer([one for part in parts for one in part]))
            return [[next(answers) for _ in part] for part in parts]

        answers: list[ImageAnswer] = []
        size = self._batch or (_TOGETHER_ON_CPU if served.predictor.device.type == "cpu" else _TOGETHER_ELSEWHERE)
        for first in range(0, len(asked), size):  # one part after the other, so that others come in between
            part = asked[first : first + size]
            future = self._queue.submit(
                Urgency.CLICK, "answer", work, part, len(part), served, size, is_new or first > 0, since
            )
            answers += await asyncio.wrap_future(future)
            since = None
        return answers

    async def automatic(self, image: Image, model: str | None = None) -> list[ImageAnswer]:
        """Masks of everything in an image, found when nothing else waits; what comes meanwhile goes first."""
        served = await self._served(model)
        is_left = threading.Event()

        def pause(done: int, total: int) -> None:
            if is_left.is_set():
                raise _NobodyWaits
            self._queue.let_in(Urgency.BACKGROUND)

        try:
            return await self._alone(Urgency.BACKGROUND, "automatic", lambda: _everything(served, image.pixels, pause))
        finally:
            is_left.set()

    async def track(
        self,
        source: FrameSource,
        key: str,
        objects: Sequence[PromptedObject],
        span: range,
        model: str | None = None,
    ) -> AsyncGenerator[tuple[int, dict[str, ImageAnswer]]]:
        """Carry objects from their first prompts to both ends of a span of frames.

        Parameters
        ----------
        source : FrameSource
        key : str
            Tells the source from all others, for the embeddings of its frames.
        objects : sequence of PromptedObject
            Prompted on one or more frames; a mask is taken as it is, unless clicks correct it.
        span : range
            Frames to track through.
        model : str, optional

        Yields
        ------
        (int, dict)
            A frame and the answers on it by object: first forward from the first prompts, then backward, so that a
            frame between the first prompts of two objects comes twice, each time with one of them. A frame is computed
            when it is asked for. Closing the iterator ends the work.

        Raises
        ------
        RequestError
            As `plan_tracking`.
        """
        served = await self._served(model)
        legs = await asyncio.to_thread(lambda: plan_tracking(objects, span, source.size, len(source)))
        embeddings = self.models.cache.of(served.predictor.embedding_key, key)
        keys = {number: item.key for number, item in enumerate(objects, 1)}
        run = Tracking(served.predictor, source, legs, embeddings, lambda: self._queue.let_in(Urgency.FRAME))
        loop = asyncio.get_running_loop()
        is_begun = False
        try:
            for frame in run.prompted:
                await loop.run_in_executor(self._reading, run.read, frame)
                await self._alone(Urgency.FRAME, "track", partial(run.embed, frame), is_begun)
                is_begun = True
            for frame in run.frames:
                await loop.run_in_executor(self._reading, run.read, frame)
                found = await self._alone(Urgency.FRAME, "track", run.step, is_begun)
                if found is None:
                    return
                yield found[0], {keys[number]: answer for number, answer in found[1].items()}
        finally:
            # not awaited: it may have to wait for a frame that is being read
            loop.run_in_executor(self._reading, run.close)

    async def _served(self, model: str | None) -> Served:
        served = self.models.ready(model)
        return served if served is not None else await asyncio.to_thread(self.models.get, model)

    async def _alone(self, urgency: Urgency, kind: str, work: Callable[[], Any], admitted: bool = False) -> Any:
        future = self._queue.submit(urgency, kind, lambda _: [work()], admitted=admitted)
        return await asyncio.wrap_future(future)

    def _observe(self, kind: str, seconds: float, size: int) -> None:
        if self.observer is not None:
            self.observer(kind, seconds, size)


class _NobodyWaits(Exception):
    """The request that this work was for is gone."""


def _everything(served: Served, image: np.ndarray, pause: Callable[[int, int], object]) -> list[ImageAnswer]:
    """Automatic masks, with the thresholds that suit the model."""
    from sam2_core.predict.automatic import SAM2AutomaticMaskGenerator
    from sam2_core.predict.prompted_images import ImageAnswer

    clicks = _CLICKS_ON_CPU if served.predictor.device.type == "cpu" else _CLICKS_ELSEWHERE
    generator = SAM2AutomaticMaskGenerator(served.predictor.model, points_per_batch=clicks, output_mode="coco_rle")
    answers = []
    for found in generator.generate(image, pause):
        whole = rle_to_mask(found["segmentation"])
        mask = np.zeros(whole.shape, bool)  # which takes memory only where something is written
        if (region := mask_to_region(whole)) is not None:
            mask[region] = whole[region]
        answers.append(ImageAnswer(mask, min(max(found["predicted_iou"], 0.0), 1.0)))
    return answers
