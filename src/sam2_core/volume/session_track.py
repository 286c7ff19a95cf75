"""From a leg of a plan to masks: drives a video predictor along one line of planes."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Collection, Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sam2_core.masks import Region, mask_to_region
from sam2_core.predict.embedding_cache import SourceEmbeddings
from sam2_core.predict.frames import FrameSource
from sam2_core.predict.patches import NOWHERE, Patch
from sam2_core.volume.rle import Rle
from sam2_core.volume.session_lost import Losses
from sam2_core.volume.session_plan import Leg, Seed


@dataclass(frozen=True)
class Tracked:
    """What tracking gave on a frame, by object id.

    Attributes
    ----------
    frame : int
    patches : dict of int to Patch
    confidence : dict of int to float or None
        In [0, 1], see `confidence_of`.
    empty : tuple of int
        The objects that were tracked and not found.
    """

    frame: int
    patches: dict[int, Patch]
    confidence: dict[int, float | None]
    empty: tuple[int, ...]


def track(
    predictor: Any,
    source: FrameSource,
    leg: Leg,
    storage: Path | None = None,
    done: int = 0,
    until_lost: bool = False,
    empty: Sequence[Collection[int]] = (),
    embeddings: SourceEmbeddings | None = None,
) -> Generator[Tracked | None]:
    """Track objects along a leg.

    Each object joins at the start of its stretch and leaves at its end, so that the objects of a leg share one
    pass over the images. Where an object's last word on a frame is a mask, that mask is its result.

    Parameters
    ----------
    predictor : SAM2VideoPredictor
        Or an object with the same methods.
    source : FrameSource
    leg : Leg
    storage : Path, optional
        Folder for the tracker's memory, so that a killed process can go on; emptied if nothing is done yet.
    done : int
        Frames that are done already. The tracker's memory of them is read from `storage`; where it is not whole
        they are computed once more.
    until_lost : bool
        Objects that are lost leave, and when none is left the leg ends.
    empty : sequence of collections of int
        `Tracked.empty` of the frames that are done.
    embeddings : SourceEmbeddings, optional
        Of the source, as `SAM2VideoPredictor.init_state` takes them.

    Yields
    ------
    Tracked or None
        None for a frame that was done and had to be computed once more.
    """
    frames = leg.frames()
    if storage is not None and not done:
        shutil.rmtree(storage, ignore_errors=True)
    state = start_state(predictor, source, storage, embeddings)
    losses = Losses(leg)
    try:
        position = done
        if until_lost:
            losses.recall(frames[:done], empty)
        if done and not (
            storage is not None and _remember(predictor, state, leg, frames, done, source.size, losses.lost)
        ):
            predictor.reset_state(state)
            losses = Losses(leg)
            position = 0
        while position < len(frames) and not losses.is_over(frames[position]):
            first = frames[position]
            count = _stretch(leg, frames, position)
            losses.begin(first)
            active = {i for i, a, b in leg.spans if _between(a, first, b)} - losses.lost
            gone = {i for i, a, b in leg.cleared if _between(a, first, b)}
            _change_objects(predictor, state, leg, first, active, source.size)
            with contextlib.closing(_advance(predictor, state, first, count, leg.reverse)) as stretch:
                for frame, found in stretch:
                    found = {i: patch for i, patch in found.items() if i in active}
                    result = _result(predictor, state, leg, frame, found, gone, source.size)
                    for item in state.objects.values():  # what no later frame can attend to
                        item.tracked.pop(frame + (state.keep + 1) * (1 if leg.reverse else -1))
                    position += 1
                    yield result if position > done else None
                    if until_lost and losses.saw(frame, result.empty):
                        break
    finally:
        state.close()


def confidence_of(predictor: Any, state: Any, frame: int, object_id: int, patch: Patch) -> float | None:
    """How sure the predictor is of an object's mask on a frame, in [0, 1] to three decimals.

    0 where the mask is empty; None if the predictor cannot say.
    """
    if not hasattr(predictor, "confidence"):
        return None
    if patch.is_empty:
        return 0.0
    return round(float(np.clip(predictor.confidence(state, frame, object_id), 0, 1)), 3)


def start_state(
    predictor: Any, source: FrameSource, storage: Path | None = None, embeddings: SourceEmbeddings | None = None
) -> Any:
    """A predictor's state for a line of planes; only one that is to use a cache has to know of `embeddings`."""
    cached = {} if embeddings is None else {"embeddings": embeddings}
    return predictor.init_state(source, storage_dir=storage, **cached)


