"""Objects that are prompted on some frames, carried through the others as a napari session carries them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ls_backend.errors import RequestError
from sam2_core.predict.frames import FrameSource, PrefetchedFrames
from sam2_core.volume.prompts import Prompt, make_prompt
from sam2_core.volume.session_plan import Leg, Request, make_plan
from sam2_core.volume.session_state import Grid, PlacedPrompt, SessionObject, State
from sam2_core.volume.session_track import track

if TYPE_CHECKING:
    from sam2_core.predict.embedding_cache import SourceEmbeddings
    from sam2_core.predict.prompted_images import ImageAnswer

_AXIS = "t"


class PromptedFrame(Protocol):
    """What is shown of an object on a frame, as `regions.prompts.FramePrompt` has it."""

    @property
    def frame(self) -> int: ...
    @property
    def points(self) -> np.ndarray: ...
    @property
    def labels(self) -> np.ndarray: ...
    @property
    def box(self) -> np.ndarray | None: ...
    @property
    def mask(self) -> np.ndarray | None: ...


class PromptedObject(Protocol):
    """An object, as `regions.prompts.ObjectPrompt` has it."""

    @property
    def key(self) -> str: ...
    @property
    def frames(self) -> Sequence[PromptedFrame]: ...


def plan_tracking(objects: Sequence[PromptedObject], span: range, size: tuple[int, int], count: int) -> list[Leg]:
    """The ways from the first prompt of each object to both ends of a span of frames.

    Objects are numbered from 1 as they are given. On a frame, a mask comes first and is taken as it is, then a box,
    then one click after the other.

    Parameters
    ----------
    objects : sequence of PromptedObject
    span : range
        Frames, one after the other.
    size : (int, int)
        Height and width of a frame.
    count : int
        Frames that there are.

    Raises
    ------
    RequestError
        Frames do not exist, or an object has no prompt within the span.
    InputError
        A prompt is not whole.
    """
    if not (span.step == 1 and 0 <= span.start < span.stop <= count):
        raise RequestError(f"the frames {span.start} to {span.stop - 1} are not within the frames 0 to {count - 1}")
    state = State()
    for number, item in enumerate(objects, 1):
        frames = [given.frame for given in item.frames]
        if wrong := [frame for frame in frames if not 0 <= frame < count]:
            raise RequestError(f"there is no frame {wrong[0]} to prompt on: the frames are 0 to {count - 1}")
        if not any(frame in span for frame in frames):
            raise RequestError(
                f"an object has prompts on frame {', '.join(map(str, frames)) or 'none'}, but is to be tracked through "
                f"the frames {span.start} to {span.stop - 1}: prompt it on one of them"
            )
        prompts = [
            PlacedPrompt(0, ((_AXIS, given.frame),), prompt)
            for given in item.frames
            for prompt in _prompts(number, given)
        ]
        state = state.put(SessionObject(number, prompts=tuple(prompts)))
    request = Request(tuple(state.objects), {_AXIS: (span.start, span.stop)})
    legs = (stage.leg(lambda *_: None) for stage in make_plan(request, state, Grid(((_AXIS, count),), size, _AXIS)))
    return [leg for leg in legs if leg is not None]


class Tracking:
    """Objects on their way along the legs of a plan; `frames` tells what to call for.

    Parameters
    ----------
    predictor : SAM2VideoPredictor
    source : FrameSource
    legs : sequence of Leg
    embeddings : SourceEmbeddings
        Where those of prompted frames are looked up and kept, and those of others looked up.
    pause : callable
        Called within a step that takes longer than a frame.

    Attributes
    ----------
    frames : list of int
        Those that each `step` needs, in order.
    prompted : list of int
        Those that are to be embedded first, as the first steps need them.
    """

    def __init__(
        self,
        predictor: Any,
        source: FrameSource,
        legs: Sequence[Leg],
        embeddings: SourceEmbeddings,
        pause: Callable[[], object],
    ) -> None:
        self.frames = [frame for leg in legs for frame in leg.frames()]
        self.prompted = sorted({frame for leg in legs for seeds in leg.seeds.values() for frame in seeds})
        self._predictor = _Pausing(predictor, pause)
        self._source = PrefetchedFrames(source, ahead=1, keep=6)
        self._legs = legs
        self._embeddings = embeddings
        self._steps = self._run()
        self._lock = threading.Lock()

    def read(self, frame: int) -> None:
        """Read a frame that is not embedded, so that no step waits for where it comes from; for another thread."""
        if frame not in self._embeddings:
            self._source.frame(frame)

    def embed(self, frame: int) -> None:
        """Embed a frame that is prompted."""
        self._predictor.embed(self._source, frame, self._embeddings)

    def step(self) -> tuple[int, dict[int, ImageAnswer]] | None:
        """The next frame and the answers on it by the number of the object; None after the last."""
        with self._lock:
            return next(self._steps, None)

    def close(self) -> None:
        """End, after the step under way and what is being read; for another thread than that of the steps."""
        with self._lock:
            self._steps.close()
        self._source.close()

    def _run(self) -> Generator[tuple[int, dict[int, ImageAnswer]]]:
        from sam2_core.predict.prompted_images import ImageAnswer

        size = self._source.size
        for leg in self._legs:
            for found in track(self._predictor, self._source, leg, embeddings=self._embeddings):
                assert found is not None  # nothing was done before
                yield (
                    found.frame,
                    {
                        number: ImageAnswer(patch.mask(size), found.confidence[number] or 0.0)
                        for number, patch in found.patches.items()
                    },
                )


class _Pausing:
    """A predictor that pauses before each prompt that it is given: all of an object's come at once, as it joins."""

    def __init__(self, predictor: Any, pause: Callable[[], object]) -> None:
        self._predictor = predictor
        self._pause = pause

    def __getattr__(self, name: str) -> Any:
        return getattr(self._predictor, name)

    def add_new_points_or_box(self, *args: Any, **kwargs: Any) -> Any:
        self._pause()
        return self._predictor.add_new_points_or_box(*args, **kwargs)

    def add_new_mask(self, *args: Any, **kwargs: Any) -> Any:
        self._pause()
        return self._predictor.add_new_mask(*args, **kwargs)


def _prompts(number: int, given: PromptedFrame) -> Iterator[Prompt]:
    if given.mask is not None:
        yield make_prompt(number, given.frame, mask=given.mask)
    if given.box is not None:
        yield make_prompt(number, given.frame, box=given.box)
    for point, label in zip(given.points, given.labels, strict=True):
        yield make_prompt(number, given.frame, points=point[None], labels=label[None])
