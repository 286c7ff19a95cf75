"""Label Studio's code of brush strokes: the RGBA bytes of a mask, run-length packed bit by bit.

The stream, most significant bit first: 32 bits, the number of values; 5 bits, the bits of a value less one; four
times 4 bits, lengths of counts less one; then runs until all values are there. A run begins with a bit that says
whether one value is repeated (1) or as many values follow (0), 2 bits that choose the length of the count, and the
count less one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sam2_core.errors import InputError

_COUNT_BITS = (3, 4, 8, 16)
_WORD = 8


def decode_brush(code: Sequence[int], size: tuple[int, int]) -> np.ndarray:
    """The mask (H, W), bool, of a code: where its alpha is above half.

    Raises
    ------
    InputError
        The code is cut short or of an image of another size.
    """
    bits = _Bits(bytes(code))
    total, word = bits.take(32), bits.take(5) + 1
    lengths = [bits.take(4) + 1 for _ in range(4)]
    if total != 4 * size[0] * size[1]:
        raise InputError(f"a brush region has {total} values, not 4 x {size[0]} x {size[1]}")
    values = np.zeros(total, np.uint32)
    at = 0
    while at < total:
        repeated = bits.take(1)
        count = bits.take(lengths[bits.take(2)]) + 1
        if at + count > total:
            raise InputError("a brush region is damaged: it holds more values than it says")
        if repeated:
            values[at : at + count] = bits.take(word)
        else:
            values[at : at + count] = bits.take_many(count, word)
        at += count
    return values[3::4].reshape(size) >= 1 << (word - 1)


def encode_brush(mask: np.ndarray) -> list[int]:
    """The code of a mask (H, W), bool: opaque white where it is true, transparent elsewhere."""
    flat = np.repeat(np.asarray(mask, bool).ravel(), 4)
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    starts = np.concatenate([[0], changes]) if flat.size else np.zeros(0, int)
    ends = np.append(changes, flat.size)
    parts = [f"{flat.size:032b}{_WORD - 1:05b}", *(f"{n - 1:04b}" for n in _COUNT_BITS)]
    largest = 1 << _COUNT_BITS[-1]
    for start, end in zip(starts, ends):
        value = "1" * _WORD if flat[start] else "0" * _WORD
        for at in range(start, end, largest):
            count = min(end - at, largest)
            choice = next(i for i, n in enumerate(_COUNT_BITS) if count <= 1 << n)
            parts.append(f"1{choice:02b}{count - 1:0{_COUNT_BITS[choice]}b}{value}")
    text = "".join(parts)
    bits = np.frombuffer(text.encode(), np.uint8) - ord("0")
    return np.packbits(bits).tolist()


class _Bits:
    """A stream of bits, read from the front."""

    def __init__(self, data: bytes) -> None:
        self._bits = np.unpackbits(np.frombuffer(data, np.uint8))
        self._at = 0

    def take(self, count: int) -> int:
        return int(self.take_many(1, count)[0])

    def take_many(self, count: int, width: int) -> np.ndarray:
        end = self._at + count * width
        if end > self._bits.size:
            raise InputError("a brush region is damaged: it ends too early")
        rows = self._bits[self._at : end].reshape(count, width)
        self._at = end
        return rows @ (1 << np.arange(width - 1, -1, -1, dtype=np.uint64))
