"""The validation tasks and the simulated clicks."""

import numpy as np

from training.dataset.labelled_sets import Sequence
from training.tasks import FEWEST_FORWARD, MIN_AREA, image_tasks, next_click, pooled_dice, propagation_tasks


def disk(shape, x, y, radius):
    yy, xx = np.ogrid[: shape[0], : shape[1]]
    return (xx - x) ** 2 + (yy - y) ** 2 <= radius**2


def test_the_first_click_is_at_the_centre_of_the_object():
    assert next_click(disk((50, 60), 40, 20, 9)) == (40, 20, 1)


def test_the_image_border_is_a_border_of_the_object():
    mask = np.zeros((40, 40), bool)
    mask[:, :11] = True
    x, y, label = next_click(mask)
    assert (x, label) == (5, 1)
    assert 5 <= y <= 34


def test_the_next_click_is_in_the_largest_error_and_says_which_kind():
    truth, extra = disk((60, 60), 20, 20, 10), disk((60, 60), 45, 45, 6)
    assert next_click(truth, truth | extra) == (45, 45, 0)
    assert next_click(truth | extra, extra) == (20, 20, 1)


def test_a_perfect_mask_is_clicked_at_its_centre():
    mask = disk((30, 30), 15, 14, 8)
    assert next_click(mask, mask) == (15, 14, 1)


def test_image_tasks_are_limited_per_set_spread_over_images_and_repeatable():
    rng = np.random.default_rng(0)
    sequences = []
    for name in "abc":
        labels = np.zeros((1, 60, 60), np.int32)
        for i in range(9):
            labels[0, 20 * (i // 3) : 20 * (i // 3) + 10, 20 * (i % 3) : 20 * (i % 3) + 10] = i + 1
        labels[0, 59, 59] = 10  # too small to prompt
        frames = rng.integers(0, 255, labels.shape, dtype=np.uint8)
        sequences.append(Sequence("s", name, "image", frames, labels, np.ones(1, bool)))
    tasks = image_tasks(sequences, limit=7)
    assert [t.image_name for t in tasks] == ["a:0"] * 3 + ["b:0"] * 2 + ["c:0"] * 2
    assert all(t.mask.sum() >= MIN_AREA for t in tasks)
    assert [t.box for t in tasks] == [t.box for t in image_tasks(sequences, limit=7)]
    x0, y0, x1, y1 = tasks[0].box
    assert (x1 - x0, y1 - y0) == (9, 9)


def test_unlabelled_frames_are_no_tasks():
    labels = np.ones((6, 20, 20), np.int32)
    labelled = np.array([False, True, False, False, True, False])
    sequence = Sequence("s", "x", "video", np.zeros((6, 20, 20), np.uint8), labels * labelled[:, None, None], labelled)
    assert {t.image_name for t in image_tasks([sequence])} == {"x:1", "x:4"}


def test_propagation_begins_where_an_object_is_more_than_a_sliver():
    labels = np.zeros((30, 40, 40), np.int32)
    for t in range(4, 20):
        labels[t][disk((40, 40), 20, 20, 8 - abs(t - 11) * 0.7)] = 1
    sequence = Sequence("s", "x", "volume", np.zeros(labels.shape, np.uint8), labels, np.ones(30, bool))
    (task,) = propagation_tasks([sequence])
    areas = (labels == 1).sum((1, 2))
    start = int(np.flatnonzero(areas >= areas.max() / 4)[0])
    assert task.name == f"x:{start}"
    assert task.masks.shape == (1, 21, 40, 40)
    assert task.masks[0, 0].sum() == areas[start]


def test_an_object_with_too_few_planes_left_is_not_propagated():
    labels = np.zeros((10, 20, 20), np.int32)
    labels[10 - FEWEST_FORWARD :, 5:15, 5:15] = 1
    sequence = Sequence("s", "x", "volume", np.zeros(labels.shape, np.uint8), labels, np.ones(10, bool))
    assert propagation_tasks([sequence]) == []


def test_dice_leaves_out_the_prompted_plane_and_unlabelled_ones():
    truth = np.ones((4, 5, 5), bool)
    prediction = truth.copy()
    prediction[0] = False
    prediction[2] = False
    labelled = np.array([True, True, False, True])
    assert pooled_dice(truth, prediction, labelled) == 1
    assert pooled_dice(truth, prediction, np.ones(4, bool)) == 2 * 50 / (50 + 75)
