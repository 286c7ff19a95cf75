"""The intensity window, estimated and applied."""

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

from sam2_core.errors import InputError
from sam2_core.volume import Window, default_window, open_volume
from sam2_core.volume.window import sample, windows_for


def test_percentiles_of_the_whole_volume():
    rng = np.random.default_rng(0)
    array = rng.normal(100, 10, (40, 64, 64)).astype(np.float32) + 50 * np.arange(40)[:, None, None]
    window = default_window(open_volume(array))
    low, high = np.percentile(array, (0.5, 99.8))
    assert window.low == pytest.approx(low, abs=30)
    assert window.high == pytest.approx(high, abs=30)


def test_not_finite_values_do_not_count():
    array = np.linspace(0, 1, 5 * 20 * 20).reshape(5, 20, 20)
    spoiled = array.copy()
    spoiled[:, ::3], spoiled[:, 1, 1], spoiled[:, 2, 2] = np.nan, np.inf, -np.inf
    window = default_window(open_volume(spoiled))
    assert 0 <= window.low < 0.1
    assert 0.9 < window.high <= 1


@pytest.mark.parametrize(
    ("array", "says"), [(np.full((4, 9, 9), 7), "constant"), (np.full((4, 9, 9), np.nan), "no finite value")]
)
def test_images_without_contrast_are_refused(array, says):
    with pytest.raises(InputError, match=says):
        default_window(open_volume(array))


def test_a_nearly_empty_image_has_its_range():
    array = np.zeros((4, 100, 100), np.uint16)
    array[2, 5, 5] = 900
    assert default_window(open_volume(array)) == Window(0, 900)


def test_colour_and_masks_keep_their_range():
    rng = np.random.default_rng(0)
    assert default_window(open_volume(rng.integers(50, 60, (3, 20, 20, 3), np.uint8))) == Window(0, 255)
    assert default_window(open_volume(rng.random((3, 20, 20)) > 0.5)) == Window(0, 1)
    assert default_window(open_volume(rng.integers(50, 60, (3, 20, 20), np.uint8))).high < 61


def test_each_channel_of_a_composite_has_its_window_and_the_user_sets_all():
    array = np.stack([np.arange(400.0).reshape(20, 20) * k for k in (1, 10, 100)])
    volume = open_volume(array, axes="cyx")
    highs = [w.high for w in windows_for(volume, (0, 2))]
    assert highs[1] == pytest.approx(100 * highs[0])
    assert windows_for(volume, (0, 2), (1, 2)) == (Window(1, 2), Window(1, 2))
    assert windows_for(volume, (0, 2), [Window(1, 2), Window(3, 4)]) == (Window(1, 2), Window(3, 4))
    for wrong in ([Window(1, 2)], (1, 2, 3)):
        with pytest.raises(InputError, match="2 channels take one window"):
            windows_for(volume, (0, 2), wrong)


def test_sampling_reads_a_bounded_part(tmp_path):
    array = zarr.create_array(tmp_path / "a.zarr", shape=(500, 1024, 1024), chunks=(1, 256, 256), dtype="u2")
    array[::10, :256, :256] = 5
    reads = []

    class Counting:
        shape, dtype, chunks = array.shape, array.dtype, array.chunks

        def __getitem__(self, key):
            values = array[key]
            reads.append(values.size)
            return values

    values = sample(open_volume(Counting(), axes="zyx"))
    assert len(values) == sum(reads)
    assert sum(reads) < 4_000_000
    assert len(reads) > 20


def test_a_coarse_level_is_sampled(tmp_path):
    group = zarr.create_group(tmp_path / "a.zarr")
    group.create_array("0", shape=(300, 1024, 1024), chunks=(1, 512, 512), dtype="u1", fill_value=3)
    group.create_array("1", data=np.arange(256, dtype=np.uint8).reshape(1, 16, 16))
    group.attrs["ome"] = {
        "version": "0.5",
        "multiscales": [
            {"axes": [{"name": a, "type": "space"} for a in "zyx"], "datasets": [{"path": "0"}, {"path": "1"}]}
        ],
    }
    assert default_window(open_volume(tmp_path / "a.zarr")).high > 250


@given(
    st.lists(st.floats(width=32), min_size=1, max_size=20),
    st.floats(-1e6, 1e6),
    st.floats(1e-3, 1e6),
)
def test_applied_windows_lie_in_0_to_1(values, low, width):
    out = Window(low, low + width).apply(np.array(values, np.float32))
    assert out.dtype == np.float32
    assert ((out >= 0) & (out <= 1)).all()
    for value, result in zip(values, out):
        if np.isnan(value) or value <= low:
            assert result == 0


@pytest.mark.parametrize("limits", [(2, 2), (3, 1), (0, float("nan")), (float("-inf"), 0)])
def test_empty_windows_are_refused(limits):
    with pytest.raises(InputError, match="give two numbers LO,HI"):
        Window(*limits)
