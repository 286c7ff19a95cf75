"""The layout of DAVIS: which files are the frames of a video, and what a palette PNG holds."""

import numpy as np
import pytest
from PIL import Image

from sam2_core.errors import InputError
from sam2_core.labelstore.formats.davis import clips, palette, read_note, save_ids


def video(root, name, frames, annotated, size=(20, 30)):
    for kind, stems, mode in (("JPEGImages", frames, "RGB"), ("Annotations", annotated, None)):
        (root / kind / name).mkdir(parents=True)
        for stem in stems:
            if mode:
                Image.new(mode, size[::-1]).save(root / kind / name / f"{stem}.jpg")
            else:
                save_ids(root / kind / name / f"{stem}.png", np.full(size, int(stem) + 1))


def test_frames_are_in_the_order_of_their_numbers(tmp_path):
    video(tmp_path, "a", ["0", "2", "10"], ["10", "2"])
    (clip,) = clips(tmp_path)
    assert [f.stem for f in clip.frames] == ["0", "2", "10"]
    assert sorted(clip.annotations) == [1, 2]
    assert [int(clip.ids(i).max()) for i in range(3)] == [0, 3, 11]
    assert clip.size == (20, 30)


def test_videos_by_name(tmp_path):
    for name in "ab":
        video(tmp_path, name, ["00000"], ["00000"])
    assert [clip.name for clip in clips(tmp_path)] == ["a", "b"]
    assert [clip.name for clip in clips(tmp_path, ["b"])] == ["b"]
    with pytest.raises(InputError, match="no video c"):
        list(clips(tmp_path, ["b", "c"]))


def test_one_name_in_two_resolutions_is_refused_where_it_is_wanted(tmp_path):
    for name in ("480p/dog", "Full-Resolution/dog", "480p/cat"):
        video(tmp_path, name, ["00000"], ["00000"])
    with pytest.raises(InputError, match="have one name"):
        list(clips(tmp_path))
    assert [clip.name for clip in clips(tmp_path, ["cat"])] == ["cat"]


def test_ids_are_indices_into_the_palette_of_davis(tmp_path):
    ids = np.arange(256).reshape(16, 16)
    save_ids(tmp_path / "ids.png", ids, "a note")
    with Image.open(tmp_path / "ids.png") as picture:
        assert picture.mode == "P"
        np.testing.assert_array_equal(np.asarray(picture), ids)
        colours = np.asarray(picture.convert("RGB")).reshape(256, 3)
    assert colours[:9].tolist() == [
        *([0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0], [0, 0, 128]),
        *([128, 0, 128], [0, 128, 128], [128, 128, 128], [64, 0, 0]),
    ]
    assert colours[255].tolist() == [224, 224, 192]
    assert len(palette()) == 768
    assert read_note(tmp_path / "ids.png") == "a note"


def test_files_without_a_note(tmp_path):
    save_ids(tmp_path / "ids.png", np.zeros((4, 4)))
    assert read_note(tmp_path / "ids.png") is None
    assert read_note(tmp_path / "none.png") is None
