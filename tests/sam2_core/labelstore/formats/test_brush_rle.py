"""The code of brush strokes: there and back, and damaged ones."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from sam2_core.errors import InputError
from sam2_core.labelstore.formats.brush_rle import decode_brush, encode_brush


@given(arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=40)))
def test_there_and_back(mask):
    np.testing.assert_array_equal(decode_brush(encode_brush(mask), mask.shape), mask)


def test_long_runs():
    mask = np.zeros((300, 400), bool)
    mask[10:290, 5:] = True
    code = encode_brush(mask)
    np.testing.assert_array_equal(decode_brush(code, mask.shape), mask)


def test_values_that_are_listed_one_by_one():
    # two pixels, 8 bits a value, counts of 4 bits: one run of eight values, not repeated; the second is opaque
    bits = f"{8:032b}" + f"{7:05b}" + "0011" * 4 + "0" + "00" + f"{7:04b}"
    bits += "".join(f"{v:08b}" for v in (9, 9, 9, 0, 1, 2, 3, 255))
    code = np.packbits([int(b) for b in bits]).tolist()
    assert decode_brush(code, (1, 2)).tolist() == [[False, True]]


@given(st.binary(max_size=40))
def test_damaged_codes_are_said_to_be(data):
    try:
        mask = decode_brush(list(data), (3, 4))
    except InputError:
        return
    assert mask.shape == (3, 4)


def test_another_size():
    with pytest.raises(InputError, match="not 4 x 2 x 3"):
        decode_brush(encode_brush(np.ones((3, 3), bool)), (2, 3))
