"""Masks as the regions of Label Studio: in the control that the labeling setup has for them."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ls_backend.regions.ids import region_id
from ls_backend.regions.label_config import ControlTag, LabelConfig, ObjectTag
from ls_backend.regions.polygons import mask_polygons
from ls_backend.regions.prompts import ObjectPrompt
from ls_backend.regions.video_boxes import write_keyframes
from sam2_core.labelstore.formats.brush_rle import encode_brush
from sam2_core.masks import mask_to_box

if TYPE_CHECKING:
    from sam2_core.predict.prompted_images import ImageAnswer

Size = tuple[int, int]


def image_regions(
    answers: Sequence[tuple[ObjectPrompt | None, ImageAnswer]],
    config: LabelConfig,
    tag: ObjectTag,
    size: Size,
    item_index: int | None = None,
) -> list[dict[str, Any]]:
    """Regions for masks on an image: one for each, but of polygons one for each part; none for an empty mask.

    An answer to the same prompts, or to more of them, has the same ids as before and so takes the place of the one
    before; what nobody prompted has an id of its own mask. All regions of an object have its key in `meta.sam2`.

    Parameters
    ----------
    answers : sequence of (ObjectPrompt or None, ImageAnswer)
    config : LabelConfig
    tag : ObjectTag
        What the masks are on.
    size : (int, int)
        Height and width of the image and the masks.
    item_index : int, optional
        Of the image in a stack.

    Raises
    ------
    RequestError
        The labeling setup has no control for masks, or not with a label that was asked for.
    """
    found: list[dict[str, Any]] = []
    for prompt, answer in answers:
        mask = np.asarray(answer.mask, bool)
        label = prompt.label if prompt else None
        control = config.answer(tag, label)
        if not mask.any():
            continue
        key = ("object", prompt.key) if prompt else ("mask", np.packbits(mask).tobytes().hex())
        place = {} if item_index is None else {"item_index": item_index}
        for part, value in enumerate(_values(control.kind.removesuffix("labels"), mask, size)):
            facts = {
                "id": region_id(*key, label, item_index, part),
                "score": round(float(answer.score), 4),
                "original_width": size[1],
                "original_height": size[0],
                "image_rotation": 0,
                **place,
                **({"meta": {"sam2": prompt.key}} if prompt else {}),
            }
            found += _results(control, label, value, facts)
    return found


def video_regions(
    tracks: Mapping[str, Mapping[int, np.ndarray | None]],
    prompts: Sequence[ObjectPrompt],
    config: LabelConfig,
    tag: ObjectTag,
    size: Size,
    frame_count: int,
    framerate: float,
    scores: Mapping[str, Sequence[float]] | None = None,
) -> list[dict[str, Any]]:
    """Regions for objects of a video: keyframed boxes around their masks, with the ids of the prompted regions.

    Parameters
    ----------
    tracks : mapping of str to mapping of int to ndarray (H, W) bool
        By key of the object and by frame from 0; None, or no entry, where the object is not.
    prompts : sequence of ObjectPrompt
    config : LabelConfig
    tag : ObjectTag
    size : (int, int)
        Height and width of the video.
    frame_count : int
    framerate : float
        Frames per second.
    scores : mapping of str to sequence of float, optional
        By key of the object; the region gets their mean.

    Returns
    -------
    list of dict
        With the key of the object in `meta.sam2`. An object that is on no frame gives none.

    Raises
    ------
    RequestError
        The labeling setup has no control for boxes in a video, or not with a label that was asked for.
    """
    found = []
    for prompt in prompts:
        control = config.answer(tag, prompt.label)
        prompted = [each.frame for each in prompt.frames]
        boxes = _boxes(tracks.get(prompt.key, {}), prompt)
        if not boxes:
            continue
        value: dict[str, Any] = {
            "framesCount": frame_count,
            "duration": frame_count / framerate,
            "sequence": write_keyframes(boxes, prompted, size, frame_count, framerate),
        }
        if prompt.label is not None:
            value["labels"] = [prompt.label]  # a video's regions carry the labels of the <Labels> beside
        own = list((scores or {}).get(prompt.key, ()))
        facts: dict[str, Any] = {"id": prompt.key, "meta": {"sam2": prompt.key}}
        if own:
            facts["score"] = round(float(np.mean(own)), 4)
        found.append(_result(control.name, control.kind, control.to_name, value, facts))
    return found


def _boxes(track: Mapping[int, np.ndarray | None], prompt: ObjectPrompt) -> dict[int, np.ndarray]:
    """Boxes by frame where the object is; where it was prompted but not found, the box that was drawn."""
    boxes = {each.frame: np.rint(each.box) for each in prompt.frames if each.box is not None}
    for frame, mask in track.items():
        if mask is not None and mask.any() and not any(frame in span for span in prompt.absent):
            boxes[frame] = mask_to_box(mask)
    return boxes


def _values(kind: str, mask: np.ndarray, size: Size) -> Iterator[dict[str, Any]]:
    """What a region of a kind says about where it is."""
    percent = 100 / np.array([size[1], size[0]])
    if kind == "brush":
        yield {"format": "rle", "rle": encode_brush(mask)}
    elif kind == "bitmask":
        yield {"imageDataURL": _data_url(mask)}
    elif kind == "polygon":
        for corners in mask_polygons(mask):
            yield {"points": np.minimum(corners * percent, 100).tolist(), "closed": True}
    else:
        box = mask_to_box(mask)
        (x, y), (width, height) = box[:2] * percent, (box[2:] - box[:2] + 1) * percent
        yield {"x": float(x), "y": float(y), "width": float(width), "height": float(height), "rotation": 0}


def _data_url(mask: np.ndarray) -> str:
    """A PNG as Label Studio makes it: black where the mask is, transparent elsewhere."""
    from PIL import Image

    pixels = np.zeros((*mask.shape, 4), np.uint8)
    pixels[..., 3] = mask * np.uint8(255)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=3)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _results(
    control: ControlTag, label: str | None, value: dict[str, Any], facts: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    """One result, or two of the same id where the labels are a control of their own."""
    if label is None and len(control.labels) == 1:
        label = control.labels[0]
    if label is None:
        yield _result(control.name, control.kind, control.to_name, value, facts)
    elif control.labels_from is None:
        labels = {control.kind: [label]} if control.kind.endswith("labels") else {}
        yield _result(control.name, control.kind, control.to_name, value | labels, facts)
    else:
        yield _result(control.name, control.kind, control.to_name, value, facts)
        yield _result(control.labels_from, "labels", control.to_name, value | {"labels": [label]}, facts)


def _result(name: str, kind: str, to_name: str, value: dict[str, Any], facts: dict[str, Any]) -> dict[str, Any]:
    return {**facts, "from_name": name, "to_name": to_name, "type": kind, "origin": "prediction", "value": value}
