"""Prompts: the schema of the prompts file, its reading and checking, and what the journal stores of a prompt.

One schema serves both: in a file a mask may be the path of an image; once read, every mask is a COCO RLE.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    FiniteFloat,
    ValidationError,
    field_validator,
    model_validator,
)

from sam2_core.errors import InputError
from sam2_core.volume.rle import Rle

__all__ = [
    "LabelledObject",
    "Prompt",
    "PromptFile",
    "Scribble",
    "load_prompts",
    "parse_prompts",
]

MAX_ID = 2**32 - 1
SCRIBBLE_POINTS = 8
"""Points that a scribble gives the model; SAM 2 was trained with up to eight clicks on an object."""

Point = tuple[FiniteFloat, FiniteFloat]


def _check_frame(value: Any) -> Any:
    if isinstance(value, Mapping):
        if not value or any(k not in ("t", "z", "y", "x") for k in value):
            raise ValueError('must name axes out of t, z, y and x, as {"t": 3, "z": 10}')
        indices = list(value.values())
    else:
        indices = [value]
    if any(isinstance(i, bool) or not isinstance(i, int) or i < 0 for i in indices):
        raise ValueError('must be a number from 0, or {"t": 3, "z": 10} for a 3D time-lapse')
    return value


Frame = Annotated[int | dict[str, int], BeforeValidator(_check_frame)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Scribble(_Model):
    """A line drawn through an object (label 1) or through what is not the object (label 0)."""

    points: tuple[Point, ...] = Field(min_length=1, description="Corners of the line, [x, y] in pixels.")
    label: Literal[0, 1] = 1

    def sampled(self) -> list[tuple[float, float]]:
        """At most `SCRIBBLE_POINTS` points at equal distances along the line, none at its very ends."""
        corners = np.array(self.points, float)
        steps = np.hypot(*np.diff(corners, axis=0).T) if len(corners) > 1 else np.zeros(0)
        length = float(steps.sum())
        if length == 0:
            return [self.points[0]]
        count = int(np.clip(length // 4, 1, SCRIBBLE_POINTS))
        along = (np.arange(count) + 0.5) * length / count
        marks = np.concatenate([[0.0], np.cumsum(steps)])
        xs, ys = (np.interp(along, marks, corners[:, i]) for i in (0, 1))
        return [(float(x), float(y)) for x, y in zip(xs, ys)]


class Prompt(_Model):
    """What a user shows on one frame; coordinates are (x, y) in pixels, (0, 0) the centre of the top-left one."""

    frame: Frame = Field(description='Frame number, or {"t": 3, "z": 10} in a 3D time-lapse.')
    points: tuple[Point, ...] | None = Field(default=None, min_length=1, description="Clicks, [x, y] each.")
    labels: tuple[Literal[0, 1], ...] | None = Field(
        default=None, description="One per point: 1 on the object, 0 off it."
    )
    box: tuple[FiniteFloat, FiniteFloat, FiniteFloat, FiniteFloat] | None = Field(
        default=None, description="[x0, y0, x1, y1], x0 < x1 and y0 < y1."
    )
    scribbles: tuple[Scribble, ...] | None = Field(default=None, min_length=1, description="Lines, sampled to points.")
    mask: str | Rle | None = Field(
        default=None,
        description="An image of the frame's size, not 0 on the object (path from the file), or a COCO RLE.",
    )
    lasso: tuple[Point, ...] | None = Field(
        default=None, min_length=3, description="Outline of the object, [x, y] corners; filled, it is a mask."
    )

    @field_validator("box")
    @classmethod
    def _box_has_area(cls, box: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if box is not None and not (box[0] < box[2] and box[1] < box[3]):
            raise ValueError("must be [x0, y0, x1, y1] with x0 < x1 and y0 < y1")
        return box

    @model_validator(mode="after")
    def _is_whole(self) -> Prompt:
        if self.points is None and self.labels is not None:
            raise ValueError("has labels without points")
        if self.points is not None and self.labels is None:
            raise ValueError("has points without labels: give one label a point, 1 on the object and 0 off it")
        if self.points is not None and self.labels is not None and len(self.points) != len(self.labels):
            raise ValueError(f"has {len(self.points)} points but {len(self.labels)} labels: give one label a point")
        if self.mask is not None and self.lasso is not None:
            raise ValueError("has both a mask and a lasso: give one of them")
        if all(v is None for v in (self.points, self.box, self.scribbles, self.mask, self.lasso)):
            raise ValueError("is empty: give points, a box, scribbles, a mask or a lasso")
        return self

    def clicks(self) -> tuple[list[tuple[float, float]], list[int]]:
        """All points with their labels, those of scribbles included."""
        points, labels = list(self.points or ()), [int(v) for v in self.labels or ()]
        for scribble in self.scribbles or ():
            sampled = scribble.sampled()
            points += sampled
            labels += [int(scribble.label)] * len(sampled)
        return points, labels

    def area(self, size: tuple[int, int]) -> np.ndarray | None:
        """The mask given by `mask` or `lasso`, (height, width) bool; None if there is neither."""
        if isinstance(self.mask, Rle):
            return self.mask.decode()
        if self.lasso is not None:
            from skimage.draw import polygon2mask

            return polygon2mask(size, np.array(self.lasso, float)[:, ::-1])
        return None

    def check(self, size: tuple[int, int]) -> None:
        """Check that the prompt lies in a plane of `size` (height, width).

        Raises
        ------
        ValueError
            What is wrong, to be put after the prompt's name.
        """
        height, width = size
        corners = list(self.points or ()) + [p for s in self.scribbles or () for p in s.points]
        for x, y in corners:
            if not (-0.5 <= x <= width - 0.5 and -0.5 <= y <= height - 0.5):
                raise ValueError(f"has the point ({x:g}, {y:g}) outside the {width} x {height} pixels of the image")
        if self.box is not None and not (min(self.box) >= -0.5 and self.box[2] <= width and self.box[3] <= height):
            box = ", ".join(f"{v:g}" for v in self.box)
            raise ValueError(f"has the box ({box}) outside the {width} x {height} pixels of the image")
        if isinstance(self.mask, Rle) and tuple(self.mask.size) != (height, width):
            raise ValueError(
                f"has a mask of {self.mask.size[1]} x {self.mask.size[0]} pixels, but the image has {width} x {height}"
            )
        area = self.area(size)
        if area is not None and not area.any():
            raise ValueError("has an empty mask" if self.lasso is None else "has a lasso that holds no pixel")


class LabelledObject(_Model):
    """One object and its prompts."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    id: int = Field(ge=1, le=MAX_ID, strict=True, description="Its number in the labels, from 1.")
    name: str | None = None
    class_name: str | None = Field(default=None, alias="class", description="What kind of thing it is.")
    colour: str | None = Field(default=None, pattern="^#[0-9a-fA-F]{6}$", description="#rrggbb, for display.")
    prompts: tuple[Prompt, ...] = Field(min_length=1)


