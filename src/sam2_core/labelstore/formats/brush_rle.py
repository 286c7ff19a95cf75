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
_HEADER_BITS = 32 + 5 + 4 * 4
_LARGEST = 1 << _COUNT_BITS[-1]
_TOO_EARLY = "a brush region is damaged: it ends too early"


def decode_brush(code: Sequence[int], size: tuple[int, int]) -> np.ndarray:
    """The mask (H, W), bool, of a code: where its alpha is at least half of the largest alpha in it.

    Codes differ in what stands for opaque: all bits of a value, 255, or 1.

    Raises
    ------
    InputError
        The code is no list of bytes, cut short, or of an image of another size.
    """
    try:
        data = bytes(code) if not isinstance(code, (int, str)) else None
    except (TypeError, ValueError):
        data = None
    if data is None:
        raise InputError("a brush region is damaged: its code is no list of numbers from 0 to 255")
    if len(data) * 8 < _HEADER_BITS:
        raise InputError(_TOO_EARLY)
    header = int.from_bytes(data[:7], "big") >> 56 - _HEADER_BITS
    total, word = header >> 21, (header >> 16 & 31) + 1
    lengths = [(header >> shift & 15) + 1 for shift in (12, 8, 4, 0)]
    if total != 4 * size[0] * size[1]:
        raise InputError(f"a brush region has {total} values, not 4 x {size[0]} x {size[1]}")
    alpha = _values(data, total, word, lengths)[3::4].reshape(size)
    return alpha >= max(1, (int(alpha.max(initial=0)) + 1) // 2)


def encode_brush(mask: np.ndarray) -> list[int]:
    """The code of a mask (H, W), bool: opaque white where it is true, transparent elsewhere."""
    flat = np.ascontiguousarray(mask, bool).ravel()
    starts = np.concatenate([np.zeros(min(flat.size, 1), np.int64), np.flatnonzero(flat[1:] != flat[:-1]) + 1])
    runs = np.diff(starts, append=flat.size) * 4
    values = np.where(flat[starts], (1 << _WORD) - 1, 0)
    # what does not fit into the longest count goes into runs of that count before it
    pieces = -(-runs // _LARGEST)
    counts = np.full(pieces.sum(), _LARGEST)
    counts[np.cumsum(pieces) - 1] = runs - (pieces - 1) * _LARGEST
    values = np.repeat(values, pieces)

    count_bits = np.array(_COUNT_BITS)
    choice = np.searchsorted(1 << count_bits, counts)
    tokens = (((4 | choice) << count_bits[choice]) | (counts - 1)) << _WORD | values
    packed = _pack(tokens, 3 + count_bits[choice] + _WORD, _HEADER_BITS)
    header = flat.size * 4 << 5 | _WORD - 1
    for bits in _COUNT_BITS:
        header = header << 4 | bits - 1
    first = header << 56 - _HEADER_BITS
    packed[:7] |= np.frombuffer(first.to_bytes(7, "big"), np.uint8)
    return packed.tolist()


def _pack(tokens: np.ndarray, lengths: np.ndarray, start: int) -> np.ndarray:
    """Bytes that hold tokens of at most 32 bits one after the other, from the bit `start` on; zeros before it."""
    ends = start + np.cumsum(lengths)
    at = ends - lengths
    packed = np.zeros((int(ends[-1]) if ends.size else start) // 8 + 6, np.uint8)
    # a token and the bits before it in its first byte take five bytes at most; no two tokens share a bit
    shifted = tokens.astype(np.uint64) << (40 - at % 8 - lengths).astype(np.uint64)
    for byte in range(5):
        part = (shifted >> np.uint64(32 - 8 * byte) & np.uint64(255)).astype(np.uint8)
        np.add.at(packed, at // 8 + byte, part)
    return packed[: -(-(int(ends[-1]) if ends.size else start) // 8)]


def _values(data: bytes, total: int, word: int, lengths: list[int]) -> np.ndarray:
    """All values of a code."""
    values = np.zeros(total, np.uint8 if word <= 8 else np.uint32)
    # ten bytes from the one in which a run begins hold all of it: 7 + 3 + 16 + 32 bits; zeros stand in behind the end
    padded = data + bytes(10)
    end, bit, at = len(data) * 8, _HEADER_BITS, 0
    largest = (1 << word) - 1
    while at < total:
        window = int.from_bytes(padded[bit >> 3 : (bit >> 3) + 10], "big")
        left = 80 - (bit & 7) - 3
        head = window >> left
        length = lengths[head & 3]
        left -= length
        count = (window >> left & (1 << length) - 1) + 1
        bit += 3 + length
        size = word if head & 4 else count * word
        if bit + size > end:
            raise InputError(_TOO_EARLY)
        if at + count > total:
            raise InputError("a brush region is damaged: it holds more values than it says")
        if head & 4:
            values[at : at + count] = window >> left - word & largest
        else:
            values[at : at + count] = _literal(data, bit, count, word)
        bit += size
        at += count
    return values


def _literal(data: bytes, start: int, count: int, word: int) -> np.ndarray:
    """Values that stand one after the other from the bit `start` on."""
    first, last = start // 8, -(-(start + count * word) // 8)
    bits = np.unpackbits(np.frombuffer(data[first:last], np.uint8))
    rows = bits[start % 8 : start % 8 + count * word].reshape(count, word)
    return rows @ (1 << np.arange(word - 1, -1, -1, dtype=np.uint32))
