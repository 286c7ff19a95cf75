"""Measurements beside those of skimage, and the table as pandas users read it."""

import csv

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from skimage.measure import regionprops

from sam2_core.errors import InputError
from sam2_core.volume import LabelVolume, open_volume
from sam2_core.volume.statistics import export_csv, object_statistics

UNITS = dict.fromkeys("zyx", "micrometer") | {"t": "second"}


def labelled(path, ids, axes, units=UNITS, **grid):
    """A label volume that holds `ids`."""
    like = open_volume(np.zeros(ids.shape, np.uint8), axes=axes, **grid)
    like.units.update({a: u for a, u in units.items() if a in axes})
    labels = LabelVolume.create(path, like, overwrite=True)
    axis = like.default_axis()
    inner = axes.index(axis) if axis else None
    for at in np.ndindex(*ids.shape[:-2]):
        where = dict(zip(axes, at))
        index = where.pop(axis) if inner is not None else 0
        labels.write_plane(axis, index, ids[at], where)
    return LabelVolume.open(path)


def table(path):
    with open(path, newline="") as stream:
        return list(csv.DictReader(stream))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(st.data())
def test_measures_of_a_stack_are_those_of_skimage(tmp_path, data):
    shape = data.draw(npst.array_shapes(min_dims=3, max_dims=3, min_side=2, max_side=6))
    ids = data.draw(npst.arrays(np.uint32, shape, elements=st.sampled_from([0, 0, 1, 2, 70000])))
    image = data.draw(npst.arrays(np.int16, shape, elements=st.integers(-3000, 3000)))
    scale, origin = (2.0, 0.5, 0.25), (6.0, -1.0, 0.5)
    labels = labelled(
        tmp_path / "l.zarr", ids, "zyx", scale=dict(zip("zyx", scale)), translation=dict(zip("zyx", origin))
    )
    found = list(object_statistics(labels, open_volume(image)))
    expected = regionprops(ids.astype(np.int64), image, spacing=scale)
    assert [f.id for f in found] == [e.label for e in expected]
    for f, e in zip(found, expected):
        assert f.pixels == e.num_pixels
        assert f.size == pytest.approx(e.area)
        assert f.centroid == pytest.approx(np.add(e.centroid, origin))
        assert (*f.first, *(i + 1 for i in f.last)) == e.bbox
        assert f.low == pytest.approx([o + s * (i - 0.5) for o, s, i in zip(origin, scale, e.bbox[:3])])
        assert f.high == pytest.approx([o + s * (i - 0.5) for o, s, i in zip(origin, scale, e.bbox[3:])])
        assert f.mean[0] == pytest.approx(e.intensity_mean)
        assert (f.least, f.greatest) == ((e.intensity_min,), (e.intensity_max,))
        assert f.boundary > 0
        assert f.t is None


def test_a_time_lapse_has_a_row_for_each_time_point(tmp_path):
    ids = np.zeros((4, 3, 10, 12), np.uint32)
    ids[1:4, 1:, 2:5, 3:9] = 7
    ids[2, 0, 8:, 8:] = 2
    image = np.zeros((4, 2, 3, 10, 12), np.float32)
    image[:, 1] = np.arange(4)[:, None, None, None]
    image[1, 1, 1, 2, 3] = np.nan
    labels = labelled(tmp_path / "l.zarr", ids, "tzyx", scale={"t": 30, "z": 2}, translation={"t": 5})
    labels_with_names = LabelVolume.open(labels.path, mode="r+")
    labels_with_names.set_names({7: "a, b"})
    export_csv(labels_with_names, tmp_path / "a.csv", image=open_volume(image, axes="tczyx"), classes={2: "cell"})
    rows = table(tmp_path / "a.csv")
    assert [(r["t"], r["id"], r["first_t"], r["last_t"]) for r in rows] == [
        ("1", "7", "1", "3"), ("2", "2", "2", "2"), ("2", "7", "1", "3"), ("3", "7", "1", "3"),
    ]  # fmt: skip
    assert [r["time_s"] for r in rows] == ["35", "65", "65", "95"]
    assert [(r["name"], r["class"]) for r in rows[:2]] == [("a, b", ""), ("", "cell")]
    assert [r["mean_channel1"] for r in rows] == ["1", "2", "2", "3"]
    assert rows[0]["voxels"] == "36"
    assert rows[0]["volume_um3"] == "72"
    assert (rows[0]["first_z"], rows[0]["last_z"], rows[0]["low_z_um"], rows[0]["high_z_um"]) == ("1", "2", "1", "5")


