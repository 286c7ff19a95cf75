"""Video object segmentation: objects whose masks are given on one frame each, carried through the rest of a clip.

The protocol is that of DAVIS and of SAM 2's evaluation (Ravi et al. 2024, sec. 6): an object is given on the first
frame it is annotated on, and followed to the end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from sam2_core.predict.frames import open_frames

if TYPE_CHECKING:
    from torch import Tensor

    from sam2_core.predict.video_predictor import SAM2VideoPredictor


def first_frames(annotated: Iterable[int], ids_at: Callable[[int], np.ndarray]) -> dict[int, list[int]]:
    """The frames on which objects are seen first.

    Parameters
    ----------
    annotated : iterable of int
        The frames that have labels, in their order.
    ids_at : callable
        Gives the object ids (H, W) of a frame, integers with 0 for background.

    Returns
    -------
    dict of int to list of int
        By frame, in their order, the ids that no earlier frame has.
    """
    seen: set[int] = {0}
    first: dict[int, list[int]] = {}
    for frame in annotated:
        new = [i for i in np.unique(ids_at(frame)).tolist() if i not in seen]
        if new:
            first[frame] = new
            seen.update(new)
    return first


def segment_clip(
    predictor: SAM2VideoPredictor,
    source: Any,
    first: Mapping[int, list[int]],
    ids_at: Callable[[int], np.ndarray],
) -> Iterator[tuple[int, np.ndarray]]:
    """Carry objects through a clip, each from the frame it is given on.

    An object that comes later joins on its own frame, so that it is nowhere before, and those that are followed
    already stay as they are.

    Parameters
    ----------
    predictor : SAM2VideoPredictor
    source : path, array or FrameSource
        As `SAM2VideoPredictor.init_state` takes it.
    first : mapping of int to list of int
        By frame, the ids of the objects given on it; see `first_frames`.
    ids_at : callable
        Gives the object ids (H, W) of one of these frames.

    Yields
    ------
    frame : int
        Every frame, from 0.
    ids : ndarray, (H, W), uint32
        The object with the highest logit above 0, or 0.

    Raises
    ------
    InputError
        The source cannot be read.
    """
    frames = open_frames(source)
    count, starts = len(frames), sorted(first)
    state = predictor.init_state(frames)
    try:
        for frame in range(starts[0] if starts else count):
            yield frame, np.zeros(frames.size, np.uint32)
        for start, end in zip(starts, [*starts[1:], count]):
            ids = ids_at(start)
            for obj_id in first[start]:
                predictor.add_new_mask(state, start, obj_id, ids == obj_id, need_output=False)
            steps = predictor.propagate_in_video(state, start, end - 1 - start, progress=False)
            for frame, obj_ids, logits in steps:
                yield frame, _painted(obj_ids, logits)
    finally:
        state.close()


def _painted(obj_ids: list[int], logits: Tensor) -> np.ndarray:
    """Ids (H, W), uint32, of logits (N, 1, H, W): where masks overlap, the surest one."""
    best, index = logits[:, 0].max(0)
    chosen = np.asarray(obj_ids, np.uint32)[index.cpu().numpy()]
    return np.where((best > 0).cpu().numpy(), chosen, np.uint32(0))
