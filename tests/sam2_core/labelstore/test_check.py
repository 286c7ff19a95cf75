"""Each kind of mistake is found, and good labels are left in peace."""

import os

import numpy as np
import pytest
import tifffile
from scipy.ndimage import gaussian_filter

from sam2_core.labelstore import LabelledThing, LabelStore, check_store
from sam2_core.labelstore.check import find_shift


@pytest.fixture
def store(tmp_path):
    return LabelStore.create(tmp_path / "store")


@pytest.fixture
def cells():
    """Bright discs on a noisy ground, and their labels."""
    rng = np.random.default_rng(3)
    y, x = np.mgrid[:160, :200]
    labels = np.zeros((160, 200), int)
    for i, (cy, cx) in enumerate([(40, 40), (50, 120), (110, 60), (120, 150)], 1):
        labels[(y - cy) ** 2 + (x - cx) ** 2 < 18**2] = i
    image = gaussian_filter((labels > 0) * 1000.0, 1.5) + rng.normal(100, 40, labels.shape)
    return image.clip(0).astype(np.uint16), labels


def kinds(store, **options):
    return [(p.item, p.kind) for p in check_store(store, **options)]


def test_good_labels(store, cells):
    store.add(cells[0], cells[1], axes="yx", item="good")
    assert kinds(store) == []


@pytest.mark.parametrize("shift", [(5, 0), (-3, 4), (0, -9)])
def test_shifted_labels(store, cells, shift):
    image, labels = cells
    moved = np.roll(labels, shift, (0, 1))
    assert find_shift(image, moved) == (-shift[0], -shift[1])
    store.add(image, moved, axes="yx", item="moved")
    assert kinds(store) == [("moved", "shifted")]


def test_noise_says_nothing_about_shifts(cells):
    noise = np.random.default_rng(1).normal(size=cells[1].shape)
    assert find_shift(noise, cells[1]) == (0, 0)
    assert find_shift(np.zeros((4, 4)), np.ones((4, 4), int)) == (0, 0)


def test_pieces_and_empty_ones(store, cells):
    image, labels = cells
    cut = labels.copy()
    cut[48:52] = np.where(cut[48:52] == 2, 0, cut[48:52])
    store.add(image, cut, axes="yx", item="cut")
    store.add(image + 1, labels * 0, axes="yx", item="empty")
    store.add(image + 2, labels, axes="yx", item="named", objects={4: LabelledThing(), 9: LabelledThing(name="lost")})
    assert kinds(store) == [("cut", "in pieces"), ("empty", "empty"), ("named", "empty")]


def test_duplicates_and_leaks(store, cells):
    for name in "ab":
        store.add(*cells, axes="yx", item=name)
    assert kinds(store) == [("a", "duplicate")]
    store.split(validation=0.5)
    assert "different parts" in check_store(store)[0].detail


def test_images_that_changed_or_went(store, cells, tmp_path):
    for number, name in enumerate(("other", "size", "gone")):
        tifffile.imwrite(tmp_path / f"{name}.tif", cells[0] + number)
        store.add(tmp_path / f"{name}.tif", cells[1], axes="yx", item=name)
    tifffile.imwrite(tmp_path / "other.tif", cells[0] + 11)
    tifffile.imwrite(tmp_path / "size.tif", cells[0][:100])
    (tmp_path / "gone.tif").unlink()
    chunk = next((store.get("other").folder / "labels.zarr" / "0").rglob("c/*/*"))
    chunk.write_bytes(chunk.read_bytes() + b"\0")
    found = kinds(store)
    assert found == [
        ("gone", "no image"),
        ("other", "changed"),
        ("other", "changed"),
        ("other", "unreadable"),
        ("size", "size"),
        ("size", "changed"),
    ]
    assert kinds(store, checksums=False) == [("gone", "no image"), ("other", "unreadable"), ("size", "size")]


def test_what_was_never_finished(store):
    left = store.path / "incoming" / "left"
    left.mkdir(parents=True)
    assert kinds(store) == []
    os.utime(left, (0, 0))
    assert kinds(store) == [("", "unfinished")]
