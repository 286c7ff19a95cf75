"""Frame sources give the right pixels in any order, lazily, and refuse bad input in one sentence."""

import gc
import threading
import time

import av
import dask.array as da
import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image

from sam2_core.errors import InputError
from sam2_core.predict.frames import ArrayFrames, FrameSource, PrefetchedFrames, open_frames
from sam2_core.predict.image_frames import ImageFolderFrames
from sam2_core.predict.transforms import apply_window, estimate_window, resize_frame
from sam2_core.predict.video_frames import VideoFrames


def _ramp(count, height=6, width=9, dtype=np.uint8):
    return np.arange(count * height * width).reshape(count, height, width).astype(dtype)


class TestArrayFrames:
    @pytest.mark.parametrize("wrap", [np.asarray, lambda a: da.from_array(a, chunks=3), zarr.array])
    @pytest.mark.parametrize("shape", [(7, 6, 9), (7, 6, 9, 3)])
    def test_uint8_passes_unchanged(self, wrap, shape):
        array = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        source = open_frames(wrap(array))
        assert isinstance(source, FrameSource)
        assert (len(source), source.size) == (7, (6, 9))
        for i in (3, 0, 6, 5):
            np.testing.assert_array_equal(source.frame(i), array[i])
            assert source.frame(i).dtype == np.uint8

    def test_window_maps_intensities_to_unit_range(self):
        array = np.array([[[0, 100, 150, 200, 4000]]], np.uint16)
        frame = ArrayFrames(array, window=(100, 200)).frame(0)
        assert frame.dtype == np.float32
        np.testing.assert_allclose(frame, [[0, 0, 0.5, 1, 1]])

    def test_one_window_for_all_frames(self):
        array = np.stack([np.full((8, 8), v, np.uint16) for v in range(100, 1100, 10)])
        source = ArrayFrames(array)
        means = [float(source.frame(i).mean()) for i in range(len(source))]
        assert means[0] == 0
        assert means[-1] == 1
        assert (np.diff(means) >= 0).all()
        assert np.median(means) == pytest.approx(0.5, abs=0.02)

    def test_nan_and_infinity(self):
        array = np.array([[[np.nan, -np.inf, np.inf, 1.0, 3.0]]], np.float32)
        source = ArrayFrames(array)
        assert source.window == pytest.approx((1, 3), abs=0.05)
        np.testing.assert_allclose(source.frame(0), [[0, 0, 1, 0, 1]], atol=0.01)

    @pytest.mark.parametrize("value", [np.nan, 7.0])
    def test_constant_or_empty_values_are_harmless(self, value):
        frame = ArrayFrames(np.full((2, 4, 4), value)).frame(1)
        assert np.isfinite(frame).all()
        assert frame.min() == frame.max()

    def test_bool(self):
        np.testing.assert_array_equal(ArrayFrames(np.array([[[True, False]]])).frame(0), [[1.0, 0.0]])

    def test_large_integers_keep_their_precision(self):
        array = np.array([[[2**31, 2**31 + 1, 2**31 + 2]]], np.int64)
        np.testing.assert_allclose(ArrayFrames(array, window=(2**31, 2**31 + 2)).frame(0), [[0, 0.5, 1]], atol=1e-6)

    @pytest.mark.parametrize(
        "array",
        [
            np.zeros((4, 4), np.uint8),
            np.zeros((2, 4, 4, 2), np.uint8),
            np.zeros((0, 4, 4), np.uint8),
            np.zeros((2, 4, 4), complex),
            np.array([[["a"]]]),
        ],
    )
    def test_bad_arrays_are_refused(self, array):
        with pytest.raises(InputError, match="give"):
            open_frames(array)

    @pytest.mark.parametrize("i", [-1, 7])
    def test_index_outside(self, i):
        with pytest.raises(IndexError, match=r"0\.\.6"):
            ArrayFrames(_ramp(7)).frame(i)

    def test_reads_only_what_is_asked_for(self):
        read = []
        array = da.map_blocks(
            lambda block_info=None: read.append(block_info[None]["chunk-location"][0]) or _ramp(1),
            chunks=((1,) * 50, (6,), (9,)),
            dtype=np.uint8,
            meta=np.zeros((0, 0, 0), np.uint8),
        )
        source = open_frames(array)
        source.frame(30)
        assert set(read) <= {30}

    def test_a_chunk_of_many_planes_is_read_once(self, monkeypatch):
        array = zarr.array(_ramp(8), chunks=(4, 6, 9))
        source = ArrayFrames(array)
        calls = []
        original = zarr.Array.__getitem__
        monkeypatch.setattr(zarr.Array, "__getitem__", lambda self, key: calls.append(key) or original(self, key))
        for i in range(8):
            np.testing.assert_array_equal(source.frame(i), _ramp(8)[i])
        assert len(calls) == 2


def test_estimate_window_is_bounded_for_large_planes():
    class Plane:
        shape = (50_000, 40_000)
        read = 0

        def __getitem__(self, key):
            height, width = (s.stop - s.start for s in key)
            Plane.read += height * width
            return np.broadcast_to(np.linspace(10, 20, width), (height, width))

    assert estimate_window(lambda i: Plane(), 1000) == pytest.approx((10, 20), abs=0.1)
    assert Plane.read <= 12 * 1024**2


def test_apply_window_equal_limits():
    np.testing.assert_array_equal(apply_window(np.array([4, 5, 6]), (5, 5)), [0, 0, 1])


class TestImageFolderFrames:
    def _write(self, folder, name, value, size=(9, 6)):
        Image.new("RGB", size, (value, 0, 255 - value)).save(folder / name)

    def test_numbers_are_sorted_as_numbers(self, tmp_path):
        for number in (10, 9, 100, 0):
            self._write(tmp_path, f"{number}.png", number)
        (tmp_path / "notes.txt").write_text("not a frame")
        source = open_frames(tmp_path)
        assert [int(source.frame(i)[0, 0, 0]) for i in range(len(source))] == [0, 9, 10, 100]
        assert source.size == (6, 9)

    def test_other_names_are_sorted_naturally(self, tmp_path):
        for number in (10, 9, 100):
            self._write(tmp_path, f"cell_{number}_t.jpg", number)
        assert [p.stem for p in ImageFolderFrames(tmp_path).paths] == ["cell_9_t", "cell_10_t", "cell_100_t"]

    def test_pixels_of_each_mode(self, tmp_path):
        grey = np.random.default_rng(0).integers(0, 256, (6, 9), dtype=np.uint8)
        colour = np.random.default_rng(1).integers(0, 256, (6, 9, 3), dtype=np.uint8)
        Image.fromarray(grey).save(tmp_path / "0.png")
        Image.fromarray(colour).save(tmp_path / "1.png")
        Image.fromarray(np.dstack([colour, grey])).save(tmp_path / "2.png")
        Image.fromarray(grey > 100).save(tmp_path / "3.png")
        tifffile.imwrite(tmp_path / "4.tif", np.moveaxis(colour, -1, 0), photometric="rgb", planarconfig="separate")
        Image.fromarray(colour).convert("P", palette=Image.Palette.ADAPTIVE).save(tmp_path / "5.png")
        source = open_frames(tmp_path)
        np.testing.assert_array_equal(source.frame(0), grey)
        np.testing.assert_array_equal(source.frame(1), colour)
        np.testing.assert_array_equal(source.frame(2), colour)
        np.testing.assert_array_equal(source.frame(3), (grey > 100) * np.uint8(255))
        np.testing.assert_array_equal(source.frame(4), colour)
        np.testing.assert_array_equal(source.frame(5), colour)

    @pytest.mark.parametrize("suffix", ["png", "tif"])
    def test_sixteen_bit_images_share_one_window(self, tmp_path, suffix):
        for i, value in enumerate((1000, 2000, 3000)):
            plane = np.full((6, 9), value, np.uint16)
            if suffix == "tif":
                tifffile.imwrite(tmp_path / f"{i}.tif", plane)
            else:
                Image.fromarray(plane).save(tmp_path / f"{i}.png")
        frames = [float(f.mean()) for f in (open_frames(tmp_path).frame(i) for i in range(3))]
        assert frames == pytest.approx([0, 0.5, 1], abs=0.02)

    def test_single_image_is_one_frame(self, tmp_path):
        self._write(tmp_path, "a.png", 3)
        assert len(open_frames(tmp_path / "a.png")) == 1

    def test_mixed_sizes_are_refused(self, tmp_path):
        self._write(tmp_path, "0.png", 0)
        self._write(tmp_path, "1.png", 0, size=(10, 6))
        with pytest.raises(InputError, match=r"frame 1 \(1\.png\) is 10 x 6 pixels but the first is 9 x 6"):
            open_frames(tmp_path)

    def test_truncated_image_names_the_file(self, tmp_path):
        pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        for i in range(2):
            Image.fromarray(pixels).save(tmp_path / f"{i}.png")
        (tmp_path / "1.png").write_bytes((tmp_path / "1.png").read_bytes()[:2000])
        source = open_frames(tmp_path)
        with pytest.raises(InputError, match=r"1\.png cannot be read as an image"):
            source.frame(1)

    def test_stack_in_one_file_is_refused(self, tmp_path):
        tifffile.imwrite(tmp_path / "stack.tif", np.zeros((3, 8, 8), np.uint8), photometric="minisblack")
        with pytest.raises(InputError, match="open_volume"):
            open_frames(tmp_path / "stack.tif").frame(0)