class PromptFile(_Model):
    """The prompts of all objects of an image or volume."""

    objects: tuple[LabelledObject, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _ids_differ(self) -> PromptFile:
        seen: set[int] = set()
        for item in self.objects:
            if item.id in seen:
                raise ValueError(f"two objects have the id {item.id}: give each its own")
            seen.add(item.id)
        return self


def make_prompt(object_id: int, frame: int | Mapping[str, int], mask: np.ndarray | None = None, **given: Any) -> Prompt:
    """A prompt from arrays; `given` are the fields of `Prompt`, None where absent.

    Raises
    ------
    InputError
        If the prompt is not whole.
    """
    plain = {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in given.items() if v is not None}
    if mask is not None:
        plain["mask"] = Rle.encode(np.asarray(mask, bool))
    return parse_prompts({"objects": [{"id": object_id, "prompts": [{"frame": frame, **plain}]}]}).objects[0].prompts[0]


def load_prompts(path: str | Path) -> PromptFile:
    """Read a prompts file; paths of masks are made relative to where the file lies, and the masks are read.

    Raises
    ------
    InputError
        Naming the file and the object and prompt that are wrong.
    """
    path = Path(path)
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path} does not exist: give a prompts file or a label image") from None
    except IsADirectoryError:
        raise InputError(f"{path} is a folder: give a prompts file or a label image") from None
    except json.JSONDecodeError as error:
        raise InputError(f"{path} is not JSON: line {error.lineno}, {error.msg}") from None
    except UnicodeDecodeError:
        raise InputError(f"{path} is not a text file: give prompts as JSON") from None
    try:
        return _read_masks(parse_prompts(data), path.parent)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def parse_prompts(data: Any) -> PromptFile:
    """Check decoded JSON against the schema.

    Raises
    ------
    InputError
        One sentence that names the first object and prompt that are wrong.
    """
    if not isinstance(data, Mapping):
        raise InputError('prompts must be an object {"objects": [...]}')
    try:
        return PromptFile.model_validate(data)
    except ValidationError as error:
        raise InputError(_sentence(error, data)) from None


