"""Tiny data sets in the layouts of DAVIS, SA-V and SA-1B."""

from __future__ import annotations

import json

import av
import numpy as np
import pytest
from PIL import Image

from sam2_core.labelstore.formats.davis import palette
from sam2_core.masks import mask_to_rle

SIZE = (48, 64)


def frame(t):
    """A smooth picture (48, 64, 3) that changes with time, which JPEG and video codecs keep well."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    return np.stack([x + 9 * t, y + 9 * t, (x + y) // 2 + 9 * t], axis=-1).astype(np.uint8)


def number_of(picture, count=12):
    """Which of the frames a picture (48, 64, 3) that was encoded and decoded is."""
    return int(np.argmin([np.abs(picture.astype(int) - frame(t)).mean() for t in range(count)]))


def square(t=0, at=(8, 10), side=14):
    """A mask (48, 64) that moves to the right."""
    mask = np.zeros(SIZE, bool)
    mask[at[0] : at[0] + side, at[1] + t : at[1] + side + t] = True
    return mask


def write_video(path, count, codec="mpeg4"):
    with av.open(str(path), "w") as video:
        stream = video.add_stream(codec, rate=24)
        stream.width, stream.height, stream.pix_fmt = SIZE[1], SIZE[0], "yuv420p"
        for t in range(count):
            video.mux(stream.encode(av.VideoFrame.from_ndarray(frame(t), format="rgb24")))
        video.mux(stream.encode())


@pytest.fixture
def davis(tmp_path):
    """Two videos of six frames, of which all but number 3 are annotated; the ids of the second are 1 and 3."""
    for name, other in (("dog", 2), ("cat", 3)):
        for kind in ("JPEGImages", "Annotations"):
            (tmp_path / "davis" / kind / name).mkdir(parents=True)
        for t in range(6):
            Image.fromarray(frame(t)).save(tmp_path / "davis" / "JPEGImages" / name / f"{t:05d}.jpg", quality=95)
            if t != 3:
                ids = np.select([square(t), square(t, (26, 20))], [1, other]).astype(np.uint8)
                picture = Image.fromarray(ids)
                picture.putpalette(palette())
                picture.save(tmp_path / "davis" / "Annotations" / name / f"{t:05d}.png")
    return tmp_path / "davis"


@pytest.fixture
def sav(tmp_path):
    """One video of ten frames with two objects, the second within the first, on its frames 0, 4 and 8."""
    folder = tmp_path / "sav"
    folder.mkdir()
    write_video(folder / "sav_000001.mp4", 10)
    masklets = [[mask_to_rle(square(t, side=20)), mask_to_rle(square(t, (10, 12), 6))] for t in (0, 4, 8)]
    masklets[2][1] = mask_to_rle(np.zeros(SIZE, bool))
    (folder / "sav_000001_manual.json").write_text(json.dumps({"video_id": "sav_000001", "masklet": masklets}))
    return folder


@pytest.fixture
def sa1b(tmp_path):
    """Two images, each with a whole, a part in it, a part of that, and a square beside."""
    folder = tmp_path / "sa1b"
    folder.mkdir()
    masks = [square(at=(2, 2), side=8), square(at=(4, 4), side=4), square(at=(0, 0), side=24), square(at=(30, 30))]
    for name in ("sa_1", "sa_2"):
        Image.fromarray(frame(3)).save(folder / f"{name}.jpg", quality=95)
        entry = {"file_name": f"{name}.jpg", "height": SIZE[0], "width": SIZE[1]}
        content = {"image": entry, "annotations": [{"segmentation": mask_to_rle(m)} for m in masks]}
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder
