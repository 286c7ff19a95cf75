"""The grammar of axis strings."""

from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sam2_core.errors import InputError
from sam2_core.volume.axes import AXES, AxisOrder, guess_axes, looks_rgb, parse_axes, resolve_axes

VALID = sorted({"".join(p) for n in range(2, 6) for p in permutations(AXES, n) if {"y", "x"} <= set(p)})


@given(st.sampled_from(VALID), st.booleans())
def test_every_valid_string_keeps_its_order(axes, upper):
    assert parse_axes(axes.upper() if upper else axes, len(axes)) == axes


@given(st.text(alphabet="tczyxsq1 ", max_size=7))
def test_a_string_is_valid_or_refused_in_one_sentence(text):
    if text.strip() in VALID:
        assert parse_axes(text) == text.strip()
    else:
        with pytest.raises(InputError, match=r"^[^\n]+$"):
            parse_axes(text)


@given(st.sampled_from(VALID))
def test_canonical_order_is_a_permutation_that_follows_tczyx(axes):
    order = AxisOrder(axes)
    assert sorted(order.canonical) == sorted(axes)
    assert [AXES.index(a) for a in order.canonical] == sorted(AXES.index(a) for a in axes)
    assert "".join(order.to_canonical(axes)) == order.canonical


@pytest.mark.parametrize(
    ("text", "ndim", "says"),
    [("zyq", 3, "'q'"), ("yyx", 3, "repeated"), ("tzy", 3, "both y and x"), ("zyx", 4, "3 axes but the data has 4")],
)
def test_refusals_say_what_is_wrong(text, ndim, says):
    with pytest.raises(InputError, match=says):
        parse_axes(text, ndim)


def test_the_colour_axis_need_not_be_named():
    assert resolve_axes("zyx", "tyxc", rgb=True) == "zyxc"
    assert resolve_axes("zyx", "ctyx", rgb=True) == "czyx"
    with pytest.raises(InputError):
        resolve_axes("zyx", "tcyx", rgb=False)


def test_guesses():
    assert [guess_axes((9,) * n) for n in (2, 3, 4, 5)] == ["yx", "zyx", "tzyx", "tczyx"]
    assert guess_axes((9, 9, 3), rgb=True) == "yxc"
    with pytest.raises(InputError, match="2 to 5 axes"):
        guess_axes((4,))


def test_only_uint8_with_three_or_four_last_looks_like_colour():
    assert looks_rgb((20, 30, 3), "uint8")
    assert not looks_rgb((20, 30, 3), "uint16")
    assert not looks_rgb((20, 30, 5), "uint8")
    assert not looks_rgb((3, 3, 3), "uint8")
