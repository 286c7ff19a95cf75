"""What a session was made with: image, axis, channels, window, model; kept as JSON in its directory."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sam2_core.errors import InputError
from sam2_core.volume.files import replacing
from sam2_core.volume.session_state import Grid
from sam2_core.volume.volume import Volume

FORMAT = "napari-sam2 session 1"
FILE = "session.json"


@dataclass(frozen=True)
class Settings:
    """Everything that decides a session's results, beside its prompts.

    `image` is None for an image in memory; `extra` is the caller's own and is only kept.
    """

    image: str | None
    labels: str
    axes: str | None = None
    level: int = 0
    axis: str | None = None
    channel: int | tuple[int, ...] | None = None
    window: tuple[float, float] | None = None
    model: str = "cells-nano"
    config: str | None = None
    image_size: int | None = None
    extra: dict[str, Any] | None = None

    def save(self, directory: Path) -> None:
        """Write the file of a new session."""
        with replacing(directory / FILE, overwrite=True) as partial:
            partial.write_text(json.dumps({"format": FORMAT, **asdict(self)}, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, directory: Path) -> Settings:
        """Read the file of a session.

        Raises
        ------
        InputError
            If the directory holds no session of this version.
        """
        path = directory / FILE
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            if data.pop("format") != FORMAT:
                raise InputError(f"{path} is of another version: expected {FORMAT!r}")
            for name in ("channel", "window"):
                if isinstance(data.get(name), list):
                    data[name] = tuple(data[name])
            return cls(**data)
        except FileNotFoundError:
            raise InputError(f"{directory} holds no session: give the directory of one") from None
        except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{path} is damaged ({error}): restore it from a copy") from None


def grid_of(volume: Volume, axis: str | None = None) -> Grid:
    """The planes of a volume across an axis, by default z, else t.

    Raises
    ------
    InputError
        If the volume cannot be propagated along the axis.
    """
    axis = volume.default_axis() if axis is None else axis
    across = volume.plane_axes(axis)
    axes = tuple((a, volume.size(a)) for a in volume.axes if a not in across and a != "c")
    return Grid(axes, (volume.size(across[0]), volume.size(across[1])), axis)
