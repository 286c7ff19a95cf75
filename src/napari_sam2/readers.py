"""napari's reader: volumes that are larger than memory, and what napari itself does not read.

`get_reader` is what the manifest names; `read_layers` does the work. Every layer says in its metadata, under "sam2",
which file it shows ("path"), the letter of each of its dimensions ("axes", colours are none), for one channel of
several which ("channel"), and for NIfTI the matrix of voxel (x, y, z) to world ("affine").
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from napari_sam2.volume_view import VolumeView
from sam2_core.errors import InputError
from sam2_core.volume.labels import LabelVolume, is_label_volume
from sam2_core.volume.open import IMAGE_SUFFIXES, TIFF_SUFFIXES, ZARR_MARKERS, holds_dicom, open_volume
from sam2_core.volume.volume import Volume
from sam2_core.volume.window import default_window

LayerTuple = tuple[Any, dict[str, Any], str]

MAX_CHANNELS = 4
"""So many channels become a layer each; of more, one layer has a slider for them."""

_COLOURS = {
    1: ("gray",),
    2: ("magenta", "green"),
    3: ("cyan", "magenta", "yellow"),
    4: ("cyan", "magenta", "yellow", "blue"),
}
"""The colours of 1 to 4 channels, as napari itself gives them."""


def get_reader(path: str | list[str]) -> Callable[[str], list] | None:
    """The reader for a path; None for a list of files, and for a folder that holds no image of its own.

    The reader gives the layers. What is wrong with a file it shows as one sentence in napari, and adds no layer.
    """
    if not isinstance(path, str):
        return None
    folder = Path(path)
    if folder.is_dir() and not _holds_image(folder):
        return None
    return _read


def read_layers(path: str | Path) -> list[LayerTuple]:
    """Everything that a file or folder shows, as napari takes it, unread.

    Parameters
    ----------
    path : str or Path
        Whatever `sam2_core.volume.open_volume` opens. A label image becomes a layer of labels; the label images of
        an OME-Zarr image follow it.

    Raises
    ------
    InputError
        If the file is missing, damaged or of no format that can be read.
    """
    path = Path(path).expanduser()
    if path.is_dir() and is_label_volume(path):
        return [label_layer(path)]
    layers = image_layers(open_volume(path))
    found = sorted(p for p in (path / "labels").glob("*") if is_label_volume(p)) if path.is_dir() else []
    return layers + [label_layer(p) for p in found]


def image_layers(volume: Volume) -> list[LayerTuple]:
    """An image as layers: one, or up to `MAX_CHANNELS` of one channel each.

    Dimensions are t, z, y, x, those that there are; more channels than that come before them, with a slider; colours
    come last. Levels of resolution become those of the layer.
    """
    levels = [volume.at_level(i) for i in range(len(volume.levels))]
    count = volume.size("c")
    spatial = volume.axes.replace("c", "")
    if volume.rgb:
        return [_image(volume, [VolumeView(v, f"{spatial}c") for v in levels], spatial, {"rgb": True})]
    if "c" not in volume.axes:
        return [_image(volume, [VolumeView(v, spatial) for v in levels], spatial, _contrast(volume, 0))]
    if count > MAX_CHANNELS:
        views = [VolumeView(v, f"c{spatial}") for v in levels]
        return [_image(volume, views, f"c{spatial}", _contrast(volume, 0))]
    layers = []
    for c, colour in zip(range(count), _COLOURS[count]):
        named = volume.channel_names[c] if c < len(volume.channel_names) else f"channel {c}"
        options = {
            **_contrast(volume, c),
            "name": f"{_stem(volume)} {named}" if count > 1 else _stem(volume),
            "colormap": colour,
            "blending": "additive" if c else "translucent_no_depth",
        }
        views = [VolumeView(v, spatial, c) for v in levels]
        layers.append(_image(volume, views, spatial, options, channel=c))
    return layers


def label_layer(path: Path) -> LayerTuple:
    """A label image (OME-Zarr) as a layer of labels, with the names of its objects as features.

    Raises
    ------
    InputError
        If it is damaged.
    """
    labels = LabelVolume.open(path)
    volume = labels.volume
    levels = [volume.at_level(i).data for i in range(len(volume.levels))]
    options = _placed(volume, volume.axes)
    if labels.affine is not None:
        options["metadata"]["sam2"]["affine"] = labels.affine.tolist()
    if labels.names:
        options["features"] = {"index": list(labels.names), "name": list(labels.names.values())}
    return _data(levels, options), options, "labels"


def _read(path: str) -> list:
    from napari.utils.notifications import show_error

    try:
        return read_layers(path)
    except InputError as error:
        # raised, it would come with a traceback, or be lost behind a question for another reader
        show_error(str(error))
        return [(None,)]  # napari's word for "read, and there is nothing to add"


def _holds_image(folder: Path) -> bool:
    """Whether a folder is a zarr store, a DICOM series or a sequence of images."""
    if folder.suffix == ".zarr" or any((folder / marker).exists() for marker in ZARR_MARKERS):
        return True
    planes = (*IMAGE_SUFFIXES, *TIFF_SUFFIXES)
    return any(f.name.lower().endswith(planes) for f in folder.iterdir()) or holds_dicom(folder)


def _image(
    volume: Volume, levels: list[Any], axes: str, options: dict[str, Any], channel: int | None = None
) -> LayerTuple:
    options = {**_placed(volume, axes), **options}
    if channel is not None:
        options["metadata"]["sam2"]["channel"] = channel
    if volume.affine is not None:
        options["metadata"]["sam2"]["affine"] = volume.affine.tolist()
    return _data(levels, options), options, "image"


def _data(levels: list[Any], options: dict[str, Any]) -> Any:
    """One array, or those of all levels, about which `options` then says so."""
    if len(levels) == 1:
        return levels[0]
    options["multiscale"] = True
    return levels


def _placed(volume: Volume, axes: str) -> dict[str, Any]:
    """What a layer of the dimensions `axes` is called and where it lies."""
    return {
        "name": _stem(volume),
        "axis_labels": tuple(axes),
        "scale": [volume.scale.get(a, 1.0) for a in axes],
        "translate": [volume.translation.get(a, 0.0) for a in axes],
        "units": [_unit(volume.units.get(a)) for a in axes],
        "metadata": {"sam2": {"path": str(volume.path), "axes": axes}},
    }


def _unit(name: str | None) -> str:
    """A unit that napari knows; pixels for all else."""
    import pint

    try:
        return str(pint.get_application_registry().Unit(name or "pixel"))
    except (pint.UndefinedUnitError, ValueError, TypeError, AttributeError):
        return "pixel"


def _contrast(volume: Volume, channel: int) -> dict[str, Any]:
    try:
        window = default_window(volume, channel)
    except InputError:  # constant or not finite: napari's own limits are as good as any
        return {}
    return {"contrast_limits": (window.low, window.high)}


def _stem(volume: Volume) -> str:
    """The name of the file without its endings."""
    if volume.path and volume.path.is_dir() and volume.path.suffix != ".zarr":
        return volume.name
    stem = Path(volume.name).stem
    return stem.removesuffix(".nii").removesuffix(".ome") or volume.name
