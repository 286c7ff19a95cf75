"""Videos: frames as Label Studio counts them, found by their time in the file."""

from __future__ import annotations

import asyncio
import gc
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ls_backend.errors import RequestError, TooLargeError
from ls_backend.pixels.images import ImageLimits
from ls_backend.pixels.video_clip import VideoClip, VideoFile
from ls_backend.studio import contents
from tests.ls_backend.pixels.test_images import png, run, upload
from tests.ls_backend.web_server import web_server

SHAPE = (32, 48)


def make_video(path: Path, times: list[float], codec: str = "mpeg4") -> bytes:
    """A video whose frame i has the brightness 10 i, shown from the given seconds on."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=1000)
        stream.height, stream.width = SHAPE
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = stream.time_base = Fraction(1, 1000)
        stream.codec_context.max_b_frames = 0
        for i, seconds in enumerate(times):
            frame = av.VideoFrame.from_ndarray(np.full((*SHAPE, 3), 10 * i, np.uint8), format="rgb24")
            frame.pts, frame.time_base = round(seconds * 1000), Fraction(1, 1000)
            _mux(container, stream.encode(frame), times)
        _mux(container, stream.encode(), times)
    return path.read_bytes()


def _mux(container, packets, times: list[float]) -> None:
    for packet in packets:
        packet.duration = round((times[1] - times[0]) * 1000)  # of the last one above all
        container.mux(packet)


@pytest.fixture
def server():
    with web_server() as found:
        yield found


def _clip(server, content: bytes, check, framerate: float = 24, **more):
    address = upload(server, "a.mp4", content)

    async def work(images):
        clip = await images.video(address, framerate)
        return await asyncio.to_thread(check, clip)

    return run(server, work, **more)


def _seen(clip: VideoClip) -> list[int]:
    """The frames of the file that are seen, told by their brightness."""
    return [round(float(clip.frame(i).mean()) / 10) for i in range(len(clip))]


def test_at_the_rate_of_the_file_each_frame_is_seen_once(server, tmp_path):
    content = make_video(tmp_path / "a.mp4", [i / 10 for i in range(12)])

    def check(clip):
        assert (len(clip), clip.size, clip.framerate) == (12, SHAPE, 10)
        assert clip.duration == pytest.approx(1.2, abs=0.11)
        assert _seen(clip) == list(range(12))
        assert clip.frame(3).shape == (*SHAPE, 3)
        assert clip.frame(3).dtype == np.uint8

    _clip(server, content, check, 10)


def test_at_other_rates_frames_are_left_out_or_seen_twice(server, tmp_path):
    content = make_video(tmp_path / "a.mp4", [i / 10 for i in range(12)])
    assert _clip(server, content, _seen, 5) == [0, 2, 4, 6, 8, 10]

    def check(clip):
        assert _seen(clip) == [i // 2 for i in range(24)]
        assert clip.frame_key(4) == clip.frame_key(5) != clip.frame_key(6)

    _clip(server, content, check, 20)


def test_a_varying_frame_rate_goes_by_the_clock(server, tmp_path):
    times = [0.0, 0.1, 0.2, 0.8, 0.9, 1.0]
    content = make_video(tmp_path / "a.mp4", times)

    def check(clip):
        expected = [max(k for k, t in enumerate(times) if t <= i / 10 + 0.002) for i in range(len(clip))]
        assert _seen(clip) == expected
        assert expected[:10] == [0, 1, 2, 2, 2, 2, 2, 2, 3, 4]
        assert clip.file_frame_at(0.85) == 3

    _clip(server, content, check, 10)


def test_a_video_that_begins_late_shows_its_first_frame_until_then(server, tmp_path):
    content = make_video(tmp_path / "a.webm", [0.5 + i / 10 for i in range(8)], "libvpx-vp9")
    assert _clip(server, content, _seen, 10) == [0] * 6 + [1, 2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize(("codec", "name"), [("libvpx", "a.webm"), ("libx264", "a.mp4"), ("mpeg4", "a.avi")])
def test_other_files(server, tmp_path, codec, name):
    content = make_video(tmp_path / name, [i / 25 for i in range(10)], codec)
    assert _clip(server, content, _seen, 25)[:10] == list(range(10))


@pytest.mark.parametrize(("degrees", "turns"), [(90, -1), (180, 2), (270, 1)])
def test_a_video_is_turned_as_it_says(server, tmp_path, degrees, turns):
    import av

    path = tmp_path / "a.mp4"
    pixels = np.zeros((*SHAPE, 3), np.uint8)
    pixels[:, : SHAPE[1] // 2] = 200
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.height, stream.width = SHAPE
        stream.pix_fmt = "yuv420p"
        for _ in range(2):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    # the matrix of the track's header, clockwise as players turn it
    cosine, sine = {90: (0, 1), 180: (-1, 0), 270: (0, -1)}[degrees]
    content = bytearray(path.read_bytes())
    start = content.index(b"tkhd") + 4 + 40
    matrix = [cosine << 16, sine << 16, 0, -sine << 16, cosine << 16, 0, 0, 0, 1 << 30]
    content[start : start + 36] = b"".join((value % 2**32).to_bytes(4, "big") for value in matrix)

    def check(clip):
        expected = np.rot90(pixels, turns)
        assert clip.size == expected.shape[:2]
        assert np.abs(clip.frame(0).astype(int) - expected).mean() < 20

    _clip(server, bytes(content), check, 10)


def test_a_video_is_fetched_once_and_known_by_its_content(server, tmp_path):
    folder = tmp_path / "files"
    content = make_video(tmp_path / "a.mp4", [i / 10 for i in range(5)])
    addresses = [upload(server, f"{i}.mp4", content) for i in range(3)]

    async def work(images):
        clips = [await images.video(a, 10) for a in (addresses[0], addresses[0], addresses[1])]
        assert clips[0].key == clips[1].key == clips[2].key
        assert (await images.video(addresses[0], 5)).key != clips[0].key
        assert len(server.requests) == 2
        return clips[0]

    clip = run(server, work, folder=folder)
    # whoever still has it may go on reading
    assert _seen(clip) == list(range(5))
    assert len(list(folder.iterdir())) == 1
    del clip
    gc.collect()
    assert not list(folder.iterdir())


def test_the_disk_is_bounded(server, tmp_path):
    folder = tmp_path / "files"
    content = make_video(tmp_path / "a.mp4", [i / 10 for i in range(5)])

    async def work(images):
        for i in range(6):
            await images.video(upload(server, f"{i}.mp4", content + bytes(i)), 10)
        gc.collect()
        return sum(path.stat().st_size for path in folder.iterdir())

    assert run(server, work, folder=folder, disk_bytes=3 * len(content)) <= 3 * len(content)


def test_a_changed_video_is_noticed(server, tmp_path, monkeypatch):
    monkeypatch.setattr(contents, "LASTING_SECONDS", 0.0)

    async def work(images):
        address = upload(server, "a.mp4", make_video(tmp_path / "a.mp4", [i / 10 for i in range(5)]))
        before = await images.video(address, 10)
        upload(server, "a.mp4", make_video(tmp_path / "b.mp4", [i / 10 for i in range(8)]))
        after = await images.video(address, 10)
        return len(before), len(after), before.key == after.key

    assert run(server, work) == (5, 8, False)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", r"/data/upload/1/a\.mp4 cannot be used: it is empty"),
        (b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", "something else, not a video"),
        (b"ffconcat version 1.0\nfile /etc/passwd\n", "something else, not a video"),
        (png(np.zeros((4, 4), np.uint8)), "an image, not a video"),
        (b"\0\0\0\x18ftypmp42" + bytes(100), "cannot be used"),
    ],
)
def test_what_is_no_video_is_refused(server, tmp_path, content, sentence):
    with pytest.raises(RequestError, match=sentence) as caught:
        _clip(server, content, len, folder=tmp_path)
    assert str(tmp_path) not in str(caught.value)


def test_limits_and_frame_rates(server, tmp_path):
    content = make_video(tmp_path / "a.mp4", [0, 0.1])
    with pytest.raises(TooLargeError):
        _clip(server, content, len, limits=ImageLimits(video_bytes=100))
    with pytest.raises(TooLargeError, match="48 x 32 pixels"):
        _clip(server, content, len, limits=ImageLimits(pixels=1000))
    for framerate in (0, -1, float("nan"), float("inf"), 1e9):
        with pytest.raises(RequestError, match="frame rate"):
            _clip(server, content, len, framerate)


class _Facts:
    """A video of which only the times count."""

    class frames:
        close = staticmethod(lambda: None)

    digest = "d"

    def __init__(self, times: list[float], duration: float) -> None:
        self.times = np.asarray(times)
        self.duration = duration


def test_a_video_that_says_it_lasts_for_ever_is_refused():
    with pytest.raises(TooLargeError, match="cut it up"):
        VideoClip(_Facts([0.0, 0.1], 1e12), 25)  # type: ignore[arg-type]


@given(
    steps=st.lists(st.floats(0.001, 2), min_size=1, max_size=40),
    framerate=st.one_of(st.sampled_from([24.0, 25.0, 29.97, 30.0]), st.floats(1, 100)),
)
def test_frames_follow_the_clock(steps, framerate):
    times = np.concatenate([[0], np.cumsum(steps)])[:-1]
    clip = VideoClip(_Facts(times, sum(steps)), framerate)  # type: ignore[arg-type]
    assert len(clip) == max(int(sum(steps) * framerate + 0.5), 1)
    shown = [clip.file_frame(i) for i in range(len(clip))]
    assert shown == sorted(shown)
    for i, frame in enumerate(shown):
        seconds = i / framerate
        assert times[frame] <= seconds + 0.0031
        if frame + 1 < len(times):
            assert times[frame + 1] > seconds + 0.0009


@pytest.mark.parametrize("rate", [10, 24, 25, 30, 50, 60, 100])
def test_at_a_constant_rate_frames_are_those_of_the_file(rate):
    clip = VideoClip(_Facts([i / rate for i in range(500)], 500 / rate), rate)  # type: ignore[arg-type]
    assert [clip.file_frame(i) for i in range(500)] == list(range(500))


def test_a_video_file_needs_a_video():
    import io

    with pytest.raises(RequestError, match="a web page"):
        VideoFile(io.BytesIO(b"<html></html>"), "d", 1000)
