"""What an annotator drew, as prompts for the model: points, boxes and rough masks in pixels, by object.

Which prompts belong to one object: regions that have the same id, the same parent, or a relation between them, if
they have the same label. Beyond that every rectangle, ellipse and polygon is an object, but of several frames those
that overlap most are one; all clicks and brush strokes of a label are one object, except those inside exactly one of
the label's areas, which belong to it, as all do if there is only one. A key point that does not say whether it is
positive is no click but a finding, and an object of its own. In a video every region is an object.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ls_backend.errors import RequestError
from ls_backend.regions.ids import region_id
from ls_backend.regions.label_config import LabelConfig, ObjectTag
from ls_backend.regions.shapes import Shape, read_shapes
from ls_backend.regions.video_boxes import read_keyframes
from sam2_core.errors import InputError
from sam2_core.labelstore.formats.label_studio_regions import region_labels

MAX_POINTS = 100
"""Most points of an object on a frame: the model takes them one after the other, and everybody else waits."""

Size = tuple[int, int]


@dataclass(frozen=True, eq=False)
class FramePrompt:
    """Prompts for an object on one frame.

    Attributes
    ----------
    frame : int
        From 0.
    points : ndarray, (N, 2), float32
        x and y in pixels; the centre of the top left pixel is (0, 0).
    labels : ndarray, (N,), int32
        1 for points on the object, 0 for points beside it.
    box : ndarray, (4,), float32, optional
        x0, y0, x1, y1.
    mask : ndarray, (H, W), bool, optional
        Rough; to be refined.
    """

    frame: int
    points: np.ndarray
    labels: np.ndarray
    box: np.ndarray | None = None
    mask: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class ObjectPrompt:
    """An object that is asked for.

    Attributes
    ----------
    key : str
        The same for the same object when its prompts are sent again with more of them; in a video the region's id.
    label : str, optional
    frames : tuple of FramePrompt
        In order.
    absent : tuple of range
        Frames of a video on which the object is not, as the annotator says.
    """

    key: str
    label: str | None
    frames: tuple[FramePrompt, ...]
    absent: tuple[range, ...] = ()


def read_prompts(
    regions: Sequence[dict[str, Any]], config: LabelConfig, tag: ObjectTag, size: Size, frames: int = 1
) -> list[ObjectPrompt]:
    """Read the regions of a request that were drawn on an image, a stack of images or a video.

    Results that are nothing drawn (choices, texts) and those of other tags are passed over.

    Parameters
    ----------
    regions : sequence of dict
        As Label Studio sends them.
    config : LabelConfig
    tag : ObjectTag
        What they were drawn on.
    size : (int, int)
        Height and width of the image as it is shown, so turned by its EXIF data. How the annotator has turned the view
        does not matter: coordinates are those of the image before that.
    frames : int
        How many there are.

    Raises
    ------
    RequestError
        A region is damaged, on a frame that there is not, outside of the image, or no prompt; there are only negative
        prompts, or too many points of one object; or the labeling setup has no control for the answer.
    """
    if not all(isinstance(region, dict) for region in regions):
        raise RequestError("the regions of the request are damaged: each has to be an object")
    own = [region for region in regions if region.get("to_name", tag.name) == tag.name]
    try:
        objects = (
            _video_objects(own, config.answer(tag, None).labels, size, frames)
            if tag.kind == "video"
            else _image_objects(own, size, frames if tag.kind == "stack" else None)
        )
    except RequestError:
        raise
    except InputError as error:
        raise RequestError(str(error)) from None
    for each in objects:
        config.answer(tag, each.label)  # better said now than when the answer is there
        if (most := max(len(frame.points) for frame in each.frames)) > MAX_POINTS:
            raise RequestError(f"an object has {most} points, more than {MAX_POINTS}: delete some, or draw a box")
    return objects


def _image_objects(regions: list[dict[str, Any]], size: Size, frames: int | None) -> list[ObjectPrompt]:
    shapes = read_shapes(regions, size, frames)
    by_label: dict[str | None, list[Shape]] = {}
    for shape in shapes:
        by_label.setdefault(shape.label, []).append(shape)
    objects = [group for same_label in by_label.values() for group in _objects(same_label)]
    positive = [group for group in objects if any(shape.positive for shape in group)]
    if objects and not positive:
        raise RequestError("there are only negative clicks: click on the object first, without Alt")
    return _with_unique_keys(_object(group) for group in positive)


def _video_objects(
    regions: Sequence[dict[str, Any]], labels: Sequence[str], size: Size, frames: int
) -> list[ObjectPrompt]:
    """The objects of a video that were drawn or changed since they were answered.

    A label that is none of `labels` is that of a button with which the answer was asked for.
    """
    found: dict[str, ObjectPrompt] = {}
    for number, (region, label) in enumerate(zip(regions, region_labels(regions))):
        if region.get("type") != "videorectangle":
            continue
        prompt = read_keyframes(region.get("value"), size, frames)
        if not prompt.changed or not prompt.boxes:
            continue
        label = label if label in labels or not labels else None
        key = str(region.get("id") or region_id(label, number))
        boxes = tuple(_frame_prompt(frame, [], box) for frame, box in sorted(prompt.boxes.items()))
        found[key] = ObjectPrompt(key, label, boxes, prompt.absent)
    return list(found.values())


def _objects(shapes: list[Shape]) -> list[list[Shape]]:
    """The shapes of one label, by object."""
    groups = _tied(shapes)
    tied = [group for group in groups if len(group) > 1]
    alone = [group[0] for group in groups if len(group) == 1]
    areas = _followed([shape for shape in alone if shape.box is not None])
    findings, clicks = [], []
    for shape in alone:
        if shape.box is not None:
            continue
        middle = shape.points.mean(axis=0)
        around = [group for group in areas if any(area.holds(middle) for area in group)]
        if len(areas) == 1 and shape.is_click:
            around = areas
        if len(around) == 1:
            around[0].append(shape)
        elif shape.is_click:
            clicks.append(shape)
        else:
            findings.append([shape])
    return [group for group in (*tied, *areas, *findings, clicks) if group]


def _tied(shapes: list[Shape]) -> list[list[Shape]]:
    """Shapes that share a tie, directly or by way of others, together."""
    groups: dict[str, list[Shape]] = {}
    for shape in shapes:
        near = {id(group): group for tie in shape.ties if (group := groups.get(tie)) is not None}
        merged = [*(other for group in near.values() for other in group), shape]
        groups.update({tie: merged for other in merged for tie in other.ties})
    return list({id(group): group for group in groups.values()}.values())


def _followed(areas: list[Shape]) -> list[list[Shape]]:
    """Areas on several frames joined where they overlap most; an object has one area on a frame."""
    groups: list[list[Shape]] = []
    for shape in sorted(areas, key=lambda area: area.frame):
        free = [group for group in groups if all(other.frame != shape.frame for other in group)]
        overlaps = [shape.overlap(group[-1]) for group in free]
        if overlaps and max(overlaps) > 0:
            free[int(np.argmax(overlaps))].append(shape)
        else:
            groups.append([shape])
    return groups


def _object(shapes: list[Shape]) -> ObjectPrompt:
    frames = []
    for frame in sorted({shape.frame for shape in shapes}):
        here = [shape for shape in shapes if shape.frame == frame]
        boxes = np.array([shape.box for shape in here if shape.box is not None and shape.mask is None])
        box = np.concatenate([boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)]) if len(boxes) else None
        frames.append(_frame_prompt(frame, here, box))
    ids = {shape.id for shape in shapes}
    parents = sorted({shape.parent for shape in shapes if shape.parent and shape.parent not in ids})
    heads = [shape.id for shape in shapes if any(other.parent == shape.id for other in shapes)]
    key = (*parents, *heads, shapes[0].id)[0]
    return ObjectPrompt(key, shapes[0].label, tuple(frames))


def _frame_prompt(frame: int, shapes: list[Shape], box: np.ndarray | None) -> FramePrompt:
    masks = [shape.mask for shape in shapes if shape.mask is not None]
    points = [shape.points for shape in shapes]
    labels = [np.full(len(shape.points), shape.positive) for shape in shapes]
    return FramePrompt(
        frame,
        np.concatenate([np.zeros((0, 2)), *points]).astype(np.float32),
        np.concatenate([np.zeros(0), *labels]).astype(np.int32),
        None if box is None else box.astype(np.float32),
        np.any(masks, axis=0) if masks else None,
    )


def _with_unique_keys(objects: Iterable[ObjectPrompt]) -> list[ObjectPrompt]:
    """Objects of several labels can have the same parent."""
    found: dict[str, ObjectPrompt] = {}
    for each in objects:
        key = each.key
        while key in found:
            key = f"{key} {each.label}"
        found[key] = replace(each, key=key)
    return list(found.values())