def apply_seed(
    predictor: Any,
    state: Any,
    frame: int,
    object_id: int,
    seed: Seed,
    size: tuple[int, int],
    answer: bool = False,
    known: int = 0,
) -> np.ndarray | None:
    """Give the predictor all that is known of an object on one frame, in the order in which it was given.

    The first `known` prompts it was given before.

    Returns
    -------
    ndarray, (height, width) float32, or None
        With `answer`, the object's logits on the frame.
    """
    if isinstance(seed, Rle):
        return _of(object_id, predictor.add_new_mask(state, frame, object_id, seed.decode(), need_output=answer))
    logits = None
    points: list[tuple[float, float]] = []
    labels: list[int] = []
    for number, placed in enumerate(seed):
        area = placed.prompt.area(size)
        if area is not None:
            points, labels = [], []
        new_points, new_labels = placed.prompt.clicks()
        points, labels = points + new_points, labels + new_labels
        if number < known:
            continue
        if number == 0 and placed.base is not None and placed.prompt.box is None and area is None:
            predictor.add_new_mask(state, frame, object_id, placed.base.decode(), need_output=False)
        if area is not None:
            logits = _of(object_id, predictor.add_new_mask(state, frame, object_id, area, need_output=answer))
        if placed.prompt.box is not None:
            given: dict[str, Any] = {"box": np.array(placed.prompt.box, np.float32)}
            if points:
                given |= {"points": np.array(points, np.float32), "labels": np.array(labels, np.int32)}
        elif new_points:
            given = {"points": np.array(new_points, np.float32), "labels": np.array(new_labels, np.int32)}
            given["clear_old_points"] = False
        else:
            continue
        out = predictor.add_new_points_or_box(state, frame, object_id, need_output=answer, **given)
        logits = _of(object_id, out)
    return logits


def exact_mask(seed: Seed | None, size: tuple[int, int]) -> np.ndarray | None:
    """The mask that a seed lays down as it is, (height, width) bool; None if the model has the last word."""
    if seed is None or isinstance(seed, Rle):
        return None if seed is None else seed.decode()
    last = seed[-1].prompt
    if last.points is not None or last.box is not None or last.scribbles is not None:
        return None
    return last.area(size)


def compose(old: np.ndarray, results: Mapping[int, Patch], locked: Sequence[int] = ()) -> tuple[np.ndarray, Region]:
    """A plane of labels with new results in it.

    What the objects had there before goes. Where several of them claim a pixel the highest logit wins; other
    objects are painted over unless they are locked.

    Parameters
    ----------
    old : ndarray, (height, width) uint32
    results : mapping of int to Patch
        By object id.
    locked : sequence of int
        Ids that keep their pixels.

    Returns
    -------
    new : ndarray, (height, width) uint32
    region : (slice, slice)
        Rows and columns outside which nothing changed.
    """
    new = old.copy()
    theirs = np.isin(old, list(results))
    gone = mask_to_region(theirs)
    regions = [patch.region for patch in results.values() if patch.logits.size] + ([gone] if gone else [])
    if not regions:
        return new, NOWHERE
    rows, columns = (slice(min(s.start for s in part), max(s.stop for s in part)) for part in zip(*regions))
    before, after = old[rows, columns], new[rows, columns]  # the rest of a large plane stays as it is
    after[theirs[rows, columns]] = 0
    best = np.zeros(before.shape, np.float32)
    winner = np.zeros(before.shape, np.uint32)
    for object_id, patch in results.items():
        y, x = (slice(s.start - o.start, s.stop - o.start) for s, o in zip(patch.region, (rows, columns)))
        if patch.logits.size:
            ahead = patch.logits > best[y, x]
            best[y, x][ahead] = patch.logits[ahead]
            winner[y, x][ahead] = object_id
    paint = (winner > 0) & ~np.isin(before, list(locked))
    after[paint] = winner[paint]
    return new, (rows, columns)


def _result(
    predictor: Any,
    state: Any,
    leg: Leg,
    frame: int,
    found: dict[int, Patch],
    gone: Collection[int],
    size: tuple[int, int],
) -> Tracked:
    """What was found on a frame, masks that were given laid over it, and `gone` objects cleared."""
    patches: dict[int, Patch] = {}
    confidence: dict[int, float | None] = {}
    for object_id, answer in found.items():
        mask = exact_mask(leg.seeds[object_id].get(frame), size)
        if mask is None:
            patches[object_id] = answer
            confidence[object_id] = confidence_of(predictor, state, frame, object_id, answer)
        else:
            patches[object_id] = Patch.of_mask(mask)
            confidence[object_id] = 1.0
    empty = tuple(i for i, answer in patches.items() if answer.is_empty)
    for object_id in gone:
        patches[object_id] = Patch.nothing()
        confidence[object_id] = None
    return Tracked(frame, patches, confidence, empty)


