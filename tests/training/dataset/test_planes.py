"""`Planes` is indexed as an array is, and reads no more than it must."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.dataset.planes import Planes

ARRAY = np.random.default_rng(0).integers(0, 255, (7, 4, 5), np.uint8)


def lazy():
    read = []

    def plane(i):
        read.append(i)
        return ARRAY[i]

    return Planes(plane, 7, (4, 5), np.uint8), read


@given(
    st.one_of(
        st.integers(-7, 6),
        st.slices(7),
        st.lists(st.integers(-7, 6), max_size=9).map(lambda found: np.array(found, int)),
    ),
    st.sampled_from([(), (slice(1, 3),), (slice(None), slice(2, None))]),
)
def test_indices_are_those_of_an_array(first, rest):
    planes, read = lazy()
    np.testing.assert_array_equal(planes[(first, *rest)], ARRAY[(first, *rest)])
    assert read == sorted(set(read))


def test_it_is_an_array_where_one_is_needed():
    planes, read = lazy()
    assert (planes.shape, planes.ndim, planes.dtype, len(planes)) == ((7, 4, 5), 3, np.uint8, 7)
    moved = np.moveaxis(planes, 0, 0)
    assert not read
    np.testing.assert_array_equal(moved[[2, 1]], ARRAY[[2, 1]])
    np.testing.assert_array_equal(np.moveaxis(planes, 1, 0), np.moveaxis(ARRAY, 1, 0))
    np.testing.assert_array_equal(np.asarray(planes, np.int32), ARRAY)
    assert planes.max() == ARRAY.max()
    assert len(list(planes)) == 7
    with pytest.raises(IndexError):
        planes[7]
