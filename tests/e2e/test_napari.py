"""A user at a real napari window, killed in the middle, comes back to what was done."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.e2e
pytest.importorskip("napari")


def write(path: Path, image: np.ndarray, axes: str, spacing: tuple[float, ...]) -> Path:
    """An OME-Zarr file, a plane a chunk."""
    import zarr

    units = {"t": ("time", "second")}
    described = [dict(zip(("name", "type", "unit"), (a, *units.get(a, ("space", "micrometer"))))) for a in axes]
    scale = [{"type": "scale", "scale": list(spacing)}]
    dataset = {"path": "0", "coordinateTransformations": scale}
    attributes = {"ome": {"version": "0.5", "multiscales": [{"axes": described, "datasets": [dataset]}]}}
    group = zarr.create_group(str(path), zarr_format=3, attributes=attributes)
    group.create_array("0", data=image, chunks=(1,) * (image.ndim - 2) + image.shape[-2:])
    return path


def balls(times: int, depth: int) -> np.ndarray:
    """Three balls in noise, the first of which moves to the right; (times, depth, 128, 128) uint16."""
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(0)
    z, y, x = np.ogrid[:depth, :128, :128]
    image = np.zeros((times, depth, 128, 128))
    for t in range(times):
        for cy, cx, radius in [(40, 45 + 4 * (t - min(2, times // 2)), 20), (90, 90, 18), (30, 105, 12)]:
            image[t] += ((4 * (z - depth // 2)) ** 2 + (y - cy) ** 2 + (x - cx) ** 2) < radius**2
    image = 200 + 800 * gaussian_filter(image, (0, 0, 1, 1)) + rng.normal(0, 40, image.shape)
    return image.clip(0, 65535).astype(np.uint16)


def scene_image(name: str, folder: Path) -> Path:
    """The image of a scene; see `SCENES` in napari_user.py."""
    path = folder / "nuclei.zarr"
    if name == "3D":
        from napari_sam2.samples import SPACING, nuclei_stack

        return write(path, nuclei_stack(), "zyx", SPACING)
    if name == "2D":
        return write(path, balls(1, 1)[0, 0], "yx", (0.5, 0.5))
    if name == "2D+t":
        return write(path, balls(8, 1)[:, 0], "tyx", (60, 0.5, 0.5))
    return write(path, balls(3, 6), "tzyx", (60, 1.5, 0.5, 0.5))


def user(phase: str, scene: str, folder: Path, qt: str) -> subprocess.CompletedProcess:
    """Let the user of napari_user.py work."""
    env = {
        **os.environ,
        "QT_API": qt,
        "SAM2_SESSIONS": str(folder / "sessions"),
        "SAM2_EMBEDDINGS_CACHE": str(folder / "embeddings"),
    }
    script = Path(__file__).with_name("napari_user.py")
    command = [sys.executable, str(script), phase, scene, str(folder / "nuclei.zarr"), str(folder / "pictures")]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=900)


@pytest.mark.parametrize(("scene", "qt"), [("3D", "pyqt6"), ("2D", "pyside6"), ("2D+t", "pyqt6"), ("3D+t", "pyqt6")])
def test_a_user_is_killed_and_comes_back(tmp_path, scene, qt):
    pytest.importorskip({"pyqt6": "PyQt6", "pyside6": "PySide6"}[qt])
    scene_image(scene, tmp_path)
    first = user("work", scene, tmp_path, qt)
    assert "done" in first.stdout, first.stdout + first.stderr
    assert first.returncode == -9
    second = user("return", scene, tmp_path, qt)
    assert second.returncode == 0, second.stdout + second.stderr
    assert "done" in second.stdout
    assert len(list((tmp_path / "pictures").glob("*.png"))) == (6 if scene == "2D" else 10)
    if scene == "3D" and "SAM2_PICTURES" in os.environ:  # those of docs/napari.md
        shutil.copytree(
            tmp_path / "pictures",
            os.environ["SAM2_PICTURES"],
            ignore=shutil.ignore_patterns("*.npy"),
            dirs_exist_ok=True,
        )
