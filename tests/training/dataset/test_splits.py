"""Nothing of a validation part may be in a training part."""

import numpy as np
import pytest

from training.dataset.labelled_sets import SET_NAMES, Sequence
from training.dataset.splits import BLOCKS, VALIDATION_NAMES, select_part


def test_every_set_has_a_validation_part():
    assert set(BLOCKS) | set(VALIDATION_NAMES) == set(SET_NAMES)
    assert not set(BLOCKS) & set(VALIDATION_NAMES)


@pytest.mark.parametrize("name", sorted(BLOCKS))
def test_blocks_of_one_volume_are_disjoint_with_a_gap(name):
    block = BLOCKS[name]
    first, second = sorted([block.training, block.validation])
    assert first[1] < second[0]


def test_blocks_are_cut_where_the_table_says():
    ramp = np.arange(150)[:, None, None]
    volume = _sequence("fibsem_medulla_neurites3d", np.broadcast_to(ramp, (150, 4, 4)).astype(np.uint8))
    (training,) = select_part([volume], "training")
    (validation,) = select_part([volume], "validation")
    assert (training.frames.min(), training.frames.max()) == (0, 105)
    assert (validation.frames.min(), validation.frames.max()) == (120, 149)
    assert len(training.labelled) == 106
    assert len(validation.labelled) == 30


def test_an_object_that_reaches_the_validation_block_is_not_trained_on():
    labels = np.zeros((31, 8, 8), np.int32)
    labels[14:21, :4, :4] = 1  # across the cut
    labels[2:6, 4:, 4:] = 2
    labels[25:30, 4:, :4] = 3
    volume = _sequence("stardist_worm_nuclei3d", np.zeros((31, 8, 8), np.uint8), labels)
    (training,) = select_part([volume], "training")
    (validation,) = select_part([volume], "validation")
    assert training.labels.max() == 1
    assert np.array_equal(training.labels == 1, labels[:17] == 2)
    assert validation.labels.max() == 2


def test_sequences_are_split_by_name():
    frames = np.zeros((1, 4, 4), np.uint8)
    videos = [_sequence("davis2016_480p", frames, name=name) for name in ("dog", "libby", "car-shadow")]
    assert [s.name for s in select_part(videos, "training")] == ["dog"]
    assert [s.name for s in select_part(videos, "validation")] == ["libby", "car-shadow"]


def _sequence(set_name: str, frames: np.ndarray, labels: np.ndarray | None = None, name: str = "x") -> Sequence:
    labels = np.ones(frames.shape[:3], np.int32) if labels is None else labels
    return Sequence(set_name, name, "volume", frames, labels, np.ones(len(frames), bool))
