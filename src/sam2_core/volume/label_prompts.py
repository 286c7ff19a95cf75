"""Label images as prompts: every label of a plane becomes an object, prompted by its mask."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sam2_core.errors import InputError
from sam2_core.volume.open import open_volume
from sam2_core.volume.prompts import MAX_ID, LabelledObject, Prompt
from sam2_core.volume.rle import Rle
from sam2_core.volume.session_state import Grid, Plane
from sam2_core.volume.volume import Volume


def label_prompts(path: str | Path, volume: Volume, grid: Grid, plane: Plane) -> tuple[LabelledObject, ...]:
    """Read the labels of one plane; ids are kept.

    Parameters
    ----------
    path : path
        A label image of the size of a plane, or labels of the whole volume, of which the plane is taken.
    volume : Volume
    grid : Grid
    plane : Plane
        Where the labels lie in the volume.

    Raises
    ------
    InputError
        If the image cannot be read, is of another size, or holds no label.
    """
    return objects_of(read_label_plane(path, volume, grid, plane), dict(plane), str(path))


def read_label_plane(path: str | Path, volume: Volume, grid: Grid, plane: Plane) -> np.ndarray:
    """One plane of labels from a file, (height, width); arguments as in `label_prompts`."""
    labels = open_volume(path)
    if labels.rgb or labels.dtype.kind not in "bui":
        raise InputError(f"{path} holds {labels.dtype}{' colours' if labels.rgb else ''}: labels are whole numbers")
    shape = tuple(volume.size(a) for a in volume.axes if a != "c")
    own = [a for a in labels.axes if a != "c"]
    if labels.size("c") > 1:
        raise InputError(f"{path} has {labels.size('c')} channels: give a label image with one")
    squeezed = tuple(labels.size(a) for a in own if labels.size(a) > 1 or a in "yx")
    still = {"c": 0} if "c" in labels.axes else {}
    if squeezed == grid.size:
        return labels.read({**still, **dict.fromkeys(own[:-2], 0)})
    if tuple(labels.size(a) for a in own) == shape:
        names = [a for a in volume.axes if a != "c"]
        return labels.read({**still, **{own[names.index(a)]: i for a, i in plane}})
    raise InputError(
        f"{path} has the shape {labels.shape}: give labels of one frame, {grid.size[0]} x {grid.size[1]} (height x"
        f" width), or of the whole volume, {shape}"
    )


def objects_of(labels: np.ndarray, frame: int | dict[str, int], name: str) -> tuple[LabelledObject, ...]:
    """An object with a mask prompt for each label of a (height, width) plane."""
    ids = [int(i) for i in np.unique(labels) if i != 0]
    if not ids:
        raise InputError(f"{name} holds no label on frame {frame}: choose the frame that is labelled with --frame")
    if ids[0] < 0 or ids[-1] > MAX_ID:
        raise InputError(f"{name} holds the label {ids[0] if ids[0] < 0 else ids[-1]}: labels are 1 to {MAX_ID}")
    return tuple(LabelledObject(id=i, prompts=(Prompt(frame=frame or 0, mask=Rle.encode(labels == i)),)) for i in ids)