def _read_masks(file: PromptFile, folder: Path) -> PromptFile:
    objects = []
    for item in file.objects:
        prompts = []
        for number, prompt in enumerate(item.prompts):
            if isinstance(prompt.mask, str):
                try:
                    mask = _read_mask(folder / os.path.expanduser(prompt.mask))
                except InputError as error:
                    raise InputError(f"{describe(item.id, number, prompt)}: {error}") from None
                prompt = prompt.model_copy(update={"mask": Rle.encode(mask)})
            prompts.append(prompt)
        objects.append(item.model_copy(update={"prompts": tuple(prompts)}))
    return PromptFile(objects=tuple(objects))


def _read_mask(path: Path) -> np.ndarray:
    if not path.is_file():
        raise InputError(f"the mask {path} does not exist")
    try:
        if path.suffix.lower() in (".tif", ".tiff"):
            import tifffile

            pixels = tifffile.imread(path)
        else:
            from PIL import Image

            with Image.open(path) as image:
                pixels = np.asarray(image.convert("RGBA")) if image.mode == "P" else np.asarray(image)
    except (OSError, ValueError) as error:
        raise InputError(f"the mask {path} is no image that can be read ({error})") from None
    inside: Any = np.asarray(pixels) != 0
    if inside.ndim == 3 and inside.shape[2] in (2, 4):
        inside = inside[..., :-1] & inside[..., -1:]  # transparent pixels are not the object
    if inside.ndim == 3 and inside.shape[2] in (1, 3):
        inside = inside.any(axis=2)
    if inside.ndim != 2:
        raise InputError(f"the mask {path} has {inside.ndim} dimensions: give one plane")
    return inside


def describe(object_id: int, number: int, prompt: Prompt) -> str:
    """How messages call a prompt; `number` counts from 0."""
    return f"object {object_id}, prompt {number + 1} (frame {json.dumps(prompt.frame)})"


def _sentence(error: ValidationError, data: Mapping) -> str:
    """The first of pydantic's complaints as a sentence in terms of objects and prompts."""
    found = error.errors()
    # a mask is a path or an RLE: of something that looks like the latter, say what is wrong with it as such
    first = next((e for e in found if e["type"] != "string_type" or not isinstance(e["input"], Mapping)), found[0])
    kind = first["type"]
    rest: list[Any] = list(first["loc"])
    text = first["msg"].removeprefix("Value error, ")
    place: list[str] = []
    if rest[:1] == ["objects"] and len(rest) > 1:
        item = data["objects"][rest[1]]
        known = item.get("id") if isinstance(item, Mapping) else None
        place.append(f"object {known}" if isinstance(known, int) else f"object number {rest[1] + 1}")
        rest = rest[2:]
        if rest[:1] == ["prompts"] and len(rest) > 1:
            prompt = item["prompts"][rest[1]]
            frame = prompt.get("frame") if isinstance(prompt, Mapping) else None
            place.append(f"prompt {rest[1] + 1}" + (f" (frame {json.dumps(frame)})" if frame is not None else ""))
            rest = rest[2:]
    if rest == ["id"] and kind != "missing":
        text = f"must be a whole number from 1 to {MAX_ID} (0 is the background)"
    elif kind == "literal_error":
        text = "must be 1 on the object or 0 off it"
    elif "mask" in rest and kind == "string_type":
        text = "must be the path of an image or a COCO run-length encoding"
    elif kind in _WORDS:
        text = _WORDS[kind]
    elif kind != "value_error":
        text = f"is wrong: {text[:1].lower()}{text[1:]}"
    # numbers count from 1; names of pydantic's own for the members of a union say nothing to a user
    field = " ".join(
        str(k + 1) if isinstance(k, int) else k for k in rest if k not in ("int", "str", "Rle") and "[" not in str(k)
    )
    return ": ".join(part for part in (", ".join(place), f"{field} {text}".strip()) if part)


_WORDS = {
    "missing": "is missing",
    "extra_forbidden": "is not known: see sam2 segment --print-schema",
    "too_short": "is empty or too short",
}
