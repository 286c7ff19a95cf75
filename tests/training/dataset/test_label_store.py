"""A label store gives the same clips and tasks as arrays in memory, and never reads more than it uses."""

import os
import pickle
from functools import lru_cache

import numpy as np
import pytest
import zarr
from PIL import Image

from sam2_core.errors import InputError
from sam2_core.labelstore import Coverage, LabelStore
from sam2_core.labelstore.coverage import PlaneState
from training.dataset.clips import ClipDataset, ClipOptions
from training.dataset.label_store import load_store, stored_sequences
from training.dataset.views import UNKNOWN
from training.tasks import image_tasks, propagation_tasks


@pytest.fixture
def store(tmp_path):
    return LabelStore.create(tmp_path / "store")


def squares(shape, value=70000):
    """Two squares in every plane, one of them with a large id."""
    labels = np.zeros(shape, np.uint32)
    labels[..., 4:16, 4:18] = 3
    labels[..., 20:32, 24:36] = value
    return labels


@pytest.mark.parametrize(
    ("axes", "shape", "kinds"),
    [
        ("yx", (40, 48), ["image"]),
        ("cyx", (3, 40, 48), ["image"]),
        ("tyx", (5, 40, 48), ["video"]),
        ("zyx", (6, 40, 48), ["volume"]),
        ("tczyx", (2, 2, 6, 40, 48), ["volume", "volume"]),
    ],
)
def test_items_become_sequences(store, axes, shape, kinds):
    sizes = tuple(n for a, n in zip(axes, shape) if a != "c")
    image = np.random.default_rng(0).integers(0, 5000, shape, np.uint16)
    labels = squares(sizes)
    added = store.add(image, labels, axes=axes, window=(0, 2500), channel=1 if "c" in axes else None)
    found = list(stored_sequences([added]))
    assert [s.kind for s in found] == kinds
    chosen = np.take(image, 1, axes.index("c")) if "c" in axes else image
    expected = np.rint(np.clip(chosen / 2500, 0, 1) * 255).reshape(-1, 40, 48)
    frames = np.concatenate([np.asarray(s.frames) for s in found])
    assert frames.dtype == np.uint8
    assert np.abs(frames - expected).max() <= 1
    ids = np.concatenate([np.asarray(s.labels) for s in found])
    np.testing.assert_array_equal(ids, np.select([labels == 3, labels > 3], [1, 2]).reshape(-1, 40, 48))
    assert found[0].slice_axes == ((0, 1, 2) if "z" in axes else (0,))


def test_colours_are_the_last_axis(store):
    image = np.random.default_rng(0).integers(0, 255, (2, 4, 40, 48), np.uint8)
    added = store.add(image, squares((4, 40, 48)), axes="czyx", channel=(1, 0), window=(0, 255))
    (sequence,) = stored_sequences([added])
    np.testing.assert_array_equal(np.asarray(sequence.frames)[..., :2], np.moveaxis(image, 0, -1)[..., ::-1])
    assert not np.asarray(sequence.frames)[..., 2].any()


def test_unlabelled_planes_are_no_background(store):
    image = np.random.default_rng(0).integers(0, 255, (6, 64, 64), np.uint8)
    labels = squares((6, 64, 64)) * np.array([1, 0, 1, 1, 0, 0], np.uint32)[:, None, None]
    coverage = Coverage("z", np.array([2, 0, 2, 1, 0, 0], np.uint8))
    (sequence,) = stored_sequences([store.add(image, labels, axes="zyx", coverage=coverage)])
    assert sequence.labelled.tolist() == [True, False, True, True, False, False]
    assert not sequence.complete
    clips = ClipDataset([sequence], ClipOptions(size=64, frames=3, whole_view=1.0), seed=1)
    for i in range(20):
        clip = clips[i]
        assert clip.valid[0]
        assert not clip.masks[~clip.valid].any()
        assert (clip.labels[~clip.valid] == UNKNOWN).all()
        assert not (clip.labels == 0).any()


def test_clips_and_tasks_are_those_of_arrays(store):
    rng = np.random.default_rng(4)
    image, labels = rng.integers(0, 255, (8, 64, 64), np.uint8), squares((8, 64, 64))
    (stored,) = stored_sequences([store.add(image, labels, axes="zyx", window=(0, 255))])
    from dataclasses import replace

    memory = replace(stored, frames=np.asarray(stored.frames), labels=np.asarray(stored.labels))
    options = ClipOptions(size=64, frames=2)
    for a, b in zip((ClipDataset([s], options)[3] for s in [stored]), (ClipDataset([s], options)[3] for s in [memory])):
        assert a.frames.equal(b.frames)
        assert a.masks.equal(b.masks)
    for of_stored, of_memory in zip(image_tasks([stored]), image_tasks([memory]), strict=True):
        np.testing.assert_array_equal(of_stored.image, of_memory.image)
        np.testing.assert_array_equal(of_stored.mask, of_memory.mask)
    for of_stored, of_memory in zip(propagation_tasks([stored]), propagation_tasks([memory]), strict=True):
        np.testing.assert_array_equal(of_stored.masks, of_memory.masks)


