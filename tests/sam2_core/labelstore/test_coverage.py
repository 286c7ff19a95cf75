"""Coverage survives JSON."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from sam2_core.labelstore import Coverage


@given(arrays(np.uint8, array_shapes(min_dims=0, max_dims=2, max_side=6), elements=st.integers(0, 2)))
def test_json_and_back(states):
    axes = ("", "z", "tz")[states.ndim]
    again = Coverage.from_json(Coverage(axes, states).to_json())
    assert again.axes == axes
    np.testing.assert_array_equal(again.states, states)


def test_runs_that_do_not_fill_the_planes():
    with pytest.raises(ValueError, match="4 planes"):
        Coverage.from_json({"axes": "z", "shape": [5], "runs": [["none", 4]]})
