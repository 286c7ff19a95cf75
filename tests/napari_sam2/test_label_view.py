"""The labels as an array that napari reads and paints."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_sam2.image_source import Placement
from napari_sam2.label_view import LabelView
from sam2_core.volume.session_state import Grid

LENGTHS = {"t": 3, "c": 2, "z": 4, "y": 5, "x": 6}


class Planes:
    """The part of a session that keeps labels, in memory."""

    def __init__(self, grid, plane_axes, axes):
        outside = [a for a, _ in grid.axes]
        self.whole = np.random.default_rng(3).integers(0, 9, [LENGTHS[a] for a in outside] + list(grid.size))
        self.outside = outside
        self.reads = 0

    def read_plane(self, plane):
        self.reads += 1
        return self.whole[tuple(dict(plane)[a] for a in self.outside)].astype(np.uint32)


def make(axes, along):
    spatial = [a for a in "tzyx" if a in axes]
    across = [a for a in "zyx" if a in axes and a != along][-2:] if along in "yx" else ["y", "x"]
    outside = [a for a in spatial if a not in across]
    grid = Grid(tuple((a, LENGTHS[a]) for a in outside), (LENGTHS[across[0]], LENGTHS[across[1]]), along)
    session = Planes(grid, across, axes)
    view = LabelView(session, Placement(axes, grid, tuple(across)), tuple(LENGTHS[a] for a in axes))
    order = [*outside, *across]
    shown = session.whole.transpose([order.index(a) for a in axes if a != "c"]).astype(np.uint32)
    if "c" in axes:
        shown = np.repeat(np.expand_dims(shown, axes.index("c")), LENGTHS["c"], axes.index("c"))
    return session, view, shown


CASES = [
    ("yx", ""),
    ("zyx", "z"),
    ("zyx", "y"),
    ("xyz", "z"),
    ("tczyx", "z"),
    ("zyxc", "z"),
    ("tyx", "t"),
    ("czyx", "x"),
]


@pytest.mark.parametrize(("axes", "along"), CASES)
def test_it_reads_like_the_array_it_stands_for(axes, along):
    _, view, shown = make(axes, along or None) if along else make(axes, "t")
    assert view.shape == shown.shape
    np.testing.assert_array_equal(np.asarray(view), shown)
    for axis in range(view.ndim):
        key = tuple(slice(None) if k != axis else 1 for k in range(view.ndim))
        np.testing.assert_array_equal(view[key], shown[key])


def index(length):
    number = st.integers(-length, length - 1)
    bound = st.one_of(st.none(), st.integers(-length - 1, length + 1))
    return st.one_of(number, st.builds(slice, bound, bound, st.sampled_from([None, 1, 2, -1, -2])))


@given(st.data())
def test_any_basic_key_reads_and_writes_as_in_numpy(data):
    axes, along = data.draw(st.sampled_from([c for c in CASES if c[1]]))
    _, view, shown = make(axes, along)
    key = tuple(data.draw(index(n)) for n in view.shape)
    if "c" in axes:  # all channels show the same labels
        key = tuple(slice(None) if a == "c" else k for a, k in zip(axes, key))
    np.testing.assert_array_equal(view[key], shown[key])
    view[key] = 77
    shown[key] = 77
    np.testing.assert_array_equal(np.asarray(view), shown)


def test_single_voxels_as_napari_paints_them():
    session, view, shown = make("zyx", "z")
    places = (np.array([0, 0, 2]), np.array([1, 2, 3]), np.array([1, 1, 5]))
    np.testing.assert_array_equal(view[places], shown[places])
    view[places] = 50
    np.testing.assert_array_equal(view[places], [50, 50, 50])
    painted = view.painted()
    assert list(painted) == [(("z", 0),), (("z", 2),)]
    assert (painted[("z", 0),] == 50).sum() == 2
    assert (session.whole == 50).sum() == 0


def test_what_was_painted_goes_when_the_session_has_it():
    session, view, _ = make("zyx", "z")
    view[1, 2, 3] = 60
    plane, labels = next(iter(view.painted().items()))
    session.whole[1] = labels
    view.take(plane, labels)
    view.drop(plane, labels)
    assert view.painted() == {}
    assert view[1, 2, 3] == 60


def test_what_is_painted_in_between_is_not_lost():
    _, view, _ = make("zyx", "z")
    view[1, 2, 3] = 60
    plane, labels = next(iter(view.painted().items()))
    view[1, 2, 4] = 60
    view.drop(plane, labels)
    assert view[1, 2, 4] == 60


def test_planes_are_read_once_and_not_where_the_session_tells_of_them():
    session, view, _ = make("zyx", "z")
    view[1]
    view[1]
    assert session.reads == 1
    written = np.full((5, 6), 5, np.uint32)
    for z in (1, 2):
        view.take((("z", z),), written)
    assert (view[1:3] == 5).all()
    assert session.reads == 1


def test_ids_that_are_too_large_for_a_narrow_type_are_kept():
    _session, view, _ = make("zyx", "z")
    view[0, 0, 0] = 9
    assert view[1].dtype == view.dtype == np.uint16
    view.take((("z", 1),), np.full((5, 6), 70_000, np.uint32))
    assert view.fit(70_000)
    assert not view.fit(70_001)
    assert (view[1] == 70_000).all()
    view[1, 2, 3] = 80_000
    assert view[1, 2, 3] == 80_000
    assert view[0, 0, 0] == 9
    assert view.painted().keys() == {(("z", 0),), (("z", 1),)}


def test_memory_is_bounded(monkeypatch):
    monkeypatch.setattr("napari_sam2.label_view.KEPT_BYTES", 2 * 4 * 5 * 6)
    _session, view, _ = make("zyx", "z")
    np.asarray(view)
    assert len(view._kept) == 2
    assert view.size == 4 * 5 * 6
