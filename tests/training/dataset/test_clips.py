"""Clips of synthetic sequences: shapes, reproducibility, and masks that lie on what they label."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from sam2_core.predict.transforms import IMAGE_MEAN, IMAGE_STD
from training.dataset import intensity, views
from training.dataset.clips import ClipDataset, ClipOptions, draw_clip
from training.dataset.labelled_sets import Sequence

MEAN = torch.tensor(IMAGE_MEAN).view(3, 1, 1)
STD = torch.tensor(IMAGE_STD).view(3, 1, 1)


def volume(set_name="v", shape=(12, 60, 80), labelled=None, rgb=False, slice_axes=(0,)):
    """Two bright blocks, 1 and 2, that move with t on a dark ground; the pixels say which label is where."""
    labels = np.zeros(shape, np.int32)
    for t in range(shape[0]):
        labels[t, 10:30, 5 + t : 25 + t] = 1
        labels[t, 35:55, 40:70] = 2
    frames = np.choose(labels, [20, 120, 220]).astype(np.uint8)
    if rgb:
        frames = np.stack([frames] * 3, -1)
    labelled = np.ones(shape[0], bool) if labelled is None else labelled
    return Sequence(set_name, "x", "video", frames, labels * labelled[:, None, None], labelled, True, slice_axes)


@pytest.mark.parametrize(("frames", "rgb"), [(1, False), (5, False), (1, True), (5, True)])
def test_a_clip_has_the_shapes_it_promises(frames, rgb):
    dataset = ClipDataset([volume(rgb=rgb)], ClipOptions(size=64, frames=frames, max_objects=3), seed=1)
    for index in range(12):
        clip = dataset[index]
        objects = clip.masks.shape[1]
        assert clip.frames.shape == (frames, 3, 64, 64)
        assert clip.frames.dtype == torch.float32
        assert torch.isfinite(clip.frames).all()
        assert clip.masks.shape == (frames, objects, 64, 64)
        assert clip.masks.dtype == torch.bool
        assert 1 <= objects <= 3
        assert clip.valid.all()
        assert (clip.masks[0].sum((-2, -1)) >= 16).all()


def test_a_clip_depends_on_seed_and_index_alone():
    options = ClipOptions(size=48, frames=3)
    first, again = ClipDataset([volume()], options, seed=4), ClipDataset([volume()], options, seed=4)
    again[3]
    assert torch.equal(first[7].frames, again[7].frames)
    assert torch.equal(first[7].masks, again[7].masks)
    assert not torch.equal(first[7].frames, first[8].frames)
    assert not torch.equal(first[7].frames, ClipDataset([volume()], options, seed=5)[7].frames)


def test_masks_lie_on_the_objects_in_every_view(monkeypatch):
    monkeypatch.setattr(intensity, "augment", lambda image, rng: image)
    options = ClipOptions(size=96, frames=4, merge=0.0)
    for index in range(20):
        clip = ClipDataset([volume()], options, seed=2)[index]
        image = (clip.frames * STD + MEAN)[:, 0] * 255
        for n in range(clip.masks.shape[1]):
            values = image[clip.masks[:, n]]
            nearest = torch.tensor([120.0, 220.0])[(values.median() - torch.tensor([120.0, 220.0])).abs().argmin()]
            # Only the edge is blended with what is about it.
            assert ((values - nearest).abs() < 55).float().mean() > 0.8


def test_without_augmentation_the_whole_image_is_squashed_to_the_square():
    sequence = volume(shape=(1, 64, 128))
    clip = draw_clip(sequence, ClipOptions(size=32, augment=False, merge=0), np.random.default_rng(0))
    assert clip is not None
    union = clip.masks[0].any(0).numpy()
    expected = sequence.labels[0].reshape(32, 2, 32, 4)
    assert (union == (expected > 0).mean((1, 3)).round().astype(bool)).mean() > 0.99


def test_frames_without_labels_are_marked_and_have_no_masks():
    labelled = np.zeros(12, bool)
    labelled[[2, 9]] = True
    dataset = ClipDataset([volume(labelled=labelled)], ClipOptions(size=48, frames=4), seed=0)
    for index in range(15):
        clip = dataset[index]
        assert clip.valid[0]
        assert not clip.masks[~clip.valid].any()
    ends = [dataset[i].valid.tolist() for i in range(15)]
    assert [True, False, False, True] in ends


def test_a_single_image_becomes_a_moving_clip():
    dataset = ClipDataset([volume(shape=(1, 60, 80))], ClipOptions(size=64, frames=4), seed=3)
    assert any(not torch.equal(dataset[i].masks[0], dataset[i].masks[3]) for i in range(5))


@pytest.mark.parametrize("flow", [0.0, 1.0])
def test_a_single_image_moves_with_its_labels(flow, monkeypatch):
    monkeypatch.setattr(intensity, "augment", lambda image, rng: image)
    still = volume(shape=(1, 60, 80))
    options = ClipOptions(size=96, frames=4, merge=0.0, flow=flow)
    moved = 0
    for index in range(20):
        clip = ClipDataset([still], options, seed=2)[index]
        image = (clip.frames * STD + MEAN)[:, 0] * 255
        moved += int(not torch.equal(clip.labels[0], clip.labels[3]))
        bright = image[:, 2::4, 2::4]
        for label, value in ((1, 120.0), (2, 220.0)):
            values = bright[clip.labels == label]
            # only the edge is blended with what is about it
            assert len(values) < 20 or ((values - value).abs() < 55).float().mean() > 0.7
        for n in range(clip.masks.shape[1]):
            under = clip.labels[clip.masks[:, n, 2::4, 2::4]]
            assert len(under) < 20 or (under == under.mode().values).float().mean() > 0.8
    assert moved > 15


def test_what_is_not_labelled_is_unknown_rather_than_background():
    labelled = np.zeros(12, bool)
    labelled[[2, 9]] = True
    clip = ClipDataset([volume(labelled=labelled)], ClipOptions(size=48, frames=4), seed=0)[0]
    assert (clip.labels[~clip.valid] == -1).all()
    assert (clip.labels[clip.valid] >= 0).all()
    partly = replace(volume(), complete=False)
    clip = ClipDataset([partly], ClipOptions(size=48, frames=1), seed=0)[0]
    assert (clip.labels != 0).all()
    assert (clip.labels > 0).any()


def test_planes_are_taken_along_every_axis_of_cubic_voxels(monkeypatch):
    shapes = set()
    original = views.draw_view

    def spy(labels, *rest):
        shapes.add(labels.shape)
        return original(labels, *rest)

    monkeypatch.setattr(views, "draw_view", spy)
    dataset = ClipDataset([volume(slice_axes=(0, 1, 2))], ClipOptions(size=32, frames=3), seed=0)
    for index in range(40):
        dataset[index]
    assert shapes == {(60, 80), (12, 80), (12, 60)}


def test_clips_longer_than_a_stack_go_back_and_forth():
    clip = ClipDataset([volume(shape=(3, 60, 80))], ClipOptions(size=32, frames=8), seed=0)[0]
    assert len(clip) == 8


def test_touching_objects_are_sometimes_one():
    labels = np.zeros((1, 40, 40), np.int32)
    labels[0, 10:30, 10:20], labels[0, 10:30, 20:30] = 1, 2
    sequence = Sequence("t", "x", "image", (labels * 100).astype(np.uint8), labels, np.ones(1, bool))
    options = ClipOptions(size=40, max_objects=1, merge=1.0, whole_view=1.0)
    clip = ClipDataset([sequence], options)[0]
    assert 300 < clip.masks.sum() < 520
    alone = ClipDataset([sequence], ClipOptions(size=40, max_objects=1, merge=0.0, whole_view=1.0))[0]
    assert alone.masks.sum() < 300


def test_weights_choose_the_sets():
    sequences = [volume("a"), volume("b")]
    dataset = ClipDataset(sequences, ClipOptions(size=32), weights={"a": 0.0, "b": 1.0})
    assert {dataset[i].set for i in range(10)} == {"b"}


def test_nothing_labelled_is_an_error():
    empty = volume(labelled=np.zeros(12, bool))
    with pytest.raises(ValueError, match="no labelled objects"):
        ClipDataset([empty])


@pytest.mark.parametrize("channels", [1, 3])
def test_augmented_intensities_stay_in_range(channels):
    image = torch.rand(2, channels, 24, 24)
    for seed in range(60):
        changed = intensity.augment(image.clone(), np.random.default_rng(seed))
        assert changed.shape[0] == 2
        assert changed.shape[-2:] == (24, 24)
        assert torch.isfinite(changed).all()
        assert changed.min() >= 0
        assert changed.max() <= 1
        assert intensity.normalise(changed).shape == (2, 3, 24, 24)
