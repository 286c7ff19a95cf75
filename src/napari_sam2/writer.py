"""napari's writer of labels: OME-Zarr, OME-TIFF or NIfTI by the ending of the name, plane by plane.

Labels that lie on disk or are computed when they are looked at are never loaded whole. Everything is written beside
its place first, so that a layer can be saved over the file that it shows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from napari_sam2.image_source import named_axes
from sam2_core.errors import InputError
from sam2_core.volume.export import export_nifti, export_tiff
from sam2_core.volume.files import disk_errors, replacing
from sam2_core.volume.labels import LabelVolume, is_label_volume
from sam2_core.volume.ngff import image_format
from sam2_core.volume.open import open_volume
from sam2_core.volume.planes import raw_planes
from sam2_core.volume.volume import Volume


def write_labels(path: str, data: Any, meta: Mapping[str, Any]) -> list[str]:
    """Write a layer of labels with its scale, translation, units and the names of its objects.

    Parameters
    ----------
    path : str
        Ends in .zarr, .tif, .tiff, .nii or .nii.gz. What is there is replaced, except for a folder that holds no
        labels, and labels inside an OME-Zarr image.
    data : array of integers, or a list of arrays
        The labels; of several resolutions, finest first.
    meta : mapping
        The layer's attributes, as napari gives them to a writer.

    Returns
    -------
    list of str
        The path.

    Raises
    ------
    InputError
        If the ending is none of these, the axes do not fit the format, an id is negative or over 2**32 - 1, or the
        place cannot be written.
    """
    out = Path(path).expanduser()
    name = out.name.lower()
    if not name.endswith((".zarr", ".tif", ".tiff", ".nii", ".nii.gz")):
        raise InputError(f"{out} must end in .zarr, .tif, .nii or .nii.gz: that says how the labels are written")
    volume = _volume(data, meta)
    names = _names(meta.get("features"))
    if name.endswith(".zarr") and out.parent.name == "labels" and image_format(out.parent.parent):
        _fill(LabelVolume.create(out, volume), volume, names)  # it is listed in the image, and so made in its place
        return [str(out)]
    if out.exists() and name.endswith(".zarr") and not is_label_volume(out):
        raise InputError(f"{out} holds no labels and is not replaced: choose another name")
    with disk_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=".sam2-", dir=out.parent) as scratch:
            stem = out.name if name.endswith(".zarr") else f"{out.name}.zarr"
            labels = LabelVolume.create(Path(scratch) / stem, volume)
            _fill(labels, volume, names)
            if name.endswith(".zarr"):
                with replacing(out, overwrite=True) as partial:
                    labels.path.rename(partial)
            else:
                export = export_tiff if name.endswith((".tif", ".tiff")) else export_nifti
                export(labels, out, overwrite=True)
    return [str(out)]


def _volume(data: Any, meta: Mapping[str, Any]) -> Volume:
    """The labels as a volume, with what the layer says about them."""
    array = data[0] if meta.get("multiscale") else data
    axes = _axes(array.ndim, meta)
    if not _is_straight(meta):
        raise InputError(f"{meta['name']} is rotated or sheared, which no label file keeps: undo that and save again")
    known = [a for a in axes if a != "c"]
    affine = meta.get("metadata", {}).get("sam2", {}).get("affine")
    volume = open_volume(
        array,
        axes=axes,
        scale={a: float(s) for a, s in zip(axes, meta["scale"]) if a in known},
        translation={a: float(t) for a, t in zip(axes, meta["translate"]) if a in known},
        name=meta["name"],
    )
    units = {a: str(u) for a, u in zip(axes, meta["units"]) if a in known and str(u) != "pixel"}
    return replace(volume, units=units, affine=None if affine is None else np.array(affine, float))


def _axes(ndim: int, meta: Mapping[str, Any]) -> str:
    """The letters of the layer's dimensions: as its reader said, else as they are labelled, else as is customary."""
    known = meta.get("metadata", {}).get("sam2", {}).get("axes", "")
    axes = known if len(known) == ndim else named_axes(meta.get("axis_labels", ()))
    if axes is None and not 2 <= ndim <= 4:
        raise InputError(f"{meta['name']} has {ndim} axes: labels have two to four, out of t, z, y and x")
    return axes or "tzyx"[-ndim:]


def _is_straight(meta: Mapping[str, Any]) -> bool:
    """Whether scale and translation say all about where the layer lies."""
    affine = np.asarray(meta.get("affine", np.eye(2)), float)
    rotate = np.asarray(meta.get("rotate", 0.0), float)
    unturned = not np.any(rotate) if rotate.ndim < 2 else np.allclose(rotate, np.eye(len(rotate)))
    return unturned and np.allclose(affine, np.eye(len(affine))) and not np.any(meta.get("shear", 0.0))


def _names(features: Any) -> dict[int, str]:
    """Names of objects, from the columns "index" and "name" of the layer's features."""
    if features is None or not {"index", "name"} <= set(features):
        return {}
    return {int(i): str(n) for i, n in zip(features["index"], features["name"]) if i > 0 and n}


def _fill(labels: LabelVolume, volume: Volume, names: dict[int, str]) -> None:
    axis = volume.default_axis()
    for where, plane in raw_planes(volume, axis):
        fixed = {a: i for a, i in where.items() if a != axis}
        labels.write_plane(axis, where.get(axis or "", 0), plane, fixed)
    if names:
        labels.set_names(names)
