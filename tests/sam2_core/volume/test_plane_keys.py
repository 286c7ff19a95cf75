"""Keys change with the image and with what is shown of it, and with nothing else."""

import os

import numpy as np
import pytest
import zarr
from PIL import Image

from sam2_core.volume.open import open_volume
from sam2_core.volume.plane_keys import image_key, line_key
from sam2_core.volume.planes import PlaneSource


def touched(path):
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 10**9))


def stored(kind, folder, stack):
    """An image on disk, and a file that says whether it was changed."""
    if kind == "zarr":
        path = folder / "a.zarr"
        zarr.create_array(path, shape=stack.shape, chunks=(4, 8, 8), dtype=stack.dtype)[:] = stack
        return path, path / "zarr.json"
    if kind == "multiscale":
        path = folder / "m.zarr"
        group = zarr.create_group(path, zarr_format=2)
        for level in range(2):
            data = stack[:, :: 2**level, :: 2**level]
            group.create_array(f"s/{level}", shape=data.shape, chunks=(4, 8, 8), dtype=data.dtype)[:] = data
        axes = [{"name": a, "type": "space"} for a in "zyx"]
        datasets = [
            {"path": f"s/{n}", "coordinateTransformations": [{"type": "scale", "scale": [1, 2**n, 2**n]}]}
            for n in range(2)
        ]
        group.attrs["multiscales"] = [{"version": "0.4", "axes": axes, "datasets": datasets}]
        return path, path / "s" / "0" / ".zarray"
    if kind == "file":
        path = folder / "a.png"
        Image.fromarray(stack[0]).save(path)
        return path, path
    path = folder / "images"
    path.mkdir()
    for number, plane in enumerate(stack):
        Image.fromarray(plane).save(path / f"{number}.png")
    return path, path / "7.png"


@pytest.mark.parametrize("kind", ["zarr", "multiscale", "file", "folder"])
def test_an_image_on_disk_is_known_by_its_files(tmp_path, stack, kind):
    path, file = stored(kind, tmp_path, stack)
    key = image_key(open_volume(path))
    assert image_key(open_volume(path)) == key
    touched(file)
    assert image_key(open_volume(path)) != key


def test_a_copy_is_another_image(tmp_path, stack):
    keys = set()
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        path, file = stored("file", tmp_path / name, stack)
        os.utime(file, (1, 1))
        keys.add(image_key(open_volume(path)))
    assert len(keys) == 2


def test_an_array_is_known_by_its_values(stack):
    key = image_key(open_volume(stack))
    assert image_key(open_volume(stack.copy())) == key
    changed = stack.copy()
    changed[5, 3, 2] ^= 1
    for other in (changed, stack.astype(np.uint16), stack[:, ::2], stack.reshape(24, 12, 32)):
        assert image_key(open_volume(other)) != key


def test_an_array_is_known_by_the_channels_that_are_shown(stack):
    two = np.stack([stack, stack ^ 1])
    volume = open_volume(two, axes="czyx")
    other = open_volume(np.stack([stack, stack ^ 2]), axes="czyx")
    assert image_key(volume, (0,)) == image_key(other, (0,))
    assert image_key(volume, (1,)) != image_key(other, (1,))


def test_a_line_is_known_by_what_is_shown(movie):
    volume = open_volume(movie, axes="tzyx")

    def key(axis="z", image="i", volume=volume, **options):
        return line_key(PlaneSource(volume, axis, **{"window": (0, 255), "fixed": {"t": 1}, **options}), image)

    assert key() == key()
    others = [
        key(fixed={"t": 2}),
        key(axis="t", fixed={"z": 1}),
        key(window=(0, 200)),
        key(image="j"),
        key(volume=open_volume(movie, axes="czyx"), fixed={}, channel=1),
        key(volume=open_volume(movie, axes="czyx"), fixed={}, channel=(1, 0)),
    ]
    assert len({key(), *others}) == len(others) + 1


def test_a_level_is_another_line(tmp_path, stack):
    path, _ = stored("multiscale", tmp_path, stack)
    keys = {line_key(PlaneSource(open_volume(path, level=n), "z", window=(0, 255)), "i") for n in range(2)}
    assert len(keys) == 2
