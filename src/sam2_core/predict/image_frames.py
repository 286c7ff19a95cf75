"""Frames that are the image files of a folder."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sam2_core.errors import InputError
from sam2_core.predict.frames import IMAGE_SUFFIXES, check_index
from sam2_core.predict.transforms import apply_window, estimate_window


class ImageFolderFrames:
    """Frames in a folder, one image file each, in numerical order if the names are numbers, else natural.

    Parameters
    ----------
    source : path or sequence of paths
        A folder whose .jpg, .jpeg, .png, .tif and .tiff files are the frames, or the files in order.
    window : (float, float), optional
        Intensities of black and white; estimated for images that are not 8-bit.

    Raises
    ------
    InputError
        If there is no image, one cannot be read, or sizes differ.
    """

    def __init__(self, source: str | os.PathLike | Sequence[Path], window: tuple[float, float] | None = None) -> None:
        if isinstance(source, str | os.PathLike):
            folder = Path(source).expanduser()
            if not folder.is_dir():
                raise InputError(f"{folder} is not a folder: give a folder of images")
            self.paths = _sorted_images(folder)
            if not self.paths:
                raise InputError(f"{folder} holds no images: put {', '.join(IMAGE_SUFFIXES)} files there")
        else:
            self.paths = [Path(p) for p in source]
            if not self.paths:
                raise InputError("the list of images is empty: give at least one")
        self._size = image_size(self.paths[0])
        # reading every header takes long in a large folder; the others are checked when they are decoded
        for i in np.unique(np.linspace(0, len(self) - 1, 128).round().astype(int)):
            self._check_size(int(i), image_size(self.paths[i]))
        first = read_image(self.paths[0])
        self._is_uint8 = first.dtype == np.uint8
        self.window = window
        if window is None and not self._is_uint8:
            self.window = estimate_window(self._raw, len(self))

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self._size

    def frame(self, i: int) -> np.ndarray:
        """Frame `i`: (H, W) or (H, W, 3), uint8, or float32 in [0, 1] after the window."""
        raw = self._raw(check_index(i, len(self)))
        return raw if self.window is None else apply_window(raw, self.window)

    def _raw(self, i: int) -> np.ndarray:
        image = read_image(self.paths[i])
        self._check_size(i, image.shape[:2])
        if (image.dtype == np.uint8) != self._is_uint8:
            raise InputError(
                f"frame {i} ({self.paths[i].name}) is {image.dtype}, unlike the first: make all frames alike"
            )
        return image

    def _check_size(self, i: int, size: tuple[int, ...]) -> None:
        if tuple(size) != self._size:
            (h, w), (h0, w0) = size, self._size
            raise InputError(
                f"frame {i} ({self.paths[i].name}) is {w} x {h} pixels but the first is {w0} x {h0}:"
                " make all frames the same size"
            )


def image_size(path: Path) -> tuple[int, int]:
    """(height, width) in pixels of an image file, from its header alone.

    Raises
    ------
    InputError
        It cannot be read.
    """
    if _is_tiff(path):
        import tifffile

        try:
            with tifffile.TiffFile(path) as tif:
                page = tif.pages[0]
                return int(page.imagelength), int(page.imagewidth)  # type: ignore[union-attr]
        except Exception as error:
            raise InputError(f"{path} cannot be read as an image ({error}): replace or remove it") from error
    from PIL import Image

    try:
        with Image.open(path) as image:
            return image.height, image.width
    except Exception as error:
        raise InputError(f"{path} cannot be read as an image ({error}): replace or remove it") from error


def read_image(path: Path) -> np.ndarray:
    """An image file, (H, W) or (H, W, 3), in its own type; palettes, alpha and other colour spaces become RGB.

    Raises
    ------
    InputError
        It cannot be read, is damaged, or holds several planes or another number of channels.
    """
    try:
        if _is_tiff(path):
            import tifffile

            with tifffile.TiffFile(path) as tif:
                image, pages = tif.pages[0].asarray(), len(tif.pages)
                if getattr(tif.pages[0], "photometric", None) == tifffile.PHOTOMETRIC.PALETTE:
                    image = np.asarray(_pillow(path))
        else:
            image, pages = _pillow(path), 1
    except Exception as error:
        raise InputError(f"{path} cannot be read as an image ({error}): replace or remove it") from error
    if pages > 1:
        raise InputError(f"{path} holds {pages} planes: open it with sam2_core.open_volume")
    if image.ndim == 3 and image.shape[0] in (3, 4) and image.shape[2] not in (3, 4):
        image = np.moveaxis(image, 0, -1)
    if image.ndim == 3 and image.shape[2] == 4:
        image = image[..., :3]
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] != 3):
        raise InputError(f"{path} has shape {image.shape}: a frame needs one channel or three")
    return image


def _sorted_images(folder: Path) -> list[Path]:
    files = [p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith(".")]
    if all(p.stem.isdecimal() for p in files):
        return sorted(files, key=lambda p: (int(p.stem), p.name))
    return sorted(files, key=lambda p: ([int(s) if s.isdecimal() else s for s in re.split(r"(\d+)", p.name)]))


def _is_tiff(path: Path) -> bool:
    return path.suffix.lower() in (".tif", ".tiff")


def _pillow(path: Path) -> np.ndarray:
    from PIL import Image

    with Image.open(path) as image:
        if image.mode == "1":
            return np.asarray(image.convert("L"))
        if image.mode in ("L", "RGB", "F", "I") or image.mode.startswith("I;16"):
            return np.asarray(image)
        return np.asarray(image.convert("RGB"))
