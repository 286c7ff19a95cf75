"""What kind of file it is, told by how it begins: names and announced types are not to be relied on."""

from __future__ import annotations

HEAD_BYTES = 512
"""How much of a file is looked at."""

IMAGE_KINDS = (".png", ".jpg", ".gif", ".bmp", ".webp", ".avif", ".tif")
VIDEO_KINDS = (".mp4", ".webm", ".ogv", ".avi", ".ts", ".mpg")

_STARTS = (
    (b"\x89PNG\r\n\x1a\n", ".png"),
    (b"\xff\xd8\xff", ".jpg"),
    (b"GIF87a", ".gif"),
    (b"GIF89a", ".gif"),
    (b"BM", ".bmp"),
    (b"II*\0", ".tif"),
    (b"MM\0*", ".tif"),
    (b"II+\0", ".tif"),
    (b"MM\0+", ".tif"),
    (b"\x1aE\xdf\xa3", ".webm"),
    (b"OggS", ".ogv"),
    (b"\0\0\x01\xba", ".mpg"),
    (b"\0\0\x01\xb3", ".mpg"),
)
_MP4_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")
_PACKET = 188  # bytes of a packet of an MPEG transport stream, each of which begins with "G"


def kind_of(head: bytes) -> str | None:
    """The usual suffix of such files, one of `IMAGE_KINDS` or `VIDEO_KINDS`; None for anything else.

    Parameters
    ----------
    head : bytes
        The first `HEAD_BYTES` of the file.
    """
    for start, kind in _STARTS:
        if head.startswith(start):
            return kind
    if head[:4] == b"RIFF":
        return {b"WEBP": ".webp", b"AVI ": ".avi"}.get(head[8:12])
    if head[4:8] == b"ftyp" and head[8:12] in (b"avif", b"avis"):
        return ".avif"
    if head[4:8] in _MP4_BOXES:
        return ".mp4"
    if len(head) > _PACKET and head[0] == head[_PACKET] == ord("G"):
        return ".ts"
    return None


def described(head: bytes) -> str:
    """What a file that is no image or video seems to be, as the end of "it is ..."."""
    if not head:
        return "empty (0 bytes)"
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if b"<svg" in text:
        return "an SVG drawing"
    if text.startswith((b"<!doctype html", b"<html")):
        return "a web page"
    if text.startswith(b"<"):
        return "XML"
    if text.startswith((b"{", b"[")):
        return "JSON"
    return "something else"
