"""A task and its annotations become an item of the label store: `make_item`.

What counts is the newest annotation that was not skipped, one that is marked as ground truth before all others. Its
regions become objects, later ones above earlier ones. Regions that are nested in another one are one object with it,
and so are those that this server made of one object, and in a stack those that overlap from image to image.

A rectangle is no outline, and a model that learned from rectangles would draw rectangles. So rectangles are kept as
prompts beside the labels; where there is nothing else, nothing is labelled. Those of a video become the masks of which
they are the boxes, where these were kept.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from ls_backend.learning.task_images import TaskImage, open_image
from ls_backend.learning.track_boxes import boxes_on_frames
from ls_backend.regions.label_config import LabelConfig, ObjectTag
from ls_backend.volumes.linking import joined
from sam2_core.errors import InputError
from sam2_core.labelstore.coverage import Coverage, PlaneState
from sam2_core.labelstore.formats.incoming import stack_planes
from sam2_core.labelstore.formats.label_studio_regions import region_corners, region_kind, region_mask
from sam2_core.labelstore.records import LabelledThing, Provenance
from sam2_core.labelstore.store import ItemVersion
from sam2_core.masks import mask_to_rle, rle_to_mask

if TYPE_CHECKING:
    from ls_backend.volumes.tasks import VolumeTask
    from sam2_core.volume.labels import LabelVolume

MasksFor = Callable[[int, str, int], "np.ndarray | None"]
"""Gives the mask (H, W), bool, that was tracked for task, region and frame from 0; None if none was."""

SAME_PLACE = 0.5
"""Least IoU of a tracked mask's box with the box of the annotation: below, the annotator has moved it."""

Box = tuple[float, float, float, float]
_Region = Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class TaskItem:
    """What `LabelStore.add` needs.

    Attributes
    ----------
    image : TaskImage
    labels : array
        uint32, on the grid of the image without its channels; read plane by plane.
    coverage : Coverage
    objects : dict of int to LabelledThing
    group : str or None
    provenance : Provenance
    """

    image: TaskImage
    labels: Any
    coverage: Coverage
    objects: dict[int, LabelledThing] = field(default_factory=dict)
    group: str | None = None
    provenance: Provenance = field(default_factory=Provenance)


def counting_annotation(task: Mapping[str, Any]) -> dict[str, Any] | None:
    """The annotation of a task that counts, as the API gives it; None if there is none."""
    done = [a for a in task.get("annotations") or [] if not a.get("was_cancelled") and a.get("result") is not None]
    return max(
        done, key=lambda a: (bool(a.get("ground_truth")), str(a.get("updated_at")), a.get("id", 0)), default=None
    )


def annotated_tag(config: LabelConfig, annotation: Mapping[str, Any]) -> ObjectTag | None:
    """What an annotation is about: the first image, stack or video on which it has regions.

    An annotation without any says that there is nothing on an image; it says nothing of a stack or a video. Choices,
    ratings and the like say nothing of objects. Then it is None.
    """
    result = annotation["result"]
    names = {str(region.get("to_name")) for region in result if _kind(region) is not None}
    if not result:
        return next((tag for tag in config.objects[:1] if tag.kind == "image"), None)
    return next((tag for tag in config.objects if tag.name in names), None)


def addresses_of(task: Mapping[str, Any], tag: ObjectTag) -> list[str]:
    """Where the image, the images or the video of a task are.

    Raises
    ------
    InputError
        The task does not say, or not as the tag needs it.
    """
    value = (task.get("data") or {}).get(tag.key)
    given = value if tag.kind == "stack" and isinstance(value, list) else [value]
    found = [address for address in given if isinstance(address, str) and address]
    if not found or len(found) < len(given):
        wanted = "list of addresses" if tag.kind == "stack" else "address"
        raise InputError(f"the task's {tag.key}, which the tag {tag.name} shows, is no {wanted}")
    return found


