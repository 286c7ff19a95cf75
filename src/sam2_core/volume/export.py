"""Labels as other programs take them: TIFF, NIfTI, COCO JSON, Cell Tracking Challenge, a table of statistics.

Everything is written plane by plane, beside its final name, and renamed when it is whole.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np

from sam2_core.errors import InputError, MissingDependencyError
from sam2_core.volume.files import replacing
from sam2_core.volume.labels import LabelVolume
from sam2_core.volume.planes import plane_positions, raw_planes
from sam2_core.volume.statistics import export_csv

_UINT16 = 2**16 - 1
_CTC_FILE = re.compile(r"(mask|man_track)\d+\.tif|(res|man)_track\.txt")


def export_tiff(labels: LabelVolume, out: Path, *, overwrite: bool = False) -> None:
    """Write an OME-TIFF, deflate-compressed, with axes, pixel sizes and units; uint16 if the ids fit, else uint32.

    Raises
    ------
    InputError
        If `out` exists (without `overwrite`), is not called ``.tif`` or ``.tiff``, or cannot be written.
    """
    import tifffile

    _check_suffix(out, (".tif", ".tiff"))
    dtype = _dtype(labels)
    v = labels.volume
    metadata: dict[str, Any] = {"axes": labels.axes.upper(), "Name": out.name}
    for axis, key in (("x", "PhysicalSizeX"), ("y", "PhysicalSizeY"), ("z", "PhysicalSizeZ"), ("t", "TimeIncrement")):
        if axis in labels.axes:
            unit = {"micrometer": "µm", "nanometer": "nm", "millimeter": "mm", "second": "s", "millisecond": "ms"}
            metadata[key] = v.scale[axis]
            metadata[f"{key}Unit"] = unit.get(v.units.get(axis, ""), "s" if axis == "t" else "pixel")
    size = int(np.prod(labels.shape, dtype=np.int64)) * dtype.itemsize
    with (
        replacing(out, overwrite=overwrite) as partial,
        tifffile.TiffWriter(partial, ome=True, bigtiff=size > 2**32 - 2**25) as tif,
    ):
        planes = (plane.astype(dtype) for _, plane in raw_planes(labels.volume))
        tif.write(
            planes, shape=labels.shape, dtype=dtype, compression="zlib", photometric="minisblack", metadata=metadata
        )


def export_nifti(labels: LabelVolume, out: Path, *, overwrite: bool = False) -> None:
    """Write NIfTI (x, y, z, t), with the affine of the NIfTI image that was labelled, else of scale and translation.

    Raises
    ------
    MissingDependencyError
        If nibabel is not installed.
    InputError
        If `out` exists (without `overwrite`), is not called ``.nii`` or ``.nii.gz``, or cannot be written.
    """
    try:
        import nibabel
    except ImportError as error:
        raise MissingDependencyError("nibabel", "medical", "write NIfTI files") from error
    _check_suffix(out, (".nii", ".nii.gz"))
    if max(labels.shape) > 2**15 - 1:
        raise InputError(f"{labels.path} is {max(labels.shape)} long, more than NIfTI's 32767: export TIFF instead")
    v = labels.volume
    header: Any = nibabel.Nifti1Header()
    header.set_data_dtype(_dtype(labels))
    shape = tuple(v.size(a) for a in ("xyzt" if "t" in labels.axes else "xyz" if "z" in labels.axes else "xy"))
    header.set_data_shape(shape)
    header.set_zooms([v.scale.get(a, 1.0) for a in "xyzt"[: len(shape)]])
    spatial = {"millimeter": "mm", "micrometer": "micron", "meter": "meter"}.get(v.units.get("x", ""), "unknown")
    temporal = {"second": "sec", "millisecond": "msec"}.get(v.units.get("t", ""), "unknown")
    header.set_xyzt_units(spatial, temporal)
    affine = labels.affine
    if affine is None:
        affine = np.diag([v.scale.get(a, 1.0) for a in "xyz"] + [1.0])
        affine[:3, 3] = [v.translation.get(a, 0.0) for a in "xyz"]
    header.set_sform(affine, code=1)
    header.set_qform(affine, code=1)
    header["vox_offset"] = 352
    header["magic"] = b"n+1"
    with replacing(out, overwrite=overwrite) as partial, _open_nifti(partial, out) as stream:
        header.write_to(stream)  # with the four bytes that say "no extension"
        # a plane (y, x) in C order is x fastest, and planes follow in z, then t: NIfTI's own order
        for _, plane in raw_planes(labels.volume):
            stream.write(np.ascontiguousarray(plane.astype(header.get_data_dtype())).data)


def export_coco(labels: LabelVolume, out: Path, *, overwrite: bool = False, axis: str | None = None) -> None:
    """Write COCO instance annotations: one image per plane, one annotation per object in it, with its RLE.

    The category of an object is its name, or "object"; ``track_id`` is its id through all planes.

    Parameters
    ----------
    axis : {"t", "z", "y", "x"}, optional
        Planes across this axis; by default along z, else t.

    Raises
    ------
    InputError
        If `out` exists (without `overwrite`), is not called ``.json``, or cannot be written.
    """
    from pycocotools import mask as coco

    _check_suffix(out, (".json",))
    axis = axis or labels.volume.default_axis()
    height, width = (labels.volume.size(a) for a in labels.volume.plane_axes(axis))
    categories: dict[str, int] = {}
    count = 0
    with replacing(out, overwrite=overwrite) as partial, partial.open("w", encoding="utf-8") as stream:
        stream.write('{"info": {"description": ' + json.dumps(f"labels of {labels.path.name}") + '},\n"images": [')
        for n, where in enumerate(plane_positions(labels.volume, axis)):
            name = "_".join(f"{a}{i:04d}" for a, i in where.items()) or "image"
            image = {"id": n + 1, "file_name": f"{name}.png", "width": width, "height": height, "position": where}
            stream.write(("," if n else "") + "\n" + json.dumps(image))
        stream.write('],\n"annotations": [')
        for n, (_, plane) in enumerate(raw_planes(labels.volume, axis)):
            for i in _present(plane):
                mask = coco.encode(np.asfortranarray(plane == i, np.uint8))
                category = categories.setdefault(labels.names.get(i, "object"), len(categories) + 1)
                annotation = {
                    "id": count + 1,
                    "image_id": n + 1,
                    "category_id": category,
                    "track_id": i,
                    "iscrowd": 0,
                    "area": int(coco.area(mask)),
                    "bbox": [float(v) for v in coco.toBbox(mask)],
                    "segmentation": {"size": [height, width], "counts": mask["counts"].decode("ascii")},
                }
                stream.write(("," if count else "") + "\n" + json.dumps(annotation))
                count += 1
        listed = [{"id": i, "name": name} for name, i in categories.items()]
        stream.write('],\n"categories": ' + json.dumps(listed) + "}\n")


def export_ctc(labels: LabelVolume, out: Path, *, overwrite: bool = False, truth: bool = False) -> None:
    """Write a folder in the layout of the Cell Tracking Challenge.

    One 16-bit TIFF per time point, ``mask000.tif`` and so on (2D, or 3D as z, y, x), and ``res_track.txt`` with a
    line "id first last parent" per track; as ground truth (`truth`) they are called ``man_track000.tif`` and
    ``man_track.txt``. The layout knows no track with a gap: an object that vanishes and comes back continues
    under a new id, with the old one as its parent; every other parent is 0.

    Raises
    ------
    InputError
        If there is no time axis, an id is over 65535, `out` exists (without `overwrite`) or cannot be written.
    """
    import tifffile

    v = labels.volume
    if "t" not in labels.axes:
        raise InputError(
            f"{labels.path} has axes {labels.axes}: the Cell Tracking Challenge layout needs a time axis t"
        )
    tracks = _tracks(labels)
    if tracks and max(t.id for t in tracks) > _UINT16:
        raise InputError(f"{labels.path} has ids over {_UINT16}, which the 16-bit Cell Tracking Challenge layout lacks")
    if out.is_dir() and (foreign := [p.name for p in out.iterdir() if not _CTC_FILE.fullmatch(p.name)]):
        raise InputError(f"{out} holds other files ({foreign[0]}) and is not replaced: choose another folder")
    digits = max(3, len(str(v.size("t") - 1)))
    stem, table = ("man_track", "man_track.txt") if truth else ("mask", "res_track.txt")
    depth = v.size("z")
    with replacing(out, overwrite=overwrite) as partial:
        partial.mkdir()
        planes = raw_planes(labels.volume)
        for t in range(v.size("t")):
            renamed = {r.label: r.id for r in tracks if r.first <= t <= r.last}
            stack = (_rename(plane, renamed) for _, plane in (next(planes) for _ in range(depth)))
            shape = (depth, v.size("y"), v.size("x")) if "z" in labels.axes else (v.size("y"), v.size("x"))
            with tifffile.TiffWriter(partial / f"{stem}{t:0{digits}d}.tif") as tif:
                tif.write(stack, shape=shape, dtype=np.uint16, compression="zlib", photometric="minisblack")
        lines = [f"{r.id} {r.first} {r.last} {r.parent}\n" for r in sorted(tracks, key=lambda r: r.id)]
        (partial / table).write_text("".join(lines))


EXPORTS: dict[str, Callable[..., None]] = {
    "tiff": export_tiff,
    "nifti": export_nifti,
    "coco": export_coco,
    "ctc": export_ctc,
    "csv": export_csv,
}


class _Track:
    """An unbroken run of one label through time."""

    def __init__(self, label: int, t: int) -> None:
        self.label, self.id, self.first, self.last, self.parent = label, label, t, t, 0


def _tracks(labels: LabelVolume) -> list[_Track]:
    """Runs of every label in time; those after a gap get ids above all others."""
    running: dict[int, _Track] = {}
    tracks: list[_Track] = []
    for where, plane in raw_planes(labels.volume):
        t = where["t"]
        for i in _present(plane):
            track = running.get(i)
            if track is not None and track.last >= t - 1:
                track.last = t
                continue
            running[i] = _Track(i, t)
            tracks.append(running[i])
    newest = max((r.label for r in tracks), default=0)
    latest: dict[int, int] = {}
    for track in tracks:
        if track.label in latest:
            newest += 1
            track.id, track.parent = newest, latest[track.label]
        latest[track.label] = track.id
    return tracks


def _rename(plane: np.ndarray, names: dict[int, int]) -> np.ndarray:
    out = plane.astype(np.uint16)
    for label, new in names.items():
        if label != new:
            out[plane == label] = new
    return out


def _present(plane: np.ndarray) -> list[int]:
    return [int(i) for i in np.unique(plane) if i]


def _dtype(labels: LabelVolume) -> np.dtype:
    ids = labels.ids()
    return np.dtype(np.uint32 if ids.size and int(ids[-1]) > _UINT16 else np.uint16)


def _open_nifti(partial: Path, out: Path) -> AbstractContextManager[Any]:
    if out.name.lower().endswith(".gz"):
        return gzip.open(partial, "wb", compresslevel=6)
    return partial.open("wb")


def _check_suffix(out: Path, suffixes: tuple[str, ...]) -> None:
    if not out.name.lower().endswith(suffixes):
        raise InputError(f"{out} must end in {' or '.join(suffixes)} for this kind of export")
