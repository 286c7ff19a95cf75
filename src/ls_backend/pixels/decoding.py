"""The bytes of an image file to pixels, as browsers show them; nothing is decoded before its size is known.

Orientation: browsers turn JPEG, PNG and AVIF by their EXIF data, and WebP not, and Label Studio takes their word for an
image's width and height.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from ls_backend.errors import RequestError, TooLargeError
from ls_backend.pixels.file_kinds import HEAD_BYTES, IMAGE_KINDS, described, kind_of
from sam2_core.predict.transforms import apply_window, estimate_window

VERSION = "1"
"""Part of every image's key: to be raised when the same bytes come to give other pixels."""

_FORMATS = {  # what Pillow may try; no others, PostScript least of all
    ".png": ("PNG",),
    ".jpg": ("JPEG", "MPO"),
    ".gif": ("GIF",),
    ".bmp": ("BMP",),
    ".webp": ("WEBP",),
    ".avif": ("AVIF",),
}
_TURNED = (".png", ".jpg", ".avif")
_PIXEL_BYTES = 12  # of a page of a TIFF file at most, three channels of 32 bits


def decode_image(data: bytes, max_pixels: int) -> np.ndarray:
    """The first image of a file, turned as its EXIF data say.

    Alpha is dropped; palettes, CMYK and other colour spaces become RGB.

    Parameters
    ----------
    data : bytes
        A PNG, JPEG, WebP, GIF, BMP, AVIF or TIFF file.
    max_pixels : int

    Returns
    -------
    ndarray, (H, W) or (H, W, 3)
        uint8; of greyscale with more bits, and of any TIFF, the file's own type.

    Raises
    ------
    TooLargeError
        It has more pixels.
    RequestError
        It is no such image, or damaged.
    """
    kind = kind_of(data[:HEAD_BYTES])
    if kind is None or kind not in IMAGE_KINDS:
        what = "a video" if kind else described(data[:HEAD_BYTES])
        raise RequestError(f"it is {what}, not an image: give PNG, JPEG, WebP, GIF, BMP, AVIF or TIFF")
    try:
        pixels = _tiff(data, max_pixels) if kind == ".tif" else _picture(data, kind, max_pixels)
    except RequestError:
        raise
    except MemoryError:
        raise TooLargeError("it does not fit into the server's memory: use a smaller image") from None
    except Exception as error:  # decoders raise whatever the parsing meets
        # Pillow's text for what it does not know at all names nothing but an object in memory
        why = type(error).__name__ if "BytesIO" in str(error) else error
        raise RequestError(f"it cannot be read as an image, it may be damaged or cut off ({why})") from None
    return np.ascontiguousarray(pixels)


def image_window(pixels: np.ndarray) -> tuple[float, float] | None:
    """Intensities of black and white of an image on its own; None for uint8, which is shown as it is."""
    return None if pixels.dtype == np.uint8 else estimate_window(lambda _: pixels, 1)


def to_uint8(pixels: np.ndarray, window: tuple[float, float] | None) -> np.ndarray:
    """Intensities through a window to 0..255; unchanged without one."""
    if window is None:
        return pixels
    return np.rint(apply_window(pixels, window) * 255).astype(np.uint8)


def image_key(digest: str, window: tuple[float, float] | None) -> str:
    """What tells decoded images apart: the SHA-256 of the bytes, and how they became pixels."""
    shown = "" if window is None else f"-{window[0]:.9g}-{window[1]:.9g}"
    return f"{digest}-{VERSION}{shown}"


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width < 1 or height < 1:
        raise RequestError("it has no pixels")
    if width * height > max_pixels:
        raise TooLargeError(
            f"it is {width} x {height} pixels, more than the {max_pixels / 1e6:.4g} million that are read: cut it up,"
            " or open it in napari"
        )


def _picture(data: bytes, kind: str, max_pixels: int) -> np.ndarray:
    from PIL import Image, ImageOps

    try:
        image: Image.Image = Image.open(io.BytesIO(data), formats=_FORMATS[kind])
    except Image.DecompressionBombError:
        most = min(max_pixels, 2 * (Image.MAX_IMAGE_PIXELS or max_pixels))
        raise TooLargeError(f"it has more than the {most / 1e6:.4g} million pixels that are read") from None
    with image:
        _check_size(image.width, image.height, max_pixels)
        image.load()
        if kind in _TURNED:
            image = ImageOps.exif_transpose(image)
        if image.mode == "1":
            image = image.convert("L")
        elif image.mode in ("LA", "La"):
            image = image.getchannel(0)
        if image.mode in ("L", "RGB", "F", "I") or image.mode.startswith("I;16"):
            return np.asarray(image)
        return np.asarray(image.convert("RGB"))


def _tiff(data: bytes, max_pixels: int) -> np.ndarray:
    import tifffile

    with tifffile.TiffFile(io.BytesIO(data)) as tif:
        page: Any = tif.pages[0]
        _check_size(page.imagewidth, page.imagelength, max_pixels)
        if page.imagedepth > 1 or page.nbytes > max_pixels * _PIXEL_BYTES:
            raise TooLargeError(f"its first page has shape {page.shape}: a plane with one channel or three is needed")
        pixels = page.asarray()
        if pixels.ndim not in (2, 3):  # of a page whose size is not told
            raise RequestError("it is damaged: its first page is no image")
        if pixels.ndim == 3 and page.planarconfig == tifffile.PLANARCONFIG.SEPARATE:
            pixels = np.moveaxis(pixels, 0, -1)
        photometric = page.photometric
        colours = page.colormap if photometric == tifffile.PHOTOMETRIC.PALETTE else None
    if photometric == tifffile.PHOTOMETRIC.SEPARATED:
        raise RequestError("it is a TIFF file in CMYK: save it in RGB")
    if pixels.dtype.kind not in "buif":
        raise RequestError(f"its pixels are {pixels.dtype}: whole or real numbers are needed")
    if pixels.ndim == 3:
        # more than one grey channel, or alpha: the first; colours and alpha: the colours
        coloured = pixels.shape[2] == 3 or photometric in (tifffile.PHOTOMETRIC.RGB, tifffile.PHOTOMETRIC.YCBCR)
        pixels = pixels[..., :3] if coloured and pixels.shape[2] >= 3 else pixels[..., 0]
    if colours is not None:
        pixels = (np.moveaxis(colours, 0, -1)[pixels] >> 8).astype(np.uint8)
    elif photometric == tifffile.PHOTOMETRIC.MINISWHITE:
        pixels = -pixels if pixels.dtype.kind == "f" else np.invert(pixels)
    return pixels.astype(np.uint8) * 255 if pixels.dtype == bool else pixels