def digest_of_annotation(task: Mapping[str, Any], annotation: Mapping[str, Any], is_partial: bool) -> str:
    """SHA-256 of all that an item is made of."""
    parts = [annotation.get("id"), annotation["result"], task.get("data"), task.get("meta"), is_partial]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def make_item(
    task: Mapping[str, Any],
    annotation: Mapping[str, Any],
    tag: ObjectTag,
    source: Sequence[Path] | VolumeTask | ItemVersion,
    *,
    max_pixels: int,
    masks_for: MasksFor | None = None,
    is_partial: bool = False,
) -> TaskItem:
    """The item of a task.

    Parameters
    ----------
    task, annotation : mapping
        As Label Studio's API gives them.
    tag : ObjectTag
        What was annotated.
    source : sequence of Path, VolumeTask or ItemVersion
        See `open_image`.
    max_pixels : int
        Of an image.
    masks_for : callable, optional
        Masks that were tracked.
    is_partial : bool
        Annotators do not label everything that is to be seen.

    Raises
    ------
    InputError
        An image cannot be read, or a region is damaged or does not fit it.
    """
    image = open_image(source, tag.kind, max_pixels, _framerate(task, tag))
    canvas = _Canvas(image.places, image.size)
    things: dict[int, LabelledThing] = {}
    prompts: list[dict[str, Any]] = []
    for number, thing in enumerate(_things(annotation["result"], tag), 1):
        boxes: list[dict[str, Any]] = []
        for region in thing.regions:
            try:
                boxes += _place(canvas, number, region, task, masks_for)
            except (KeyError, TypeError, ValueError) as error:  # InputError is a ValueError, too
                raise InputError(f"region {region.get('id')}: {error}") from None
        things[number] = LabelledThing(class_name=thing.label)
        if boxes:
            prompts.append({"id": number, **({"class": thing.label} if thing.label else {}), "prompts": boxes})
    if tag.kind == "stack":
        numbers = _linked(canvas, things)
        canvas.rename(numbers)
        prompts = [{**prompt, "id": numbers.get(prompt["id"], prompt["id"])} for prompt in prompts]
        things = {number: things[number] for number in numbers.values()}
    is_partial = is_partial or tag.kind == "video"
    states = np.array([canvas.state(i, is_partial) for i in range(image.planes)], np.uint8)
    if tag.kind == "image" and not annotation["result"]:
        states[:] = PlaneState.partial if is_partial else PlaneState.complete
    flat = len(image.shape) == 2
    labels = canvas.paint(0) if flat else stack_planes(canvas.paint, image.planes, image.size)
    drawn = set(np.unique(labels).tolist()) if flat else canvas.numbers
    return TaskItem(
        image=image,
        labels=labels,
        coverage=Coverage(image.axes[:-2], states.reshape(image.shape[:-2])),
        objects={number: thing for number, thing in things.items() if number in drawn},
        group=_group(task) or image.group,
        provenance=_provenance(task, annotation, prompts),
    )


class _Canvas:
    """What is on each plane: the masks of objects by number, which are read when the plane is painted.

    Parameters
    ----------
    places : sequence of int
        The plane that is seen as each image that Label Studio counts.
    size : (int, int)
        Height and width.
    """

    def __init__(self, places: Sequence[int], size: tuple[int, int]) -> None:
        self.places = places
        self.size = size
        self.boxed: set[int] = set()
        self._masks: dict[int, list[tuple[int, str, Callable[[], np.ndarray]]]] = {}
        self._final: np.ndarray | None = None

    @property
    def planes(self) -> list[int]:
        """Those on which there is a mask."""
        return sorted(self._masks)

    @property
    def numbers(self) -> set[int]:
        """Of all objects that have a mask."""
        return {number for masks in self._masks.values() for number, _, _ in masks}

    def add(self, plane: int, number: int, name: str, mask: Callable[[], np.ndarray]) -> None:
        """Put an object's mask on a plane, above those that are there."""
        self._masks.setdefault(plane, []).append((number, name, mask))

    def has(self, plane: int, number: int) -> bool:
        """Whether an object has a mask on a plane."""
        return any(known == number for known, _, _ in self._masks.get(plane, ()))

    def state(self, plane: int, is_partial: bool) -> PlaneState:
        """How far a plane is labelled."""
        if plane not in self._masks:
            return PlaneState.none
        return PlaneState.partial if is_partial or plane in self.boxed else PlaneState.complete

    def paint(self, plane: int) -> np.ndarray:
        """The numbers on a plane, (H, W), uint32."""
        labels = np.zeros(self.size, np.uint32)
        for number, name, mask in self._masks.get(plane, ()):
            try:
                labels[mask()] = number
            except (KeyError, TypeError, ValueError, IndexError) as error:
                raise InputError(f"region {name}: {error}") from None
        return labels if self._final is None else self._final[labels]

    def read_plane(self, axis: str | None, plane: int, fixed: Mapping[str, int]) -> np.ndarray:
        """As `paint`, for `joined`."""
        return self.paint(plane)

    def rename(self, numbers: Mapping[int, int]) -> None:
        """Give objects other numbers."""
        self._final = np.zeros(max(numbers, default=0) + 1, np.uint32)
        for old, new in numbers.items():
            self._final[old] = new


@dataclass
class _Thing:
    """The regions that are one object."""

    regions: list[_Region] = field(default_factory=list)
    label: str | None = None


