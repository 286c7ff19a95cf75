"""Which images are looked at, and how the measures of several sets come together."""

from dataclasses import replace

import numpy as np
import pytest

from training.dataset.labelled_sets import Sequence
from training.measure import complete_planes, table


def sequence(name, count, **changes):
    labels = np.ones((count, 20, 20), np.int32)
    made = Sequence("s", name, "video", np.zeros(labels.shape, np.uint8), labels, np.ones(count, bool))
    return replace(made, **changes)


@pytest.mark.parametrize(("count", "expected"), [(0, []), (1, [0]), (3, [0, 2, 4]), (9, [0, 1, 2, 3, 4])])
def test_planes_for_automatic_masks_are_spread_evenly(count, expected):
    assert [t for _, t in complete_planes([sequence("a", 5)], count)] == expected


def test_planes_without_complete_labels_are_left_out():
    sequences = [
        sequence("partly", 3, complete=False),
        sequence("some", 4, labelled=np.array([False, True, False, True])),
        sequence("none", 2, labelled=np.zeros(2, bool)),
    ]
    assert [(s.name, t) for s, t in complete_planes(sequences, 10)] == [("some", 1), ("some", 3)]


def test_a_table_has_a_row_for_each_measure():
    measures = {
        "clicks1": {"score": 0.71, "objects": 12},
        "noc85": {"score": 3.5, "objects": 12},
        "J": {"score": 0.5, "objects": 1},
        "ap50": {"score": 0.25, "images": 1},
    }
    lines = table({"measures": measures, "clips": {"dog": {"objects": 1, "J": 0.5, "F": 0.75, "J&F": 0.625}}})
    assert lines.splitlines() == [
        "| measure | score | on |",
        "|---|--:|--:|",
        "| IoU, 1 click | 0.710 | 12 objects |",
        "| NoC@85 (of 20 clicks) | 3.50 | 12 objects |",
        "| J, clips | 0.500 | 1 object |",
        "| AP@50, automatic masks | 0.250 | 1 image |",
        "",
        "| clip | objects | J | F | J&F |",
        "|---|--:|--:|--:|--:|",
        "| dog | 1 | 0.500 | 0.750 | 0.625 |",
    ]
