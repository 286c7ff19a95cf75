"""Axis strings: which letter each axis of an array has, and the way to the order t, c, z, y, x."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sam2_core.errors import InputError

AXES = "tczyx"
PROPAGATION_AXES = "tzyx"


@dataclass(frozen=True)
class AxisOrder:
    """The axes of an array as they are stored, one letter each, for example ``"ctyx"``."""

    stored: str

    @property
    def canonical(self) -> str:
        """The same letters in the order t, c, z, y, x."""
        return "".join(a for a in AXES if a in self.stored)

    @property
    def permutation(self) -> tuple[int, ...]:
        """Stored position of each canonical axis, as `numpy.transpose` takes it."""
        return tuple(self.stored.index(a) for a in self.canonical)

    def to_canonical(self, values: Sequence) -> tuple:
        """Reorder one value per stored axis."""
        return tuple(values[i] for i in self.permutation)


def parse_axes(text: str, ndim: int | None = None) -> str:
    """Check an axis string and give it in lower case, in the order in which it was written.

    Parameters
    ----------
    text : str
        One letter per axis of the array as it is stored, out of t, c, z, y and x; y and x are required.
    ndim : int, optional
        Number of axes that the array has.

    Raises
    ------
    InputError
        If a letter is unknown or repeated, y or x is missing, or the number of letters is not `ndim`.
    """
    axes = text.strip().lower()
    if unknown := sorted(set(axes) - set(AXES)):
        raise InputError(f"axes {text!r}: {', '.join(map(repr, unknown))} is no axis: use letters out of {AXES}")
    if repeated := sorted({a for a in axes if axes.count(a) > 1}):
        raise InputError(f"axes {text!r}: {', '.join(repeated)} is repeated: name each axis once")
    if "y" not in axes or "x" not in axes:
        raise InputError(f"axes {text!r}: an image needs both y and x")
    if ndim is not None and len(axes) != ndim:
        raise InputError(f"axes {text!r} names {len(axes)} axes but the data has {ndim}: give one letter per axis")
    return axes


def resolve_axes(user: str | None, stored: str, *, rgb: bool = False) -> str:
    """The stored order to use: the user's letters where given, else the file's.

    Of an RGB image the user need not name the colour axis: ``"zyx"`` for a folder of colour images stored as
    t, y, x, c means ``"zyxc"``.
    """
    if user is None:
        return parse_axes(stored)
    axes = parse_axes(user)
    if rgb and "c" not in axes and len(axes) == len(stored) - 1:
        at = stored.index("c")
        axes = axes[:at] + "c" + axes[at:]
    return parse_axes(axes, len(stored))


def guess_axes(shape: Sequence[int], *, rgb: bool = False) -> str:
    """The customary axes of an array that says nothing: yx, zyx, tzyx, tczyx; colour last if `rgb`.

    Raises
    ------
    InputError
        If there are fewer than 2 or more than 5 axes.
    """
    ndim = len(shape) - rgb
    guesses = {2: "yx", 3: "zyx", 4: "tzyx", 5: "tczyx"}
    if rgb:
        guesses.pop(5)
    if ndim not in guesses:
        raise InputError(f"an array of shape {tuple(shape)} is no image: it must have 2 to 5 axes out of {AXES}")
    return guesses[ndim] + "c" * rgb


def looks_rgb(shape: Sequence[int], dtype: object) -> bool:
    """Whether the last axis of an array without axis names is taken for colour: 3 or 4 long, uint8."""
    return len(shape) >= 3 and shape[-1] in (3, 4) and str(dtype) == "uint8" and min(shape[-3:-1]) > 4
