"""Predictions for tasks that nobody has prompted: one that was opened, or all of a project.

Label Studio asks for many tasks in one request, and does not wait for long. So a request is answered with what is done
in that time, and what is done later is put into Label Studio.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import numpy as np

from ls_backend.asked import Asked
from ls_backend.background import Background
from ls_backend.errors import BusyError
from ls_backend.model.engine import Engine
from ls_backend.pixels.images import Images, LoadedImage
from ls_backend.protocol import Prediction, Task
from ls_backend.regions.label_config import LabelConfig, ObjectTag
from ls_backend.regions.results import image_regions
from sam2_core.errors import InputError

_log = logging.getLogger("ls_backend")

PROMPTS = ("rectangle", "keypoint", "videorectangle")
"""How the types of regions begin that are prompts where nobody asks."""

ATTEMPTS = 5
"""How often a task is tried while more waits for the model than may."""

Answer = Callable[[Asked, Sequence[dict[str, Any]]], Awaitable[Prediction]]
Send = Callable[[int, Prediction], Awaitable[Any]]
"""Puts a prediction for a task into Label Studio."""


class Unasked:
    """Makes predictions for tasks that nobody has prompted.

    Parameters
    ----------
    answer : callable
        What prompts on a task give.
    engine : Engine
    images : Images
    send : Send
    seconds : float
        A request is answered after this time at the latest.
    """

    def __init__(self, answer: Answer, engine: Engine, images: Images, send: Send, seconds: float) -> None:
        self._answer = answer
        self._engine = engine
        self._images = images
        self._send = send
        self._seconds = seconds
        self._under_way: set[int] = set()
        self._work = Background()

    async def annotate(self, asked: Sequence[Asked]) -> list[Prediction | list[Prediction]]:
        """A prediction for each task; an empty list for one that gets none, or gets it later."""
        found: dict[int, Prediction] = {}
        is_answered = asyncio.Event()
        work = self._work.start(self._annotate_all(asked, found, is_answered))
        try:
            await asyncio.wait({work}, timeout=self._seconds)
        except asyncio.CancelledError:
            work.cancel()
            raise
        is_answered.set()
        if work.done():
            work.result()
        else:
            _log.info("%d of %d tasks have predictions; the others follow", len(found), len(asked))
        return [found.get(i, []) for i in range(len(asked))]

    async def close(self) -> None:
        """End what goes on."""
        await self._work.close()

    async def _annotate_all(
        self, asked: Sequence[Asked], found: dict[int, Prediction], is_answered: asyncio.Event
    ) -> None:
        for i, each in enumerate(asked):
            number = each.task.id
            if number in self._under_way:  # for a request before this one
                continue
            if number is not None:
                self._under_way.add(number)
            try:
                prediction = await self._annotate(each)
                if prediction is None:
                    continue
                if not is_answered.is_set():
                    found[i] = prediction
                elif number is not None:
                    await self._send(number, prediction)
            except InputError as error:
                _log.warning("task %s gets no prediction: %s", number, error)
            finally:
                self._under_way.discard(number or -1)

    async def _annotate(self, asked: Asked) -> Prediction | None:
        """The prediction for a task, if it is to get one."""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                if asked.options.pre_annotate == "automatic":
                    return prediction_of(await self._everything(asked), asked.model)
                if asked.options.pre_annotate == "prompts" and (regions := prompts_on(asked.task, asked.config)):
                    return await self._answer(asked, regions)
                return None
            except BusyError as error:
                if attempt == ATTEMPTS:
                    raise
                await asyncio.sleep(error.retry_after)
        return None

    async def _everything(self, asked: Asked) -> list[dict[str, Any]]:
        """Masks of all that is in the images of a task."""
        found: list[dict[str, Any]] = []
        for tag in asked.config.objects:
            if tag.kind == "image":
                image = await self._images.image(asked.data(tag), asked.task.id)
                found += await self._automatic(asked, tag, image, None)
            elif tag.kind == "stack":
                for index, address in enumerate(asked.data(tag)):
                    image = await self._images.image(address, asked.task.id)
                    found += await self._automatic(asked, tag, image, index)
        return found

    async def _automatic(
        self, asked: Asked, tag: ObjectTag, image: LoadedImage, item_index: int | None
    ) -> list[dict[str, Any]]:
        answers = await self._engine.automatic(image, asked.model)
        pairs = [(None, answer) for answer in answers]
        return await asyncio.to_thread(image_regions, pairs, asked.config, tag, image.size, item_index=item_index)


def prediction_of(regions: list[dict[str, Any]], model: str) -> Prediction:
    """A prediction with the mean score of its regions."""
    scores = [float(region.get("score", 0)) for region in regions]
    return Prediction(result=regions, score=float(np.mean(scores)) if scores else 0.0, model_version=model)


def prompts_on(task: Task, config: LabelConfig) -> list[dict[str, Any]]:
    """Boxes and points that are on a task: of its newest annotation, else of the newest prediction that has some."""
    known = {tag.name for tag in config.objects}
    drawn = [a for a in task.annotations if not a.was_cancelled]
    for holder in (*reversed(drawn), *reversed(task.predictions)):
        own = [region for region in holder.result if region.get("to_name") in known]
        drawn_ids = {r.get("id") for r in own if str(r.get("type")).startswith(PROMPTS)}
        if drawn_ids:
            return [r for r in own if r.get("id") in drawn_ids]  # their labels may be entries of their own
    return []