@pytest.mark.parametrize("name", ["missing", "missing.mp4"])
def test_missing_path(tmp_path, name):
    with pytest.raises(InputError, match="does not exist"):
        open_frames(tmp_path / name)


def test_unusable_sources(tmp_path):
    with pytest.raises(InputError, match="holds no images"):
        open_frames(tmp_path)
    (tmp_path / "a.mp4").write_bytes(b"this is no video")
    with pytest.raises(InputError, match="cannot be read as a video"):
        open_frames(tmp_path / "a.mp4")
    zarr.create_array(tmp_path / "a.zarr", shape=(2, 4, 4), dtype="u1")
    with pytest.raises(InputError, match="open_volume"):
        open_frames(tmp_path / "a.zarr")
    with pytest.raises(InputError, match="int"):
        open_frames(3)


COUNT = 40


def _encode(path, codec, pixel_format="yuv420p", b_frames=None, **options):
    """Frames of a moving bar on a brightening ground, so that no two are alike."""
    container = av.open(str(path), "w")
    stream = container.add_stream(codec, rate=25, options=options)
    stream.width, stream.height, stream.pix_fmt, stream.gop_size = 64, 48, pixel_format, 12
    if b_frames is not None:
        stream.codec_context.max_b_frames = b_frames
    for i in range(COUNT):
        image = np.full((48, 64, 3), 3 * i, np.uint8)
        image[i : i + 3] = 255
        container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
    container.mux(stream.encode())
    container.close()
    with av.open(str(path)) as again:
        return [picture.to_ndarray(format="rgb24") for picture in again.decode(video=0)]


