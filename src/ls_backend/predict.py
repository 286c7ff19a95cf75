"""The answer to a request for predictions: what was drawn becomes masks, and masks become regions."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import Any

from ls_backend.asked import Asked
from ls_backend.background import Background
from ls_backend.errors import RequestError
from ls_backend.learning.tracks import MaskTrack, Tracks
from ls_backend.model.engine import Engine
from ls_backend.pixels.images import Images
from ls_backend.projects import ProjectOptions
from ls_backend.protocol import Prediction, PredictRequest, PredictResponse
from ls_backend.regions.label_config import ObjectTag, parse_label_config
from ls_backend.regions.prompts import FramePrompt, ObjectPrompt, read_prompts
from ls_backend.regions.results import image_regions, video_regions
from ls_backend.unasked import Send, Unasked, prediction_of
from sam2_core.errors import InputError
from sam2_core.predict.prompted_images import ImageAnswer, ImagePrompt

_log = logging.getLogger("ls_backend")


class Predictor:
    """Answers requests for predictions.

    Parameters
    ----------
    engine : Engine
    images : Images
    tracks : Tracks
        Where the masks of tracked objects of videos are kept, for which Label Studio has no tag.
    options : callable
        Gives the options of a project by its number.
    version : callable
        Gives the name of the model that answers where the project chose none.
    send : callable
        Puts a prediction into Label Studio.
    seconds : float
        After this time an answer holds the frames that are tracked and the tasks that are done.
    """

    def __init__(
        self,
        engine: Engine,
        images: Images,
        tracks: Tracks,
        options: Callable[[int | None], ProjectOptions],
        version: Callable[[], str],
        send: Send,
        seconds: float,
    ) -> None:
        self._engine = engine
        self._images = images
        self._tracks = tracks
        self._options = options
        self._version = version
        self._seconds = seconds
        self._unasked = Unasked(self._answer, engine, images, send, seconds)
        self._ahead = Background()

    async def predict(self, request: PredictRequest) -> PredictResponse:
        """Answer a request: at once where an annotator waits, else task by task.

        Raises
        ------
        RequestError
            The annotator's request cannot be answered. Tasks that nobody waits for are left without a prediction.
        """
        if not request.label_config:
            raise RequestError("the request has no label_config, without which there is no telling what to answer")
        if not request.tasks:
            raise RequestError("the request has no task")
        config = parse_label_config(request.label_config)
        options = await asyncio.to_thread(self._options, request.project_id)  # while a webhook is written, it waits
        model = options.model or self._version()
        asked = [Asked(task, config, options, model) for task in request.tasks]
        context = request.context
        if context is None:
            results: list[Prediction | list[Prediction]] = await self._unasked.annotate(asked)
            if len(asked) == 1:
                self._embed_ahead(asked[0])
        elif context.result:
            results = [await self._answer(asked[0], context.result)]
        else:
            results = [Prediction(model_version=model)]
            self._embed_ahead(asked[0])
        return PredictResponse(results=results, model_version=model)

    async def close(self) -> None:
        """End what goes on for nobody."""
        await self._unasked.close()
        await self._ahead.close()

    async def _answer(self, asked: Asked, regions: Sequence[dict[str, Any]]) -> Prediction:
        """What prompts on a task give, one object after the other."""
        by_tag: dict[str, list[dict[str, Any]]] = {}
        for region in regions:
            by_tag.setdefault(str(region.get("to_name")), []).append(region)
        found: list[dict[str, Any]] = []
        for name, own in by_tag.items():
            tag = asked.config.object(name)
            answer = {"image": self._image, "stack": self._stack, "video": self._video}[tag.kind]
            found += await answer(asked, tag, own)
        return prediction_of(found, asked.model)

    async def _image(self, asked: Asked, tag: ObjectTag, regions: list[dict[str, Any]]) -> list[dict[str, Any]]:
        image = await self._images.image(asked.data(tag), asked.task.id)
        prompts = await asyncio.to_thread(read_prompts, regions, asked.config, tag, image.size)
        if not prompts:
            return []
        answers = await self._engine.answer(image, [_image_prompt(p.frames[0]) for p in prompts], asked.model)
        return await asyncio.to_thread(image_regions, list(zip(prompts, answers)), asked.config, tag, image.size)

    async def _stack(self, asked: Asked, tag: ObjectTag, regions: list[dict[str, Any]]) -> list[dict[str, Any]]:
        frames = await self._images.stack(asked.data(tag), asked.task.id)
        prompts = await asyncio.to_thread(read_prompts, regions, asked.config, tag, frames.size, len(frames))
        if not prompts:
            return []
        found: dict[int, list[dict[str, Any]]] = {}
        async with aclosing(self._track(asked, frames, prompts)) as tracked:
            async for frame, answers in tracked:
                pairs = [(p, answers[p.key]) for p in prompts if p.key in answers]
                # a frame between the first prompts of two objects comes once with each
                found.setdefault(frame, []).extend(
                    await asyncio.to_thread(image_regions, pairs, asked.config, tag, frames.size, item_index=frame)
                )
        return [region for frame in sorted(found) for region in found[frame]]

    async def _video(self, asked: Asked, tag: ObjectTag, regions: list[dict[str, Any]]) -> list[dict[str, Any]]:
        clip = await self._images.video(asked.data(tag), asked.framerate(tag), asked.task.id)
        prompts = await asyncio.to_thread(read_prompts, regions, asked.config, tag, clip.size, len(clip))
        if not prompts:
            return []
        masks = {prompt.key: MaskTrack() for prompt in prompts}
        scores: dict[str, list[float]] = {prompt.key: [] for prompt in prompts}
        async with aclosing(self._track(asked, clip, prompts)) as tracked:
            async for frame, answers in tracked:
                for key, answer in answers.items():
                    await asyncio.to_thread(masks[key].add, frame, answer.mask)
                    scores[key].append(answer.score)
        found = await asyncio.to_thread(
            video_regions, masks, prompts, asked.config, tag, clip.size, len(clip), clip.framerate, scores
        )
        if asked.task.id is not None:
            await asyncio.to_thread(self._tracks.keep, asked.task.id, clip.size, masks, found)
        return found

    async def _track(
        self, asked: Asked, frames: Any, prompts: Sequence[ObjectPrompt]
    ) -> AsyncGenerator[tuple[int, dict[str, ImageAnswer]]]:
        """The frames around the prompts, as they are done, until there are no more or the time is over."""
        prompted = [frame.frame for prompt in prompts for frame in prompt.frames]
        reach = asked.options.track_frames
        span = range(max(min(prompted) - reach, 0), min(max(prompted) + reach + 1, len(frames)))
        until = time.monotonic() + self._seconds
        async with aclosing(self._engine.track(frames, frames.key, prompts, span, asked.model)) as tracked:
            async for frame, answers in tracked:
                yield frame, answers
                if time.monotonic() > until:
                    _log.warning("task %s: the time for tracking is over, of %d frames", asked.task.id, len(span))
                    return

    def _embed_ahead(self, asked: Asked) -> None:
        """Have the first image of a task embedded, without anybody waiting for it."""

        async def embed() -> None:
            try:
                tag = next((t for t in asked.config.objects if t.kind != "video"), None)
                if tag is not None:
                    value = asked.data(tag)
                    image = await self._images.image(value[0] if tag.kind == "stack" else value, asked.task.id)
                    await self._engine.embed(image, asked.model)
            except InputError as error:
                _log.info("task %s is not embedded ahead: %s", asked.task.id, error)

        self._ahead.start(embed())


def _image_prompt(prompt: FramePrompt) -> ImagePrompt:
    return ImagePrompt(points=prompt.points, labels=prompt.labels, box=prompt.box, mask=prompt.mask)
