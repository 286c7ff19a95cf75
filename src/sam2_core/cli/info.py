"""`sam2 info`: what an image holds and how it will be read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer


def info(
    path: Annotated[
        Path, typer.Argument(metavar="INPUT", help="Image, volume, folder of images, video or zarr store.")
    ],
    axes: Annotated[str | None, typer.Option(help="Axes as stored, for example tzyx, where the file is wrong.")] = None,
    level: Annotated[int, typer.Option(help="Resolution of a multiscale image; 0 is the finest.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
) -> None:
    """Show what an input holds: format, axes, shape, type, chunks, scale, levels, channels, default window."""
    from sam2_core.volume.open import open_volume

    volume = open_volume(path, axes=axes, level=level)
    facts = describe(volume)
    if as_json:
        typer.echo(json.dumps(facts, indent=2))
        return
    lines = _lines(facts, volume.axes)
    width = max(len(name) for name, _ in lines)
    for name, text in lines:
        typer.echo(f"{name:<{width}}  {text}")


def describe(volume: Any) -> dict[str, Any]:
    """The facts about an opened `Volume`, as plain JSON values."""
    from sam2_core.errors import InputError
    from sam2_core.volume.window import default_window

    windows: list[list[float] | None] = []
    problems: list[str] = []
    for channel in range(volume.size("c")):
        try:
            window = default_window(volume, channel)
            windows.append([window.low, window.high])
        except InputError as error:
            windows.append(None)
            problems.append(str(error))
    return {
        "path": str(volume.path),
        "format": volume.format,
        "axes": volume.axes,
        "axes_assumed": volume.axes_assumed,
        "shape": list(volume.shape),
        "dtype": str(volume.dtype),
        "rgb": volume.rgb,
        "chunks": list(volume.chunks),
        "scale": volume.scale,
        "translation": volume.translation,
        "units": volume.units,
        "level": volume.level,
        "levels": [list(entry.shape) for entry in volume.levels],
        "channels": list(volume.channel_names) or [str(c) for c in range(volume.size("c"))],
        "default_axis": volume.default_axis(),
        "default_windows": windows,
        "problems": problems,
    }


def _lines(facts: dict[str, Any], axes: str) -> list[tuple[str, str]]:
    assumed = "  (assumed: set them with --axes)" if facts["axes_assumed"] else ""
    lines = [
        ("input", facts["path"]),
        ("format", facts["format"]),
        ("axes", f"{axes}{assumed}"),
        ("shape", _named(axes, facts["shape"])),
        ("type", facts["dtype"] + (", colour (RGB)" if facts["rgb"] else "")),
        ("chunks", _named(axes, facts["chunks"])),
        ("scale", _measured(facts["scale"], facts["units"])),
    ]
    if any(facts["translation"].values()):
        lines.append(("translation", _measured(facts["translation"], facts["units"])))
    for n, shape in enumerate(facts["levels"]):
        opened = "  (open)" if n == facts["level"] and len(facts["levels"]) > 1 else ""
        lines.append((f"level {n}", _named(axes, shape) + opened))
    for n, (name, window) in enumerate(zip(facts["channels"], facts["default_windows"])):
        label = f"channel {n}" + (f" ({name})" if name != str(n) else "")
        lines.append((label, f"window {window[0]:g},{window[1]:g}" if window else "no default window"))
    along = facts["default_axis"]
    lines.append(("propagation", f"along {along}" if along else "none: one plane"))
    return lines + [("note", text) for text in facts["problems"]]


def _named(axes: str, sizes: list[int]) -> str:
    return " ".join(f"{a}={n}" for a, n in zip(axes, sizes))


def _measured(values: dict[str, float], units: dict[str, str]) -> str:
    return " ".join(f"{a}={v:g}" + (f" {units[a]}" if a in units else "") for a, v in values.items())
