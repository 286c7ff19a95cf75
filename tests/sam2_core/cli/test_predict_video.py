"""`sam2 predict-video` with a model of random weights: palette PNGs of every frame, runs that go on."""

import numpy as np
import pytest
from PIL import Image

from sam2_core.labelstore.formats.davis import palette, save_ids

SIZE = (40, 56)


@pytest.fixture
def davis(tmp_path):
    """Two videos of four frames; in "two" an object with the id 7 is annotated from frame 2 on."""
    rng = np.random.default_rng(0)
    root = tmp_path / "davis"
    for name in ("one", "two"):
        for kind in ("JPEGImages", "Annotations"):
            (root / kind / name).mkdir(parents=True)
        for i in range(4):
            frame = rng.integers(0, 60, (*SIZE, 3)).astype(np.uint8)
            ids = np.zeros(SIZE, int)
            ids[5:20, 5 + i : 20 + i] = 2
            if name == "two" and i >= 2:
                ids[25:38, 30:50] = 7
            frame[ids > 0] += 130
            Image.fromarray(frame).save(root / "JPEGImages" / name / f"{i:05d}.jpg")
            save_ids(root / "Annotations" / name / f"{i:05d}.png", ids)
    return root


def masks(folder):
    return {f.stem: np.asarray(Image.open(f)) for f in sorted(folder.iterdir())}


def test_every_frame_gets_a_palette_png_of_its_own_size(sam2, davis, tmp_path):
    out = tmp_path / "out"
    result = sam2("predict-video", davis, "--out", out)
    assert result.exit_code == 0, result.output
    assert "2 videos, 8 frames" in result.stdout
    assert sorted(f.name for f in out.iterdir()) == ["one", "two"]
    for name, ids in (("one", {2}), ("two", {2, 7})):
        found = masks(out / name)
        assert list(found) == [f"{i:05d}" for i in range(4)]
        assert all(m.shape == SIZE and set(np.unique(m).tolist()) <= {0, *ids} for m in found.values())
    assert 2 in masks(out / "one")["00000"]
    assert not any(7 in masks(out / "two")[f"{i:05d}"] for i in (0, 1))
    assert 7 in masks(out / "two")["00002"]
    with Image.open(out / "one" / "00003.png") as picture:
        assert picture.mode == "P"
        assert picture.getpalette() == palette()


def test_later_annotations_are_not_used(sam2, davis, tmp_path):
    assert sam2("predict-video", davis, "--out", tmp_path / "all", "--videos", "one").exit_code == 0
    for i in (1, 2, 3):
        (davis / "Annotations" / "one" / f"{i:05d}.png").unlink()
    assert sam2("predict-video", davis, "--out", tmp_path / "first", "--videos", "one").exit_code == 0
    both = [masks(tmp_path / name / "one") for name in ("all", "first")]
    assert all(np.array_equal(both[0][stem], both[1][stem]) for stem in both[0])


def test_a_stopped_run_goes_on_with_what_is_not_done(sam2, davis, tmp_path, monkeypatch):
    from sam2_core.predict import vos

    out = tmp_path / "out"
    segment, calls = vos.segment_clip, []

    def stopping(*args):
        calls.append(1)
        for n, found in enumerate(segment(*args)):
            if len(calls) == 2 and n == 2:
                raise KeyboardInterrupt
            yield found

    monkeypatch.setattr(vos, "segment_clip", stopping)
    stopped = sam2("predict-video", davis, "--out", out)
    assert stopped.exit_code == 130
    assert "goes on with the others" in stopped.stderr
    assert [f.name for f in out.iterdir()] == ["one"]
    (out / ".two.0badcafe.partial").mkdir()  # as a killed run leaves it
    done = (out / "one" / "00000.png").stat().st_mtime_ns
    again = sam2("predict-video", davis, "--out", out)
    assert again.exit_code == 0, again.output
    assert "1 video, 4 frames" in again.stdout
    assert "1 done before" in again.stdout
    assert sorted(f.name for f in out.iterdir()) == ["one", "two"]
    assert (out / "one" / "00000.png").stat().st_mtime_ns == done
    assert len(calls) == 3


def test_masks_of_another_size_are_replaced_only_when_told(sam2, davis, tmp_path):
    command = ["predict-video", davis, "--out", tmp_path / "out", "--videos", "one"]
    assert sam2(*command).exit_code == 0
    first = masks(tmp_path / "out" / "one")
    other = sam2(*command, "--image-size", "96")
    assert other.exit_code == 2
    assert "not of this model" in other.stderr
    assert sam2(*command, "--image-size", "96", "--overwrite").exit_code == 0
    now = masks(tmp_path / "out" / "one")
    assert any(not np.array_equal(first[stem], now[stem]) for stem in first)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda root: ["--videos", "three"], "no video three"),
        (lambda root: ["--videos", "one,"], "--videos one,:"),
        (lambda root: ["--out", root / "Annotations", "--overwrite"], "belongs to the data"),
        (lambda root: ["--out", root / "JPEGImages", "--overwrite"], "belongs to the data"),
        (lambda root: ["--model", "no-such-model"], "no-such-model"),
    ],
)
def test_bad_options(sam2, davis, tmp_path, change, sentence):
    result = sam2("predict-video", davis, "--out", tmp_path / "out", *change(davis))
    assert result.exit_code == 2
    assert sentence in result.stderr
    assert not (tmp_path / "out").exists()
    assert len(list((davis / "Annotations" / "one").iterdir())) == 4


def test_bad_data(sam2, davis, tmp_path):
    nothing = sam2("predict-video", tmp_path / "nothing", "--out", tmp_path / "out")
    assert nothing.exit_code == 2
    assert "JPEGImages" in nothing.stderr
    Image.fromarray(np.full(SIZE, 300, np.uint16)).save(davis / "Annotations" / "one" / "00000.png")
    large = sam2("predict-video", davis, "--out", tmp_path / "out")
    assert large.exit_code == 2
    assert "the id 300" in large.stderr
    assert not list(tmp_path.glob("out/*"))
