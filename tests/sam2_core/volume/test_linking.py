"""Objects through depth, time, and depth and time keep one number; numbers of single planes mean nothing."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sam2_core.volume.linking import Linker, best_pairs, link


def shuffled(truth, seed=0):
    """The same planes with numbers of their own on each."""
    rng = np.random.default_rng(seed)
    planes = truth.reshape(-1, *truth.shape[-2:])
    out = np.zeros_like(planes)
    for plane, new in zip(planes, out):
        ids = [i for i in np.unique(plane) if i]
        for i, number in zip(ids, rng.permutation(len(ids)) + 1):
            new[plane == i] = number
    return list(out)


def one_to_one(found, truth):
    pairs = {(int(a), int(b)) for a, b in zip(np.ravel(found), np.ravel(truth))}
    return len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs}) and (0, 0) in pairs


def balls(centres, shape=(14, 40, 50), radius=5.5):
    grid = np.ogrid[tuple(slice(0, n) for n in shape)]
    out = np.zeros(shape, np.uint32)
    for n, centre in enumerate(centres, 1):
        out[sum((g - c) ** 2 for g, c in zip(grid, centre)) <= radius**2] = n
    return out


BALLS = [(5, 10, 10), (7, 10, 30), (8, 28, 12), (6, 30, 40)]


def test_balls_through_depth():
    truth = balls(BALLS)
    found = np.stack(list(link(shuffled(truth))))
    assert found.dtype == np.uint32
    assert one_to_one(found, truth)
    assert set(np.unique(found)) == set(range(5))


def test_discs_that_move():
    y, x = np.ogrid[:60, :80]
    truth = np.zeros((15, 60, 80), np.uint32)
    for t, plane in enumerate(truth):
        plane[(y - 15) ** 2 + (x - 10 - 3 * t) ** 2 <= 49] = 1
        plane[(y - 32) ** 2 + (x - 60 + 2 * t) ** 2 <= 49] = 2
        if t > 4:
            plane[(y - 50) ** 2 + (x - 5 * t) ** 2 <= 36] = 3
    assert one_to_one(np.stack(list(link(shuffled(truth)))), truth)


def test_balls_through_depth_and_time():
    truth = np.stack([balls([(z, y + t, x + 2 * t) for z, y, x in BALLS]) for t in range(5)])
    truth[3:][truth[3:] == 2] = 0  # one goes
    given_planes = shuffled(truth)
    found = np.stack(list(link(given_planes, depth=14))).reshape(truth.shape)
    assert one_to_one(found, truth)
    assert len(list(link(given_planes[:20], depth=14))) == 14  # what is complete


@pytest.mark.parametrize("depth", [1, 2])
def test_a_gap_of_one_is_bridged_and_not_two(depth):
    truth = np.zeros((8, depth, 20, 20), np.uint32)
    truth[:, :, 4:12, 4:12] = 1
    truth[3] = truth[5:7] = 0
    planes = np.stack(list(link(shuffled(truth), depth))).reshape(truth.shape)
    assert [int(t.max()) for t in planes] == [1, 1, 1, 0, 1, 0, 0, 2]


def test_the_best_matches_are_chosen_together():
    old, new = np.zeros((2, 10, 40), np.uint32)
    old[:, 0:20], old[:, 20:40] = 1, 2
    new[:, 9:29], new[:, 29:40] = 7, 5  # 7 lies a little more in 1, and 5 is all in 2
    assert [[int(p[5, 15]), int(p[5, 35])] for p in link([old, new])] == [[1, 2], [1, 2]]


def test_a_division_begins_one_new_object():
    planes = np.zeros((3, 20, 20), np.uint32)
    planes[0, 4:14, 4:16] = 1
    planes[1:, 4:14, 4:9] = 1
    planes[1:, 4:14, 10:16] = 2
    found = list(link(planes))
    assert set(np.unique(found[1])) == {0, 1, 2}
    assert found[1][8, 12] == 1  # the larger part goes on
    np.testing.assert_array_equal(found[1], found[2])


def test_planes_come_out_as_soon_as_they_are_certain():
    linker = Linker(depth=3)
    plane = np.ones((4, 4), np.uint8)
    assert [len(list(linker.add(plane))) for _ in range(7)] == [0, 0, 3, 0, 0, 3, 0]


@given(st.dictionaries(st.tuples(st.integers(1, 4), st.integers(1, 4)), st.floats(0.1, 1), max_size=9))
def test_pairs_have_the_greatest_sum(scores):
    chosen = best_pairs(scores)
    assert set(chosen) <= set(scores)
    for side in (0, 1):
        assert len({pair[side] for pair in chosen}) == len(chosen)
    best = max(sum(scores.get((a, b), 0) for a, b in enumerate(order, 1)) for order in permutations(range(1, 5)))
    assert sum(scores[pair] for pair in chosen) == pytest.approx(best)