class TestVideoFrames:
    @pytest.mark.parametrize(
        ("name", "codec", "options"),
        [
            ("a.mp4", "libx264", {"b_frames": 2}),
            ("a.mkv", "libx264", {"b_frames": 3, "x264-params": "open-gop=1"}),
            ("a.avi", "mpeg4", {"b_frames": 2}),
            ("a.webm", "libvpx", {"auto-alt-ref": "1", "lag-in-frames": "16"}),
            ("a.h264", "libx264", {"b_frames": 2}),
            ("a.mov", "mjpeg", {"pixel_format": "yuvj420p"}),
        ],
    )
    def test_frames_are_exact_in_any_order(self, tmp_path, name, codec, options):
        expected = _encode(tmp_path / name, codec, **options)
        with VideoFrames(tmp_path / name) as source:
            assert len(source) == len(expected) == COUNT
            assert source.size == (48, 64)
            random = np.random.default_rng(0).integers(0, COUNT, 20)
            for i in [*range(COUNT), *reversed(range(COUNT)), *random]:
                np.testing.assert_array_equal(source.frame(int(i)), expected[i], err_msg=f"frame {i}")

    def test_bytes(self, tmp_path):
        expected = _encode(tmp_path / "a.mp4", "libx264")
        source = open_frames((tmp_path / "a.mp4").read_bytes())
        np.testing.assert_array_equal(source.frame(20), expected[20])

    def test_sixteen_bit_grey_goes_through_a_window(self, tmp_path):
        _encode(tmp_path / "a.mkv", "ffv1", pixel_format="gray16le")
        source = VideoFrames(tmp_path / "a.mkv")
        frame = source.frame(10)
        assert frame.shape == (48, 64)
        assert frame.dtype == np.float32
        assert frame.min() < 0.2
        assert frame.max() == 1

    def test_small_memory_and_few_decodes_going_backwards(self, tmp_path, monkeypatch):
        _encode(tmp_path / "a.mp4", "libx264")
        source = VideoFrames(tmp_path / "a.mp4")
        seeks = []
        original = VideoFrames._seek
        monkeypatch.setattr(VideoFrames, "_seek", lambda self, start: seeks.append(start) or original(self, start))
        for i in range(COUNT):
            source.frame(i)
            assert len(source._recent) <= 2
        assert seeks == []
        for i in reversed(range(COUNT)):
            source.frame(i)
        assert len(seeks) <= len(source._keyframes)

    def test_reopens_after_close(self, tmp_path):
        expected = _encode(tmp_path / "a.mp4", "libx264")
        source = VideoFrames(tmp_path / "a.mp4")
        source.close()
        np.testing.assert_array_equal(source.frame(30), expected[30])

    def test_threads_share_it(self, tmp_path):
        expected = _encode(tmp_path / "a.mp4", "libx264")
        source, wrong = VideoFrames(tmp_path / "a.mp4"), []

        def read(seed):
            for i in np.random.default_rng(seed).integers(0, COUNT, 15):
                if not np.array_equal(source.frame(int(i)), expected[i]):
                    wrong.append(i)

        threads = [threading.Thread(target=read, args=(seed,)) for seed in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []

    def test_damaged_part_is_reported_with_its_frame(self, tmp_path):
        expected = _encode(tmp_path / "a.mkv", "ffv1", pixel_format="yuv420p")
        data = bytearray((tmp_path / "a.mkv").read_bytes())
        (tmp_path / "a.mkv").write_bytes(data[: len(data) * 2 // 3])
        source = VideoFrames(tmp_path / "a.mkv")
        assert 10 < len(source) < COUNT
        np.testing.assert_array_equal(source.frame(5), expected[5])

    def test_audio_only_is_refused(self, tmp_path):
        container = av.open(str(tmp_path / "a.wav"), "w")
        stream = container.add_stream("pcm_s16le", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
        container.close()
        with pytest.raises(InputError, match="no video stream"):
            open_frames(tmp_path / "a.wav")


class _Slow:
    """A source that records what is read, and fails on one frame."""

    size = (2, 2)

    def __init__(self, count=20, bad=None, error=None, delay=0.0):
        self.read, self.count, self.bad, self.delay = [], count, bad, delay
        self.error = error or OSError("disk gone")

    def __len__(self):
        return self.count

    def frame(self, i):
        time.sleep(self.delay)
        if i == self.bad:
            raise self.error
        self.read.append(i)
        return np.full((2, 2), i, np.uint8)


def _wait_for(condition):
    deadline = time.monotonic() + 5
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.005)
    assert condition()


class TestPrefetchedFrames:
    @pytest.mark.parametrize(("order", "then"), [((5, 6), {7, 8}), ((6, 5), {4, 3})])
    def test_reads_ahead_in_the_direction_of_travel(self, order, then):
        source = _Slow()
        with PrefetchedFrames(source, ahead=2) as frames:
            for i in order:
                assert frames.frame(i)[0, 0] == i
            _wait_for(lambda: then <= set(source.read))
            count = len(source.read)
            frames.frame(min(then) if order[0] > order[1] else max(then))
            assert source.read[:count].count(max(then)) == 1

    def test_each_frame_is_read_once_in_a_sweep(self):
        source = _Slow()
        with PrefetchedFrames(source, ahead=3) as frames:
            assert [int(frames.frame(i)[0, 0]) for i in range(20)] == list(range(20))
        assert source.read == list(range(20))

    def test_memory_is_bounded(self):
        with PrefetchedFrames(_Slow(200), ahead=3, keep=2) as frames:
            for i in np.random.default_rng(0).integers(0, 200, 100):
                frames.frame(int(i))
                assert len(frames._waiting) <= 3
                assert len(frames._kept) <= 2

    def test_a_jump_cancels_what_waits(self):
        source = _Slow(200, delay=0.02)
        with PrefetchedFrames(source, ahead=10) as frames:
            frames.frame(0)
            frames.frame(150)
        assert len([i for i in source.read if i < 100]) <= 3

    def test_error_names_the_frame_and_passes(self):
        source = _Slow(bad=3)
        with PrefetchedFrames(source, ahead=2) as frames:
            assert frames.frame(2)[0, 0] == 2  # reading ahead of it fails silently until the frame is asked for
            with pytest.raises(RuntimeError, match="frame 3 could not be read: disk gone"):
                frames.frame(3)
            assert frames.frame(4)[0, 0] == 4
            source.bad = None
            assert frames.frame(3)[0, 0] == 3

    def test_input_errors_stay_what_they_are(self):
        with (
            PrefetchedFrames(_Slow(bad=3, error=InputError("frame 3 is torn"))) as frames,
            pytest.raises(InputError, match="torn"),
        ):
            frames.frame(3)

    def test_transform_runs_in_the_thread(self):
        names = []

        def transform(frame):
            names.append(threading.current_thread().name)
            return frame.astype(np.float32) + 0.5

        with PrefetchedFrames(_Slow(), transform=transform) as frames:
            assert frames.frame(4)[0, 0] == 4.5
            assert frames.size == (2, 2)
            assert len(frames) == 20
        assert all(name.startswith("sam2-frames") for name in names)

    def test_no_thread_is_left(self):
        def running():
            return [t for t in threading.enumerate() if t.name.startswith("sam2-frames")]

        with PrefetchedFrames(_Slow()) as frames:
            frames.frame(0)
            assert len(running()) == 1
        assert running() == []
        with pytest.raises(RuntimeError):
            frames.frame(1)
        forgotten = PrefetchedFrames(_Slow())
        forgotten.frame(0)
        del forgotten
        gc.collect()
        _wait_for(lambda: running() == [])


class TestResizeFrame:
    def test_uint8_is_what_sam2_reads(self):
        frame = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
        small = np.asarray(Image.fromarray(frame).resize((32, 32))) / 255.0
        expected = (small - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
        result = resize_frame(frame, 32)
        assert result.shape == (3, 32, 32)
        assert result.dtype == np.float32
        np.testing.assert_allclose(result, expected.transpose(2, 0, 1), atol=1e-6)

    @pytest.mark.parametrize("dtype", [np.uint8, np.float32])
    def test_one_channel_equals_three_alike(self, dtype):
        frame = np.random.default_rng(0).integers(0, 256, (50, 70), dtype=np.uint8)
        if dtype == np.float32:
            frame = frame / np.float32(255)
        np.testing.assert_array_equal(resize_frame(frame, 24), resize_frame(np.dstack([frame] * 3), 24))

    def test_float_agrees_with_uint8_to_rounding(self):
        frame = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
        difference = resize_frame(frame, 32) - resize_frame(frame / np.float32(255), 32)
        assert abs(difference).max() < 1.01 / 255 / 0.224

    def test_float_stays_within_black_and_white(self):
        frame = np.zeros((40, 40), np.float32)
        frame[10:30, 10:30] = 1
        result = resize_frame(frame, 64)[0] * 0.229 + 0.485
        assert result.min() == pytest.approx(0, abs=1e-6)
        assert result.max() == pytest.approx(1, abs=1e-6)
