"""The planes on which the user says that every object is labelled; kept in the session's folder."""

from __future__ import annotations

import json
from pathlib import Path

from sam2_core.volume.files import write_json
from sam2_core.volume.session_state import Grid, Plane

FILE = "complete-planes.json"


class CompletePlanes:
    """What a session's folder says of its planes.

    Parameters
    ----------
    directory : Path
        Of the session.
    grid : Grid
        Planes that it does not have are left out.
    """

    def __init__(self, directory: Path, grid: Grid) -> None:
        self._path = directory / FILE
        self._grid = grid
        self._planes: set[Plane] = set()
        try:
            for frame in json.loads(self._path.read_text(encoding="utf-8")):
                self._planes.add(grid.plane(frame))
        except (OSError, ValueError, TypeError, AttributeError):  # none yet, or not to be read: nothing is complete
            self._planes.clear()

    def __contains__(self, plane: Plane) -> bool:
        return plane in self._planes

    def __len__(self) -> int:
        return len(self._planes)

    def frames(self) -> list[int | dict[str, int]]:
        """The planes, in order, as prompts name them."""
        return [self._grid.name(plane) for plane in sorted(self._planes)]

    def mark(self, plane: Plane, complete: bool) -> None:
        """Say of a plane that it is complete, or not.

        Raises
        ------
        InputError
            If the disk cannot be written.
        """
        (self._planes.add if complete else self._planes.discard)(plane)
        write_json(self._path, self.frames())
