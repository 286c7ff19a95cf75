"""The openly licensed labelled sets as typed records in memory.

``load_sets(data_dir)`` reads every set of a data directory (one folder per set) into `Sequence` records: uint8
frames after one intensity window per image, volume or video, and integer labels of the same size.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from sam2_core.errors import InputError, MissingDependencyError

Kind = Literal["image", "volume", "video"]


@dataclass(frozen=True)
class Sequence:
    """One image (T = 1), volume (T planes along z) or video (T frames), with its labels.

    Attributes
    ----------
    set, name : str
        The labelled set, and the sequence within it.
    frames : numpy.ndarray, dask.array.Array or planes.Planes
        uint8, (T, H, W) or (T, H, W, 3), after one intensity window for the whole sequence.
    labels : numpy.ndarray, dask.array.Array or planes.Planes
        int32, (T, H, W); 0 is no object, ids are 1..n, without holes unless they are those of files that are read late.
    labelled : numpy.ndarray
        bool, (T,): frames whose labels are known. Where False, labels are 0 and mean nothing.
    complete : bool
        False where some objects of a labelled frame have no label.
    slice_axes : tuple of int
        Axes of (T, H, W) along which planes may be taken; (0,) unless the voxels are about cubes.
    licence : str
    objects : int, optional
        How many objects there are, where it is known; to count those of a lazy array would be to read all of it.
    """

    set: str
    name: str
    kind: Kind
    frames: np.ndarray
    labels: np.ndarray
    labelled: np.ndarray
    complete: bool = True
    slice_axes: tuple[int, ...] = (0,)
    licence: str = ""
    objects: int | None = None

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def is_rgb(self) -> bool:
        return self.frames.ndim == 4

    @property
    def may_have_objects(self) -> bool:
        """Whether there is an object, as far as that can be told without reading a lazy array."""
        if self.objects is not None:
            return self.objects > 0
        return bool(self.labels.any() if isinstance(self.labels, np.ndarray) else self.labelled.any())


def window_to_uint8(image: np.ndarray, low: float = 0.1, high: float = 99.9) -> np.ndarray:
    """Map the percentiles [`low`, `high`] of all of `image` to 0..255, clipped."""
    lo, hi = np.percentile(image, [low, high])
    scaled = (image.astype(np.float32) - lo) * (255.0 / max(float(hi - lo), 1e-6))
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)


def load_sets(data_dir: Path | str, names: Iterable[str] | None = None) -> list[Sequence]:
    """Read labelled sets into memory.

    Parameters
    ----------
    data_dir : path
        Folder with one sub-folder per set; a set whose folder is absent is an error.
    names : iterable of str, optional
        Sets to read; all of `SET_NAMES` by default.

    Raises
    ------
    InputError
        A set is unknown, its folder is missing, or something in it is missing or damaged.
    """
    data_dir = Path(data_dir)
    sequences: list[Sequence] = []
    for name in SET_NAMES if names is None else names:
        if name not in _READERS:
            raise InputError(f"no labelled set is called {name!r}; choose from {', '.join(SET_NAMES)}")
        folder = data_dir / name
        if not folder.is_dir():
            raise InputError(f"the labelled set {name} is not in {data_dir}; put its folder there")
        reader, licence = _READERS[name]
        try:
            sequences += [replace(s, licence=licence) for s in reader(name, folder)]
        except InputError:
            raise
        except Exception as error:  # every library that decodes has errors of its own
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise InputError(
                f"the labelled set {name} in {data_dir} is incomplete or damaged ({reason}): put its folder there anew"
            ) from error
    return sequences


def compact_labels(labels: np.ndarray) -> np.ndarray:
    """Labels (integers >= 0, or bool) renumbered 1..n in the order of their values, as int32."""
    present = np.bincount(labels.ravel()) > 0
    present[0] = False
    return (np.cumsum(present) * present).astype(np.int32)[labels.astype(np.intp, copy=False)]


def _sequence(
    set_name: str,
    name: str,
    kind: Kind,
    frames: np.ndarray,
    labels: np.ndarray,
    *,
    labelled: np.ndarray | None = None,
    complete: bool = True,
    slice_axes: tuple[int, ...] = (0,),
) -> Sequence:
    frames = frames if frames.dtype == np.uint8 else window_to_uint8(frames)
    labelled = np.ones(len(frames), bool) if labelled is None else labelled
    labels = compact_labels(labels)
    if labels.shape != frames.shape[:3]:
        raise InputError(
            f"{set_name}/{name}: labels {labels.shape} do not fit frames {frames.shape[:3]}: replace one of them"
        )
    return Sequence(set_name, name, kind, frames, labels, labelled, complete, slice_axes)


def _read_png(path: Path) -> np.ndarray:
    from PIL import Image

    with Image.open(path) as image:
        return np.asarray(image)


def _dsb2018(set_name: str, folder: Path) -> Iterator[Sequence]:
    with open(folder / "index.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        rgb = _read_png(folder / "images" / f"{row['name']}.png")[..., :3]
        image = rgb if row["kind"] == "color_bright" else window_to_uint8(rgb.mean(-1))
        labels = _read_png(folder / "labels" / f"{row['name']}.png")
        yield _sequence(set_name, row["name"], "image", image[None], labels[None])


def _usiigaci(set_name: str, folder: Path) -> Iterator[Sequence]:
    import tifffile

    for path in sorted((folder / "images").glob("*.tif")):
        labels = tifffile.imread(folder / "labels" / path.name)
        image = tifffile.imread(path)
        yield _sequence(set_name, path.stem, "image", image[None], labels[None], complete=False)


def _t98g(set_name: str, folder: Path) -> Iterator[Sequence]:
    import tifffile

    images = np.stack([tifffile.imread(p) for p in sorted((folder / "01").glob("t*.tif"))])
    masks = sorted((folder / "01_GT" / "SEG").glob("man_seg*.tif"))
    labels = np.stack([tifffile.imread(p) for p in masks])
    yield _sequence(set_name, "01", "video", images, labels, complete=False)


def _tiff_volume(set_name: str, folder: Path) -> Iterator[Sequence]:
    import tifffile

    image = tifffile.imread(folder / "image.tif")
    labels = tifffile.imread(folder / "labels.tif")
    yield _sequence(set_name, "volume", "volume", image, labels, slice_axes=(0, 1, 2))


def _plantseg(set_name: str, folder: Path) -> Iterator[Sequence]:
    try:
        import h5py
    except ImportError as error:
        raise MissingDependencyError("h5py", "train", "read HDF5 volumes") from error

    for path in sorted(folder.glob("*.h5")):
        with h5py.File(path, "r") as file:
            image, labels = file["raw"][:], file["label"][:]
        # Fragments are not objects that anyone would prompt.
        counts = np.bincount(labels.ravel())
        labels = np.where(counts[labels] < 300, 0, labels)
        yield _sequence(set_name, path.stem, "volume", image, labels, slice_axes=(0, 1, 2))


def _read_nifti(path: Path) -> np.ndarray:
    try:
        import nibabel
    except ImportError as error:
        raise MissingDependencyError("nibabel", "medical", "read NIfTI volumes") from error

    return np.asarray(nibabel.load(path).dataobj)  # type: ignore[attr-defined]


def _spinal_cord(set_name: str, folder: Path) -> Iterator[Sequence]:
    # The file's axes are (posterior, superior, right); planes are taken along the cord.
    image = _read_nifti(folder / "t2.nii.gz").transpose(1, 0, 2)
    labels = _read_nifti(folder / "t2_seg-manual.nii.gz").transpose(1, 0, 2)
    yield _sequence(set_name, "t2", "volume", image, labels > 0, slice_axes=(0, 1, 2))


def _sunnybrook(set_name: str, folder: Path) -> Iterator[Sequence]:
    """One volume for each labelled phase, and one video for each slice with two labelled phases.

    The myocardium is drawn at end-diastole only, so a video and an end-systolic volume keep the cavity alone.
    """
    for path in sorted(folder.glob("*_cine.nii.gz")):
        patient = path.name.removesuffix("_cine.nii.gz")
        cine = window_to_uint8(_read_nifti(path).transpose(3, 2, 1, 0))
        labels = _read_nifti(folder / f"{patient}_label.nii.gz").transpose(3, 2, 1, 0)
        entries = json.loads((folder / f"{patient}_labelled_frames.json").read_text())["labelled"]
        cavity = {(e["t"], e["z"]) for e in entries if e["endo"]}
        both = {(e["t"], e["z"]) for e in entries if e["endo"] and e["epi"]}
        for t in sorted({t for t, _ in cavity}):
            known = both if any(pair[0] == t for pair in both) else cavity
            slices = sorted(z for phase, z in known if phase == t)
            stack = slice(slices[0], slices[-1] + 1)
            labelled = np.isin(np.arange(stack.start, stack.stop), slices)
            plane_labels = labels[t, stack] if known is both else (labels[t, stack] == 1)
            plane_labels = plane_labels * labelled[:, None, None]
            yield _sequence(set_name, f"{patient}-t{t}", "volume", cine[t, stack], plane_labels, labelled=labelled)
        for z in sorted({z for _, z in cavity}):
            labelled = np.isin(np.arange(len(cine)), [t for t, slice_ in cavity if slice_ == z])
            if labelled.sum() < 2:
                continue
            slice_labels = (labels[:, z] == 1) * labelled[:, None, None]
            yield _sequence(set_name, f"{patient}-z{z}", "video", cine[:, z], slice_labels, labelled=labelled)


def _davis(set_name: str, folder: Path) -> Iterator[Sequence]:
    from PIL import Image

    size = (640, 360)  # 3/4 of 480p: all sequences stay in memory.
    for video in sorted((folder / "JPEGImages" / "480p").iterdir()):
        frames, labels = [], []
        for path in sorted(video.glob("*.jpg")):
            with Image.open(path) as image:
                frames.append(np.asarray(image.convert("RGB").resize(size, Image.Resampling.BOX)))
            with Image.open(folder / "Annotations" / "480p" / video.name / f"{path.stem}.png") as mask:
                binary = Image.fromarray((np.asarray(mask) > 0).astype(np.uint8) * 255)
                labels.append(np.asarray(binary.resize(size, Image.Resampling.BOX)) > 127)
        yield _sequence(set_name, video.name, "video", np.stack(frames), np.stack(labels))


_Reader = Callable[[str, Path], Iterator[Sequence]]
_READERS: dict[str, tuple[_Reader, str]] = {
    "dsb2018_nuclei2d": (_dsb2018, "CC0"),
    "usiigaci_phase2d": (_usiigaci, "MIT"),
    "t98g_phase_track": (_t98g, "MIT"),
    "fibsem_medulla_neurites3d": (_tiff_volume, "CC BY 3.0"),
    "arabidopsis_nuclei3d": (_plantseg, "MIT"),
    "arabidopsis_cells3d": (_plantseg, "MIT"),
    "mouse_embryo_nuclei3d": (_tiff_volume, "CC BY 3.0"),
    "stardist_worm_nuclei3d": (_tiff_volume, "BSD-3-Clause"),
    "sunnybrook_cine4d": (_sunnybrook, "CC0"),
    "sct_spinal_cord3d": (_spinal_cord, "MIT"),
    "davis2016_480p": (_davis, "BSD-3-Clause"),
}
SET_NAMES: tuple[str, ...] = tuple(_READERS)
