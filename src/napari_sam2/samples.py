"""Two images to try the plugin on, without a network: cells in time (2D+t) and nuclei in depth (3D)."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np

from napari_sam2.readers import LayerTuple, image_layers
from sam2_core.errors import InputError, MissingDependencyError

SPACING = (1.5, 0.5, 0.5)
"""Distance of the voxels of `nuclei_stack` in z, y and x, in micrometres."""


def cells_in_time() -> list[LayerTuple]:
    """Ten frames of a scratch assay, its stained nuclei and, hidden, the transmitted light.

    Raises
    ------
    MissingDependencyError
        The package of sample data is not installed.
    """
    from sam2_core.cli.demo import LIGHT, NUCLEI, PACKAGE, SAMPLE
    from sam2_core.volume.open import open_volume

    spec = find_spec(PACKAGE)  # its import would want more packages
    if spec is None or spec.origin is None:
        raise MissingDependencyError(PACKAGE, "demo", "open this sample")
    file = Path(spec.origin).parent / SAMPLE
    if not file.is_file():
        raise InputError(f"{file} is missing: install ndev-sampledata 0.0.3 or later again")
    layers = image_layers(open_volume(file))
    nuclei, light = layers[NUCLEI], layers[LIGHT]
    nuclei[1].update(name="cells: nuclei", colormap="gray")
    light[1].update(name="cells: transmitted light", colormap="gray", visible=False)
    return [light, nuclei]


def nuclei_in_depth() -> list[LayerTuple]:
    """A made-up stack of nuclei, the same every time."""
    options = {
        "name": "nuclei in depth",
        "scale": SPACING,
        "units": ("micrometer",) * 3,
        "axis_labels": ("z", "y", "x"),
        "contrast_limits": (100, 2000),
        "metadata": {"sam2": {"axes": "zyx"}},
    }
    return [(nuclei_stack(), options, "image")]


def nuclei_stack(shape: tuple[int, int, int] = (48, 256, 256), count: int = 260, seed: int = 7) -> np.ndarray:
    """Ellipsoids of uneven stain that seldom overlap, as a microscope shows them: blurred most along z, and noisy.

    Parameters
    ----------
    shape : (int, int, int)
        z, y, x.
    count : int
        Nuclei to place, as far as there is room.
    seed : int

    Returns
    -------
    ndarray, uint16
    """
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(seed)
    spacing = np.array(SPACING)
    size = np.array(shape) * spacing
    stain = np.zeros(shape, np.float32)
    # chromatin: lumps of one to two micrometres
    texture = gaussian_filter(rng.standard_normal(shape, np.float32), (0.9, 2.4, 2.4), truncate=2.5)
    texture /= texture.std()
    centres = np.empty((0, 3))
    for centre in rng.uniform(2.0, size - 2.0, (8 * count, 3)):
        if len(centres) < count and np.all(np.linalg.norm((centres - centre) / (0.8, 1.0, 1.0), axis=1) > 9.5):
            centres = np.vstack([centres, centre])
            _add_nucleus(stain, centre, spacing, rng)
    stain *= 1 + 0.22 * np.clip(texture, -2, 2)
    seen = gaussian_filter(stain, (0.9, 1.1, 1.1), truncate=2.5)
    haze = gaussian_filter(stain[::2, ::4, ::4], (4, 5, 5)).repeat(2, 0).repeat(4, 1).repeat(4, 2)
    depth = np.linspace(1.0, 0.72, shape[0], dtype=np.float32)[:, None, None]  # light is lost on the way down
    photons = depth * (1500 * seen + 500 * haze[: shape[0], : shape[1], : shape[2]]) + 40
    noisy = photons + np.sqrt(photons) * 3 * rng.standard_normal(shape, np.float32)
    return np.clip(noisy + 100, 0, 65535).astype(np.uint16)


def _add_nucleus(stain: np.ndarray, centre: np.ndarray, spacing: np.ndarray, rng: np.random.Generator) -> None:
    """Paint one ellipsoid, turned about z."""
    radii = rng.uniform((3.4, 4.2, 4.2), (5.0, 7.2, 5.6))
    start = np.maximum(((centre - radii.max()) / spacing).astype(int), 0)
    stop = np.minimum(((centre + radii.max()) / spacing).astype(int) + 2, stain.shape)
    grids = np.meshgrid(*(np.arange(a, b) for a, b in zip(start, stop)), indexing="ij", sparse=True)
    z, y, x = (g * s - c for g, s, c in zip(grids, spacing, centre))
    angle = rng.uniform(0, np.pi)
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    inside = (z / radii[0]) ** 2 + (along / radii[1]) ** 2 + (across / radii[2]) ** 2 <= 1
    box = stain[tuple(slice(a, b) for a, b in zip(start, stop))]
    box[inside] = rng.uniform(0.55, 1.1)
