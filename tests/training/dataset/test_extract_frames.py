"""Frames of videos: numbered as in the video, whole or not there, and the damaged ones named."""

import errno
import shutil

import numpy as np
import pytest
from PIL import Image

from sam2_core.errors import InputError
from training.dataset.extract_frames import extract, main
from training.dataset.folders import load_sav

from .conftest import frame, number_of, write_video


def test_frames_are_those_of_the_video(sav, tmp_path, capsys):
    out = tmp_path / "frames"
    (out / ".sav_000001.0a1b2c3d.partial").mkdir(parents=True)
    given = ["--videos", str(sav), "--out", str(out), "--workers", "1"]
    assert main(given) == 0
    assert sorted(p.name for p in out.rglob("*")) == ["00000.jpg", "00004.jpg", "00008.jpg", "sav_000001"]
    with Image.open(out / "sav_000001" / "00008.jpg") as picture:
        assert number_of(np.asarray(picture)) == 8
    assert "1 of 1 videos" in capsys.readouterr().out
    (sequence,) = load_sav(sav, img_folder=out)
    assert sequence.labelled.tolist() == [True, True, True]
    before = (out / "sav_000001" / "00000.jpg").stat().st_mtime_ns
    assert main(given) == 0
    assert "1 were there before" in capsys.readouterr().out
    assert (out / "sav_000001" / "00000.jpg").stat().st_mtime_ns == before


def test_a_damaged_video_is_one_line_and_the_others_go_on(sav, tmp_path, capfd):
    write_video(sav / "cut.mp4", 30)
    content = (sav / "cut.mp4").read_bytes()
    (sav / "cut.mp4").write_bytes(content[: len(content) // 2])
    (sav / "text.mp4").write_text("no video")
    out = tmp_path / "frames"
    assert main(["--videos", str(sav), "--out", str(out), "--workers", "2"]) == 1
    assert [p.name for p in out.iterdir()] == ["sav_000001"]
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("extract_frames: ")]
    assert len(lines) == 2
    assert all(any(name in line for line in lines) for name in ("cut.mp4", "text.mp4"))


def test_a_file_that_was_cut_off_but_decodes(tmp_path, monkeypatch):
    # an index in front: all that is left can be decoded, and nothing but the header tells
    import av

    path = tmp_path / "a.mp4"
    with av.open(str(path), "w", options={"movflags": "faststart"}) as video:
        stream = video.add_stream("mpeg4", rate=24)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for t in range(30):
            video.mux(stream.encode(av.VideoFrame.from_ndarray(frame(t), format="rgb24")))
        video.mux(stream.encode())
    path.write_bytes(path.read_bytes()[:-500])
    assert "of 30 frames" in extract(path, tmp_path / "out" / "a", 4)
    assert not (tmp_path / "out" / "a").exists()


def test_the_disk_s_errors_are_no_fault_of_the_video(sav, tmp_path, monkeypatch):
    def full(*args, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(InputError, match="the disk is full"):
        extract(sav / "sav_000001.mp4", tmp_path / "out" / "sav_000001", 4)
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("wrong", ["folder", "empty", "every", "names", "file"])
def test_bad_input(sav, tmp_path, capsys, wrong):
    videos, every = tmp_path / "none" if wrong == "folder" else sav, "0" if wrong == "every" else "4"
    if wrong == "empty":
        (sav / "sav_000001.mp4").unlink()
    if wrong == "names":
        (sav / "more").mkdir()
        shutil.copy(sav / "sav_000001.mp4", sav / "more")
    if wrong == "file":
        (tmp_path / "out").write_text("in the way")
    assert main(["--videos", str(videos), "--out", str(tmp_path / "out"), "--every", every]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
    assert not (tmp_path / "out").is_dir()
