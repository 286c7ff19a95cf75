"""The code of brush strokes: there and back, and damaged ones."""

import time

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


runs = st.tuples(st.booleans(), st.integers(0, 3), st.integers(1, 8), st.integers(0, 2**32 - 1))


@given(st.integers(1, 32), st.lists(st.integers(3, 16), min_size=4, max_size=4), st.data())
def test_codes_of_any_word_size(word, lengths, data):
    """Runs as another program might write them: repeated or listed, any lengths of counts, any bits a value."""
    drawn = data.draw(st.lists(runs, min_size=1, max_size=12))
    values, bits = [], ""
    for repeated, choice, count, value in drawn:
        listed = [(value * (1 if repeated else i + 1)) % (1 << word) for i in range(4 * count)]
        for start in range(0, len(listed), 8):
            part = listed[start : start + 8]
            bits += f"{repeated:b}{choice:02b}{len(part) - 1:0{lengths[choice]}b}"
            bits += "".join(f"{v:0{word}b}" for v in (part[:1] if repeated else part))
        values += listed
    bits = f"{len(values):032b}{word - 1:05b}" + "".join(f"{n - 1:04b}" for n in lengths) + bits
    code = np.packbits([int(b) for b in bits]).tolist()
    alpha = np.array(values[3::4])
    expected = alpha >= max((alpha.max() + 1) // 2, 1)
    np.testing.assert_array_equal(decode_brush(code, (1, len(alpha)))[0], expected)


def test_codes_of_ones_and_zeros():
    mask = np.array([[True, False, False], [True, True, False]])
    bits = f"{24:032b}{7:05b}" + "".join(f"{n - 1:04b}" for n in (3, 4, 8, 16))
    bits += "".join(f"100{3:03b}{int(v):08b}" for v in mask.ravel())
    np.testing.assert_array_equal(decode_brush(np.packbits([int(b) for b in bits]).tolist(), (2, 3)), mask)


def test_a_large_mask_is_encoded_fast():
    rng = np.random.default_rng(0)
    mask = np.kron(rng.random((256, 256)) > 0.5, np.ones((8, 8), bool))
    times = []
    for _ in range(5):
        begin = time.perf_counter()
        code = encode_brush(mask)
        times.append(time.perf_counter() - begin)
    np.testing.assert_array_equal(decode_brush(code, mask.shape), mask)
    assert min(times) < 0.3  # 15 ms on an idle core; a loop over the runs takes a second


@given(st.binary(max_size=40))
def test_damaged_codes_are_said_to_be(data):
    try:
        mask = decode_brush(list(data), (3, 4))
    except InputError:
        return
    assert mask.shape == (3, 4)


@pytest.mark.parametrize("code", ["abc", 7, [1, 2.5], [256], None, {"0": 1}])
def test_no_code_at_all(code):
    with pytest.raises(InputError, match="0 to 255"):
        decode_brush(code, (2, 3))


def test_another_size():
    with pytest.raises(InputError, match="not 4 x 2 x 3"):
        decode_brush(encode_brush(np.ones((3, 3), bool)), (2, 3))
