"""Image files of all kinds become the pixels that a browser shows, or a clear refusal."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ls_backend.errors import RequestError, TooLargeError
from ls_backend.pixels.decoding import decode_image, image_key, image_window, to_uint8

MAX = 10_000
RNG = np.random.default_rng(3)
GREY = RNG.integers(0, 256, (7, 11), np.uint8)
COLOUR = RNG.integers(0, 256, (7, 11, 3), np.uint8)
DEEP = RNG.integers(0, 65536, (7, 11), np.uint16)


def _saved(image: Image.Image | np.ndarray, kind: str, **options) -> bytes:
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def _tiff(pixels: np.ndarray, **options) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, pixels, **options)
    return stream.getvalue()


@pytest.mark.parametrize("pixels", [GREY, COLOUR, DEEP])
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_what_is_stored_without_loss_comes_back(pixels, kind):
    data = _saved(pixels, kind) if kind == "PNG" else _tiff(pixels, photometric="rgb" if pixels.ndim == 3 else None)
    found = decode_image(data, MAX)
    assert found.dtype == pixels.dtype
    np.testing.assert_array_equal(found, pixels)


@pytest.mark.parametrize("kind", ["BMP", "GIF", "WEBP"])
def test_other_kinds_without_loss(kind):
    image = Image.fromarray(COLOUR).quantize(256) if kind == "GIF" else Image.fromarray(COLOUR)
    found = decode_image(_saved(image, kind, lossless=True), MAX)
    np.testing.assert_array_equal(found, np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"quality": 95, "subsampling": 0}])
def test_jpeg(options):
    smooth = np.add.outer(np.arange(40), 2 * np.arange(60)).astype(np.uint8)
    for pixels in (smooth, np.stack([smooth, smooth.max() - smooth, smooth // 2], -1)):
        found = decode_image(_saved(pixels, "JPEG", **options), MAX)
        assert found.shape == pixels.shape
        assert np.abs(found.astype(int) - pixels).mean() < 6


def test_cmyk_becomes_rgb():
    image = Image.new("CMYK", (11, 7), (255, 0, 0, 0))
    found = decode_image(_saved(image, "JPEG"), MAX)
    assert found.shape == (7, 11, 3)
    red, green, blue = found[3, 5].astype(int)
    assert red < 40 < 150 < min(green, blue)


@pytest.mark.parametrize(
    ("kind", "orientation"), [(k, o) for k in ("JPEG", "PNG") for o in range(1, 9)] + [("WEBP", 6), ("WEBP", 3)]
)
def test_the_orientation_is_what_browsers_make_of_it(kind, orientation):
    pixels = np.zeros((8, 16, 3), np.uint8)
    pixels[:, :8] = 255  # the left half is white
    exif = Image.Exif()
    exif[0x0112] = orientation
    found = decode_image(_saved(pixels, kind, exif=exif), MAX)
    turned = kind != "WEBP"  # Chromium turns no WebP
    assert found.shape == ((16, 8, 3) if turned and orientation >= 5 else (8, 16, 3))
    bright = found[..., 0].astype(int)
    side = {  # of the white half
        1: bright[:, :4],
        2: bright[:, -4:],
        3: bright[:, -4:],
        4: bright[:, :4],
        5: bright[:4],
        6: bright[:4],
        7: bright[-4:],
        8: bright[-4:],
    }[orientation if turned else 1]
    assert side.min() > 200
    assert bright.min() < 50


def test_palettes_alpha_and_one_bit():
    rgba = np.dstack([COLOUR, np.full((7, 11), 128, np.uint8)])
    np.testing.assert_array_equal(decode_image(_saved(rgba, "PNG"), MAX), COLOUR)
    grey_alpha = Image.merge("LA", [Image.fromarray(GREY), Image.new("L", (11, 7), 9)])
    np.testing.assert_array_equal(decode_image(_saved(grey_alpha, "PNG"), MAX), GREY)
    palette = Image.fromarray(COLOUR).quantize(16)
    np.testing.assert_array_equal(decode_image(_saved(palette, "PNG"), MAX), np.asarray(palette.convert("RGB")))
    bits = Image.fromarray(GREY > 100)
    for data in (_saved(bits, "PNG"), _tiff(GREY > 100, photometric="minisblack")):
        np.testing.assert_array_equal(decode_image(data, MAX), np.where(GREY > 100, 255, 0))


def test_of_several_images_the_first():
    frames = [Image.fromarray(COLOUR // (i + 1)) for i in range(3)]
    for kind in ("GIF", "WEBP", "PNG"):
        lossless = {"lossless": True} if kind == "WEBP" else {}
        data = _saved(frames[0], kind, save_all=True, append_images=frames[1:], **lossless)
        found = decode_image(data, MAX)
        assert found.shape == COLOUR.shape
        assert np.abs(found.astype(int) - COLOUR).mean() < 20  # GIF has but 256 colours
    np.testing.assert_array_equal(decode_image(_tiff(np.stack([DEEP, DEEP // 2]), photometric="minisblack"), MAX), DEEP)


def test_tiff_of_all_sorts():
    planar = np.moveaxis(COLOUR, -1, 0)
    np.testing.assert_array_equal(decode_image(_tiff(planar, photometric="rgb", planarconfig="separate"), MAX), COLOUR)
    rgba = np.dstack([COLOUR, GREY])
    np.testing.assert_array_equal(decode_image(_tiff(rgba, photometric="rgb", extrasamples=[2]), MAX), COLOUR)
    channels = np.dstack([GREY] * 5)
    np.testing.assert_array_equal(
        decode_image(_tiff(channels, photometric="minisblack", planarconfig="contig"), MAX), GREY
    )
    np.testing.assert_array_equal(decode_image(_tiff(GREY, photometric="miniswhite"), MAX), 255 - GREY)
    np.testing.assert_array_equal(decode_image(_tiff(DEEP, compression="zlib", tile=(16, 16)), MAX), DEEP)
    colormap = RNG.integers(0, 65536, (3, 256), np.uint16)
    found = decode_image(_tiff(GREY, photometric="palette", colormap=colormap), MAX)
    np.testing.assert_array_equal(found, np.moveaxis(colormap, 0, -1)[GREY] >> 8)
    real = GREY.astype(np.float32) / 7
    np.testing.assert_array_equal(decode_image(_tiff(real), MAX), real)
    with pytest.raises(RequestError, match="whole or real numbers"):
        decode_image(_tiff(real.astype(np.complex64)), MAX)


def test_deep_images_are_seen_through_their_own_window():
    pixels = np.full((100, 100), 1000, np.uint16)
    pixels[:50] = 3000
    pixels[0, 0] = 65535  # a hot pixel does not darken the rest
    window = image_window(pixels)
    shown = to_uint8(pixels, window)
    assert shown.dtype == np.uint8
    assert shown[80, 5] == 0
    assert shown[20, 5] == 255
    assert image_window(GREY) is None
    assert to_uint8(GREY, None) is GREY
    assert image_key("d", window) != image_key("d", None) != image_key("e", None)


def _png_header(width: int, height: int) -> bytes:
    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    "data",
    [
        _png_header(20_000, 20_000),
        _png_header(101, 100),
        _saved(np.zeros((101, 100), np.uint8), "JPEG"),
        _tiff(np.zeros((101, 100), np.uint8), compression="zlib"),
        _tiff(np.zeros((100, 100, 50), np.uint8), photometric="minisblack", planarconfig="contig"),
    ],
)
def test_a_bomb_is_refused_before_it_is_decoded(data, monkeypatch):
    monkeypatch.setattr(Image.Image, "load", lambda *_: pytest.fail("decoded"))
    monkeypatch.setattr(tifffile.TiffPage, "asarray", lambda *_: pytest.fail("decoded"))
    with pytest.raises(TooLargeError):
        decode_image(data, MAX)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", r"empty \(0 bytes\)"),
        (b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>', "an SVG drawing"),
        (b"<!DOCTYPE html><html><body>Log in</body></html>", "a web page"),
        (b'{"detail": "x"}', "JSON"),
        (b"%!PS-Adobe-3.0 EPSF-3.0", "something else"),
        (b"\0\0\0\x18ftypmp42", "a video"),
        (b"\x89PNG\r\n\x1a\n", "damaged or cut off"),
        (b"II*\0\x08\0\0\0", "damaged or cut off"),
    ],
)
def test_what_is_no_image_is_refused(data, sentence):
    with pytest.raises(RequestError, match=sentence) as caught:
        decode_image(data, MAX)
    assert "BytesIO" not in str(caught.value)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_a_file_that_was_cut_off_is_refused(kind):
    noise = RNG.integers(0, 256, (60, 60, 3), np.uint8)
    data = _tiff(noise, photometric="rgb") if kind == "TIFF" else _saved(noise, kind)
    for length in (len(data) // 2, len(data) - 300):
        with pytest.raises(RequestError, match="damaged or cut off"):
            decode_image(data[:length], MAX)


_WHOLE = [_saved(COLOUR, k) for k in ("PNG", "JPEG", "WEBP", "GIF", "BMP")] + [_tiff(DEEP)]


@settings(max_examples=300)
@given(
    data=st.sampled_from(_WHOLE), changes=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=8)
)
def test_damaged_files_are_read_or_refused(data, changes):
    damaged = bytearray(data)
    for place, value in changes:
        damaged[place % len(damaged)] = value
    try:
        pixels = decode_image(bytes(damaged), MAX)
    except RequestError:
        return
    assert pixels.ndim == 2 or pixels.shape[2] == 3
    assert pixels.shape[0] * pixels.shape[1] <= MAX
