"""NIfTI: stored x, y, z, t with x fastest, so that a z-plane is contiguous; memory-mapped, never read whole.

A gzip stream cannot be read from the middle. A ``.nii.gz`` is therefore unpacked once, piece by piece, to a
temporary file when its first voxel is asked for; the file goes when the image does.
"""

from __future__ import annotations

import gzip
import shutil
import tempfile
import threading
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from sam2_core.errors import InputError, MissingDependencyError
from sam2_core.volume.files import disk_errors
from sam2_core.volume.stored import Stored
from sam2_core.volume.volume import check_level

_UNITS = {"mm": "millimeter", "micron": "micrometer", "meter": "meter", "sec": "second", "msec": "millisecond"}


def read(path: Path, level: int = 0) -> Stored:
    """Open a ``.nii`` or ``.nii.gz`` image as x, y[, z[, t[, c]]]; voxels come with the header's slope applied.

    Raises
    ------
    MissingDependencyError
        If nibabel is not installed.
    InputError
        If the file is no NIfTI image or is shorter than its header says.
    """
    try:
        import nibabel
    except ImportError as error:
        raise MissingDependencyError("nibabel", "medical", "read NIfTI files") from error
    check_level(level, 1, path.name)
    try:
        image: Any = nibabel.load(path)
        header = image.header
        shape = tuple(int(n) for n in image.shape)
        spatial, temporal = header.get_xyzt_units()
        zooms = [float(z) for z in header.get_zooms()]
    except Exception as error:  # nibabel raises many kinds of its own here
        raise InputError(f"{path} cannot be read as NIfTI ({error}): check that the file is whole") from error
    if not 2 <= len(shape) <= 5:
        raise InputError(f"{path} has {len(shape)} axes, {shape}: an image has x, y, z, t and at most channels")
    axes = "xyztc"[: len(shape)]
    affine = np.asarray(image.affine, float)
    diagonal = np.diag(np.diag(affine[:3, :3]))
    straight = np.allclose(affine[:3, :3], diagonal) and (np.diag(affine) > 0).all()
    units = {a: _UNITS[u] for a, u in zip(axes, [spatial] * 3 + [temporal]) if u in _UNITS}
    return Stored(
        array=_NiftiArray(path, image.dataobj, header),
        axes=axes,
        format="NIfTI",
        chunks=(*shape[:2], *(1,) * (len(shape) - 2)),
        scale=dict(zip(axes[:4], zooms)),
        translation=dict(zip("xyz", affine[:3, 3].tolist())) if straight else {},
        units=units,
        affine=affine,
    )


class _NiftiArray:
    """The voxels of a NIfTI file as an array; float32 if the header scales them, else as stored."""

    def __init__(self, path: Path, proxy: Any, header: Any) -> None:
        self._path = path
        self._slope, self._inter = float(proxy.slope), float(proxy.inter)
        self._stored = np.dtype(header.get_data_dtype())
        self._offset = int(proxy.offset)
        self._lock = threading.Lock()
        self._map: np.ndarray | None = None
        self.shape: tuple[int, ...] = tuple(int(n) for n in proxy.shape)
        scaled = self._slope != 1 or self._inter != 0
        self.dtype = np.dtype(np.float32) if scaled else self._stored.newbyteorder("=")
        self.ndim = len(self.shape)
        if not path.name.lower().endswith(".gz"):
            self._voxels()

    def __getitem__(self, key: Any) -> np.ndarray:
        values = np.asarray(self._voxels()[key])
        if self._slope != 1 or self._inter != 0:
            return (values * np.float64(self._slope) + self._inter).astype(np.float32)
        return values.astype(self.dtype, copy=False)

    def _voxels(self) -> np.ndarray:
        with self._lock:
            if self._map is None:
                file: Any = self._path
                if self._path.name.lower().endswith(".gz"):
                    file = self._unpack()
                try:
                    self._map = np.memmap(file, self._stored, "r", self._offset, self.shape, order="F")
                except ValueError as error:
                    raise InputError(f"{self._path} is shorter than its header says: fetch it again") from error
            return self._map

    def _unpack(self) -> Any:
        target = tempfile.TemporaryFile(prefix="sam2-nifti-")  # noqa: SIM115 (lives as long as the array)
        try:
            with disk_errors(Path(tempfile.gettempdir())), gzip.open(self._path) as packed:
                shutil.copyfileobj(packed, target, 2**20)
                target.flush()
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise InputError(f"{self._path} cannot be unpacked ({error}): fetch it again") from error
        return target