def test_flat_images_have_areas(tmp_path):
    ids = np.zeros((20, 30), np.uint32)
    ids[4:8, 5:15] = 3
    image = np.full((20, 30), np.nan, np.float32)
    export_csv(labelled(tmp_path / "l.zarr", ids, "yx"), tmp_path / "a.csv", image=open_volume(image))
    (row,) = table(tmp_path / "a.csv")
    assert list(row) == [
        "id", "name", "class", "pixels", "area_um2", "perimeter_um", "first_y", "first_x", "last_y", "last_x",
        "low_y_um", "low_x_um", "high_y_um", "high_x_um", "centroid_y_um", "centroid_x_um",
        "mean_intensity", "min_intensity", "max_intensity",
    ]  # fmt: skip
    assert (row["area_um2"], row["centroid_x_um"]) == ("40", "9.5")
    assert row["mean_intensity"] == row["min_intensity"] == ""


def test_a_flat_time_lapse_and_a_stack_of_one_plane(tmp_path):
    ids = np.zeros((3, 20, 30), np.uint32)
    ids[1:, 4:8, 5:15] = 3
    lapse = list(object_statistics(labelled(tmp_path / "t.zarr", ids, "tyx"), open_volume(ids, axes="tyx")))
    assert [(s.t, s.mean, len(s.first)) for s in lapse] == [(1, (3.0,), 2), (2, (3.0,), 2)]
    (flat,) = object_statistics(labelled(tmp_path / "z.zarr", ids[1:2], "zyx"))
    assert (flat.boundary, flat.centroid) == (lapse[0].boundary, lapse[0].centroid)


@pytest.mark.parametrize(
    ("units", "suffix", "volume"),
    [
        ({"z": "nanometer", "y": "micrometer", "x": "micrometer"}, "_um3", 8 * 0.2),
        (dict.fromkeys("zyx", "millimeter"), "_mm3", 8 * 200.0),
        ({"y": "micrometer", "x": "micrometer"}, "", 8 * 200.0),
    ],
)
def test_units_are_brought_together(tmp_path, units, suffix, volume):
    ids = np.ones((2, 2, 2), np.uint32)
    labels = labelled(tmp_path / "l.zarr", ids, "zyx", units=units, scale={"z": 200})
    export_csv(labels, tmp_path / "a.csv")
    assert float(table(tmp_path / "a.csv")[0][f"volume{suffix}"]) == pytest.approx(volume)


def test_empty_labels_give_an_empty_table(tmp_path):
    export_csv(labelled(tmp_path / "l.zarr", np.zeros((3, 4, 5), np.uint32), "zyx"), tmp_path / "a.csv")
    assert table(tmp_path / "a.csv") == []
    assert (tmp_path / "a.csv").read_text().startswith("id,name,class,voxels,")


def test_what_does_not_fit(tmp_path):
    labels = labelled(tmp_path / "l.zarr", np.ones((3, 4, 5), np.uint32), "zyx")
    with pytest.raises(InputError, match="the image that was labelled"):
        export_csv(labels, tmp_path / "a.csv", image=open_volume(np.zeros((3, 4, 6))))
    with pytest.raises(InputError, match=r"\.csv"):
        export_csv(labels, tmp_path / "a.txt")
    assert [p.name for p in tmp_path.iterdir()] == ["l.zarr"]