def _place(
    canvas: _Canvas, number: int, region: _Region, task: Mapping[str, Any], masks_for: MasksFor | None
) -> list[dict[str, Any]]:
    """Put a region on the canvas; of one that is a box, the prompts that say so."""
    name = str(region.get("id"))
    if _kind(region) == "videorectangle":
        boxes = boxes_on_frames(region, canvas.size, len(canvas.places))
        for frame, box in boxes.items():
            plane = canvas.places[frame]
            if canvas.has(plane, number):  # a frame of the file that is seen twice
                continue
            mask = None if masks_for is None else masks_for(int(task["id"]), name, frame)
            if mask is not None and mask.shape == canvas.size and _iou(_box_of(mask), box) >= SAME_PLACE:
                canvas.add(plane, number, name, partial(rle_to_mask, mask_to_rle(mask)))
            else:
                canvas.boxed.add(plane)
        keys = {int(key["frame"]) - 1 for key in region["value"]["sequence"]}
        return [{"frame": canvas.places[i], "box": list(boxes[i])} for i in sorted(keys & set(boxes))]
    index = int(region.get("item_index") or 0)
    if not 0 <= index < len(canvas.places):
        raise InputError(f"it is on image {index}, and the stack has {len(canvas.places)}")
    plane = canvas.places[index]
    if _kind(region) == "rectangle":
        corners = region_corners(dict(region), canvas.size)
        canvas.boxed.add(plane)
        return [{"frame": plane, "box": [*corners.min(0).tolist(), *corners.max(0).tolist()]}]
    canvas.add(plane, number, name, partial(region_mask, dict(region), canvas.size))
    return []


def _things(result: Sequence[_Region], tag: ObjectTag) -> list[_Thing]:
    """The objects of an annotation in its order. Entries of one id are one region."""
    own = [region for region in result if region.get("to_name") == tag.name]
    parents = {str(r.get("id")): str(r["parentID"]) for r in own if r.get("parentID")}
    keys: dict[str, str] = {}
    found: dict[str, _Thing] = {}
    for region in own:
        root, seen = str(region.get("id")), set()
        while root in parents and root not in seen:
            seen.add(root)
            root = parents[root]
        if (key := _key(region)) is not None:
            keys.setdefault(root, key)
        thing = found.setdefault(keys.get(root, root), _Thing())
        if _kind(region) is not None:
            thing.regions.append(region)
        thing.label = thing.label or _label(region)
    return [thing for thing in found.values() if thing.regions]


def _linked(canvas: _Canvas, things: Mapping[int, LabelledThing]) -> dict[int, int]:
    """For every object of a stack the least number of what it is one with: one after the other, they overlap."""
    planes = canvas.planes
    step = max((b - a for a, b in pairwise(planes)), default=1)
    classes = {number: things[number].class_name for number in sorted(canvas.numbers)}
    labels = cast("LabelVolume", canvas)  # of which planes are read, and nothing else
    return joined(labels, None, [((), plane) for plane in planes], classes, step=step)


def _framerate(task: Mapping[str, Any], tag: ObjectTag) -> float:
    """Frames a second by which Label Studio counts those of a video."""
    given = (task.get("data") or {}).get(tag.framerate_key) if tag.framerate_key else None
    try:
        return tag.framerate if given is None else float(given)
    except (TypeError, ValueError):
        return tag.framerate


def _kind(region: _Region) -> str | None:
    return "videorectangle" if region.get("type") == "videorectangle" else region_kind(dict(region))


def _key(region: _Region) -> str | None:
    """What this server gave the regions of one object."""
    meta = region.get("meta")
    key = meta.get("sam2") if isinstance(meta, Mapping) else None
    return f"object {key}" if isinstance(key, str) and key else None


def _label(region: _Region) -> str | None:
    value = region.get("value")
    if not isinstance(value, Mapping):
        return None
    names = next((v for k, v in value.items() if k.endswith("labels") and isinstance(v, list) and v), None)
    return None if names is None else str(names[0])


def _group(task: Mapping[str, Any]) -> str | None:
    """What the task's author says must not be split."""
    meta = task.get("meta")
    group = meta.get("group") if isinstance(meta, Mapping) else None
    return None if group in (None, "") else str(group)


def _provenance(
    task: Mapping[str, Any], annotation: Mapping[str, Any], prompts: Sequence[dict[str, Any]]
) -> Provenance:
    origins = {str(region.get("origin", "manual")) for region in annotation["result"]}
    parent = annotation.get("parent_prediction")
    predictions = [p for p in task.get("predictions") or [] if p.get("model_version")]
    newest = max(predictions, key=lambda p: (p.get("id") == parent, str(p.get("created_at"))), default=None)
    is_predicted = parent is not None or any(origin.startswith("prediction") for origin in origins)
    return Provenance(
        author=_author(annotation),
        tool="label-studio",
        status="drawn" if not is_predicted else "accepted" if origins == {"prediction"} else "corrected",
        model=str(newest["model_version"]) if is_predicted and newest else None,
        prompts=tuple(prompts),
    )


def _author(annotation: Mapping[str, Any]) -> str | None:
    """Who annotated, as far as Label Studio tells."""
    by = annotation.get("completed_by")
    if isinstance(by, Mapping) and by.get("email"):
        return str(by["email"])
    name = str(annotation.get("created_username") or "").rpartition(",")[0].strip()  # "First Last a@b.org, 1"
    number = by.get("id") if isinstance(by, Mapping) else by
    return name or (None if number is None else f"user {number}")


def _box_of(mask: np.ndarray) -> Box:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not rows.size:
        return 0.0, 0.0, 0.0, 0.0
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def _iou(a: Box, b: Box) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    common = max(width, 0.0) * max(height, 0.0)
    areas = sum((x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in (a, b))
    return common / max(areas - common, 1e-9)