def test_a_clip_reads_its_planes_alone(store, tmp_path, monkeypatch):
    path = tmp_path / "image.zarr"
    stored = zarr.create_array(str(path), shape=(50, 64, 64), chunks=(1, 64, 64), dtype="uint8")
    stored[:] = np.random.default_rng(0).integers(0, 255, stored.shape, np.uint8)
    added = store.add(path, squares((50, 64, 64)), axes="zyx", window=(0, 255))
    (sequence,) = stored_sequences([added])
    sequence = type(sequence)(**{**vars(sequence), "slice_axes": (0,)})
    clips = ClipDataset([sequence], ClipOptions(size=64, frames=3))
    clips[1]  # the first use of an item reads its ids
    read = []
    original = zarr.Array.__getitem__

    def counted(self, key):
        out = original(self, key)
        read.append(np.asarray(out).size)
        return out

    monkeypatch.setattr(zarr.Array, "__getitem__", counted)
    clips[0]
    assert sum(read) <= 2 * 3 * 64 * 64


def test_parts_and_snapshots(store):
    for i in range(4):
        image = np.full((40, 48), i, np.uint8)
        image[0, 0] = 200
        store.add(image, squares((40, 48)), axes="yx", item=f"i{i}", coverage=PlaneState.complete)
    with pytest.raises(InputError, match="sam2 labels split"):
        load_store(store, "train")
    store.split(validation=0.25)
    store.snapshot("now")
    names = {part: [s.name for s in load_store(store, part)] for part in ("train", "validation")}
    assert sorted([*names["train"], *names["validation"]]) == ["i0", "i1", "i2", "i3"]
    store.add(np.eye(40, 48, dtype=np.uint8), squares((40, 48)), axes="yx", item="late")
    store.split(validation=0.25)
    again = {part: [s.name for s in load_store(store, part, "now")] for part in ("train", "validation")}
    assert again == names


def test_items_are_opened_when_they_are_used_and_closed_again(store, tmp_path, monkeypatch):
    """A store of thousands of items neither takes minutes to begin with nor more files than a process may have open."""
    tifffile = pytest.importorskip("tifffile")
    import training.dataset.label_store as module

    added = []
    for i in range(12):
        path = tmp_path / f"{i}.tif"
        tifffile.imwrite(path, np.full((40, 48), i, np.uint8))
        added.append(store.add(path, squares((40, 48)), axes="yx", window=(0, 255)))
    opened = []
    original = module.ItemVersion.open_image
    monkeypatch.setattr(module.ItemVersion, "open_image", lambda self: opened.append(self) or original(self))
    monkeypatch.setattr(module, "OPEN_ITEMS", 3)
    monkeypatch.setattr(module, "_opened", lru_cache(maxsize=3)(module._opened.__wrapped__))
    sequences = list(stored_sequences(added))
    assert [len(s) for s in sequences] == [1] * 12
    assert all(s.may_have_objects for s in sequences)
    assert not opened
    before = open_files()
    for i, sequence in enumerate(sequences):
        assert (np.asarray(sequence.frames[0]) == i).all()
    assert len(opened) == 12
    assert open_files() <= before + 2 * 3
    again = pickle.loads(pickle.dumps(sequences[4]))  # as it travels to processes that are spawned
    assert (np.asarray(again.frames) == 4).all()


def open_files():
    return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0


def test_an_image_that_is_gone_is_said_at_once(store, tmp_path):
    path = tmp_path / "image.png"
    Image.fromarray(np.eye(40, 48, dtype=np.uint8)).save(path)
    added = store.add(path, squares((40, 48)), axes="yx")
    path.unlink()
    with pytest.raises(InputError, match="is gone"):
        list(stored_sequences([added]))


@pytest.mark.parametrize("part", ["frames", "labels"])
def test_damaged_pixels_are_one_sentence(store, tmp_path, part):
    path = tmp_path / "image.zarr"
    stored = zarr.create_array(str(path), shape=(4, 40, 48), chunks=(4, 40, 48), dtype="uint8")
    stored[:] = np.random.default_rng(0).integers(0, 255, stored.shape, np.uint8)
    added = store.add(path, squares((4, 40, 48)), axes="zyx", window=(0, 255))
    (sequence,) = stored_sequences([added])
    folder = path if part == "frames" else added.folder / "labels.zarr"
    for chunk in (f for f in folder.rglob("*") if f.is_file() and f.suffix != ".json"):
        chunk.write_bytes(b"junk")
    with pytest.raises(InputError, match=r"is damaged \(.*\): put a copy back, or add the item again") as caught:
        np.asarray(getattr(sequence, part)[1])
    assert "\n" not in str(caught.value)
    assert str(folder.parent if part == "labels" else folder) in str(caught.value)


def test_axes_in_another_order(store):
    image = np.random.default_rng(0).integers(0, 255, (3, 40, 48), np.uint8)
    (sequence,) = stored_sequences([store.add(image, squares((3, 40, 48)), axes="zyx", window=(0, 255))])
    turned = np.moveaxis(sequence.frames, 2, 0)
    assert len(turned) == 48
    np.testing.assert_array_equal(np.asarray(turned[[5, 3]]), np.moveaxis(image, 2, 0)[[5, 3]])
    np.testing.assert_array_equal(np.asarray(np.moveaxis(turned, 0, 2)), image)
