"""The NGFF metadata of a label image, versions 0.4 (zarr v2) and 0.5 (zarr v3): written and read."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

ZarrFormat = Literal[2, 3]

VERSIONS = {2: "0.4", 3: "0.5"}


def label_attributes(
    axes: str,
    scale: Mapping[str, float],
    translation: Mapping[str, float],
    units: Mapping[str, str],
    name: str,
    zarr_format: ZarrFormat,
    factors: Sequence[Mapping[str, float]],
    names: Mapping[int, str],
    source: str | None,
) -> dict[str, Any]:
    """Attributes of a label group with one resolution per entry of `factors`.

    Parameters
    ----------
    factors : sequence of mapping of axis to float
        For each resolution, how many full-resolution pixels one of its pixels spans.
    names : mapping of int to str
        Names of labels, kept as the property "name".
    source : str, optional
        Relative path to the image that was labelled.
    """
    version = VERSIONS[zarr_format]
    multiscale: dict[str, Any] = {
        "name": name,
        "axes": [_axis(a, units) for a in axes],
        "datasets": [
            {
                "path": str(level),
                "coordinateTransformations": [
                    {"type": "scale", "scale": [scale[a] * f.get(a, 1.0) for a in axes]},
                    {"type": "translation", "translation": [translation[a] for a in axes]},
                ],
            }
            for level, f in enumerate(factors)
        ],
        "type": "nearest",
    }
    label: dict[str, Any] = {"version": version}
    if names:
        label["properties"] = [{"label-value": i, "name": n} for i, n in sorted(names.items())]
    if source:
        label["source"] = {"image": source}
    if zarr_format == 2:
        return {"multiscales": [{"version": version, **multiscale}], "image-label": label}
    return {"ome": {"version": version, "multiscales": [multiscale], "image-label": label}}


def _axis(axis: str, units: Mapping[str, str]) -> dict[str, str]:
    entry = {"name": axis, "type": "time" if axis == "t" else "space"}
    return {**entry, "unit": units[axis]} if axis in units else entry


def image_format(path: Path) -> ZarrFormat | None:
    """zarr format (2 or 3) of the OME-Zarr image at `path`; None if there is none, or it is a label image."""
    markers: tuple[tuple[str, ZarrFormat], ...] = (("zarr.json", 3), (".zattrs", 2))
    for marker, zarr_format in markers:
        try:
            attributes = json.loads((path / marker).read_text())
        except (OSError, ValueError):
            continue
        ome = attributes.get("attributes", {}).get("ome", {}) if zarr_format == 3 else attributes
        if "multiscales" in ome:
            return None if "image-label" in ome else zarr_format
    return None


def register_label(labels: Path, name: str, zarr_format: ZarrFormat) -> None:
    """List the label image `name` in the group `labels` of an image, and bring its consolidated metadata up."""
    import zarr

    group = zarr.open_group(str(labels), mode="a", zarr_format=zarr_format)
    attributes: dict[str, Any] = dict(group.attrs)
    ome = attributes.setdefault("ome", {"version": VERSIONS[3]}) if zarr_format == 3 else attributes
    if name not in ome.get("labels", []):
        ome["labels"] = [*ome.get("labels", []), name]
        group.attrs.put(attributes)
    image = labels.parent
    if _is_consolidated(image, zarr_format):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # zarr warns that consolidation is no part of its v3 specification
            zarr.consolidate_metadata(str(image))


def _is_consolidated(image: Path, zarr_format: ZarrFormat) -> bool:
    if zarr_format == 2:
        return (image / ".zmetadata").exists()
    try:
        return bool(json.loads((image / "zarr.json").read_text()).get("consolidated_metadata"))
    except (OSError, ValueError):
        return False
