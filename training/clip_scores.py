"""J, F and J&F of objects that are followed through clips, as DAVIS 2017 measures semi-supervised segmentation."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from sam2_core.metrics import boundary_f, iou


@dataclass(frozen=True)
class ObjectScore:
    """One object of a clip: J (IoU) and F (boundary measure), each the mean over the frames that count."""

    clip: str
    obj_id: int
    j: float
    f: float


def score_clip(
    name: str,
    annotated: Iterable[int],
    ids_at: Callable[[int], np.ndarray],
    first: Mapping[int, list[int]],
    predicted: Iterable[tuple[int, np.ndarray]],
) -> list[ObjectScore]:
    """Compare predicted ids with the true ones, frame by frame.

    Of the annotated frames the first and the last do not count, nor for an object those up to the one it is given
    on; where both masks are empty J and F are 1.

    Parameters
    ----------
    name : str
        Of the clip.
    annotated : iterable of int
        The frames whose labels are known, in their order.
    ids_at : callable
        Gives the true ids (H, W) of such a frame.
    first : mapping of int to list of int
        By frame, the objects given on it; see `sam2_core.predict.vos.first_frames`.
    predicted : iterable of (int, ndarray)
        Frames and their ids (H, W), in any order; those that do not count are passed over.

    Returns
    -------
    list of ObjectScore
        Of the objects for which there is a frame that counts, in the order of their ids.

    References
    ----------
    Pont-Tuset et al., "The 2017 DAVIS Challenge on Video Object Segmentation", arXiv:1704.00675, section 3.
    """
    counted = set(list(annotated)[1:-1])
    found: dict[int, list[tuple[float, float]]] = defaultdict(list)
    for frame, ids in predicted:
        if frame in counted:
            truth = ids_at(frame)
            for obj_id in (i for start, given in first.items() if start < frame for i in given):
                masks = ids == obj_id, truth == obj_id
                found[obj_id].append((iou(*masks), boundary_f(*masks)))
    means = {obj_id: np.mean(pairs, axis=0) for obj_id, pairs in found.items()}
    return [ObjectScore(name, obj_id, *(float(v) for v in means[obj_id])) for obj_id in sorted(means)]


def clip_report(scores: Iterable[ObjectScore]) -> dict[str, Any]:
    """J, F and J&F over all objects, and of each clip over its own.

    Returns
    -------
    dict
        ``objects``, ``J``, ``F`` and ``J&F``, and in ``clips`` the same by name; without objects empty.
    """
    scores = list(scores)
    if not scores:
        return {}
    by_clip: dict[str, list[ObjectScore]] = defaultdict(list)
    for score in scores:
        by_clip[score.clip].append(score)
    return _means(scores) | {"clips": {name: _means(found) for name, found in by_clip.items()}}


def _means(scores: list[ObjectScore]) -> dict[str, Any]:
    j, f = (float(np.mean(values)) for values in zip(*((s.j, s.f) for s in scores)))
    return {"objects": len(scores), "J": round(j, 4), "F": round(f, 4), "J&F": round((j + f) / 2, 4)}
