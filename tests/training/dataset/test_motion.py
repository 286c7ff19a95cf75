"""Pseudo-videos of one image: objects wander, and their labels with them."""

import numpy as np
import pytest
import torch

from training.dataset import motion


def discs(ground: float = 0.1, bright: float = 0.8) -> tuple[np.ndarray, np.ndarray]:
    labels = np.zeros((96, 96), np.int64)
    y, x = np.mgrid[:96, :96]
    for i, (cy, cx) in enumerate([(20, 20), (20, 60), (60, 30), (70, 75)]):
        labels[(y - cy) ** 2 + (x - cx) ** 2 < 7**2] = i + 1
    return np.where(labels > 0, bright, ground).astype(np.float32)[None], labels


def test_only_bright_objects_on_a_dark_ground_can_be_moved_alone() -> None:
    assert motion.can_scatter(*discs())
    assert not motion.can_scatter(*discs(ground=0.9))
    assert not motion.can_scatter(discs()[0], np.zeros((96, 96), np.int64))
    assert not motion.can_scatter(discs()[0], np.ones((96, 96), np.int64))


@pytest.mark.parametrize("seed", range(8))
def test_scattered_objects_keep_their_look_and_leave_nothing_behind(seed: int) -> None:
    image, labels = discs()
    images, moved = motion.scatter(image, labels, 4, np.random.default_rng(seed))
    assert images.shape == (4, 1, 96, 96)
    assert images.dtype == np.float32
    np.testing.assert_array_equal(images[0], image)
    np.testing.assert_array_equal(moved[0], labels)
    for frame, marks in zip(images[1:, 0], moved[1:], strict=True):
        assert set(np.unique(marks)) <= {0, 1, 2, 3, 4}
        inside = frame[marks > 0]
        assert not inside.size or inside.mean() > 0.7
        assert (frame[marks == 0] > 0.6).sum() <= 0.1 * max(inside.size, 1)


def test_objects_move_on_their_own() -> None:
    image, labels = discs()
    for seed in range(20):
        _, moved = motion.scatter(image, labels, 2, np.random.default_rng(seed))
        rows = [np.argwhere(moved[1] == i).mean(0) - np.argwhere(labels == i).mean(0) for i in np.unique(moved[1])[1:]]
        if len(rows) == 4 and np.ptp(np.array(rows), axis=0).max() > 3:
            return
    pytest.fail("all objects moved alike in every draw")


def test_a_flow_starts_at_rest_and_does_not_fold() -> None:
    for seed in range(30):
        flow = motion.draw_flow(4, np.random.default_rng(seed))
        assert flow.dtype == torch.float32
        assert flow.shape[:2] == (4, 2)
        assert (flow[0] == 0).all()
        spacing = 2 / (flow.shape[-1] - 1)
        assert flow.diff(dim=-1)[:, 0].std() < spacing


def test_a_drift_starts_at_rest() -> None:
    drift = motion.draw_drift(5, np.random.default_rng(0))
    np.testing.assert_array_equal(drift[0], np.eye(3))
    assert len(drift) == 5