def _stretch(leg: Leg, frames: list[int], start: int) -> int:
    """How many neighbours in `frames`, from the position `start` on, have the same objects."""
    both = (*leg.spans, *leg.cleared)
    joins, ends = {first for _, first, _ in both}, {last for _, _, last in both}
    for position in range(start + 1, len(frames)):
        before, here = frames[position - 1], frames[position]
        if here in joins or before in ends or abs(here - before) != 1:
            return position - start
    return len(frames) - start


def _change_objects(predictor: Any, state: Any, leg: Leg, first: int, active: set[int], size: tuple[int, int]) -> None:
    """Let objects leave whose stretch has ended, and those join whose stretch begins on the frame `first`."""
    joining = dict.fromkeys(i for i, a, _ in leg.spans if a == first)
    for object_id in list(state.obj_ids):
        if object_id not in active or object_id in joining:
            predictor.remove_object(state, object_id, need_output=False)
    for object_id in joining:
        _join(predictor, state, leg, object_id, size)


def _join(predictor: Any, state: Any, leg: Leg, object_id: int, size: tuple[int, int]) -> None:
    for frame, seed in sorted(leg.seeds[object_id].items()):
        apply_seed(predictor, state, frame, object_id, seed, size)


def _remember(
    predictor: Any,
    state: Any,
    leg: Leg,
    frames: list[int],
    done: int,
    size: tuple[int, int],
    lost: Collection[int],
) -> bool:
    """Bring a new state to where an earlier one was after `done` frames; False if its memory is not whole."""
    present: dict[int, int] = {}  # object id: first frame, in the order in which the objects joined
    position = 0
    while position < done:
        first = frames[position]
        active = {i for i, a, b in leg.spans if _between(a, first, b)}
        joining = dict.fromkeys(i for i, a, _ in leg.spans if a == first)
        present = {i: f for i, f in present.items() if i in active and i not in joining}
        present.update(dict.fromkeys(joining, first))
        position += _stretch(leg, frames, position)
    present = {i: f for i, f in present.items() if i not in lost}
    for object_id in present:
        _join(predictor, state, leg, object_id, size)
    stored = state.restore()
    for object_id, first in present.items():
        recent = frames[max(0, done - state.keep) : done]
        tracked = [f for f in recent if _between(first, f, frames[done - 1]) and f not in leg.seeds[object_id]]
        if not set(tracked) <= set(stored.get(object_id, ())):
            return False
    return True


def _between(first: int, frame: int, last: int) -> bool:
    return min(first, last) <= frame <= max(first, last)


def _advance(
    predictor: Any, state: Any, first: int, count: int, reverse: bool
) -> Generator[tuple[int, dict[int, Patch]]]:
    step = -1 if reverse else 1
    wanted = range(first, first + count * step, step)
    if not state.obj_ids:
        yield from ((frame, {}) for frame in wanted)
        return
    # backward from frame 0 the predictor gives nothing: come from frame 1, whose result is the same again
    early = 1 if reverse and first == 0 and state.num_frames > 1 else 0
    # whole logits of every object take long on large planes, and much memory
    sparing = {"need_output": False} if hasattr(predictor, "patches") else {}
    run = predictor.propagate_in_video(
        state, first + early, count - 1 + early, reverse and first + early > 0, progress=False, **sparing
    )
    with contextlib.closing(run):
        for frame, ids, logits in run:
            if frame in wanted:
                yield frame, patches_on(predictor, state, frame, ids, logits)


def patches_on(predictor: Any, state: Any, frame: int, ids: Sequence[int], logits: Any) -> dict[int, Patch]:
    """The masks on a frame, out of the whole `logits` if the predictor gives no others."""
    if hasattr(predictor, "patches"):
        return predictor.patches(state, frame)
    return {i: Patch.of_logits(values) for i, values in zip(ids, _numpy(logits)[:, 0])}


def _of(object_id: int, output: tuple[int, Sequence[int], Any]) -> np.ndarray | None:
    _, ids, logits = output
    return _numpy(logits[list(ids).index(object_id)])[0] if object_id in ids else None


def _numpy(values: Any) -> np.ndarray:
    return values.float().cpu().numpy() if hasattr(values, "cpu") else np.asarray(values, np.float32)
