"""Where the sessions of images lie, and which there are: what a killed napari left is found again here."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import platformdirs

from sam2_core.errors import InputError
from sam2_core.volume import journal as journals
from sam2_core.volume.session_settings import Settings
from sam2_core.volume.session_store import JOURNAL

HOME = "SAM2_SESSIONS"
"""Environment variable that names another folder."""


@dataclass(frozen=True)
class SavedSession:
    """A session that was begun earlier.

    Attributes
    ----------
    directory : Path
    when : datetime
        Of its last act, local time.
    acts : int
        How many there are, those that were undone included; 0 of one in which nothing was done.
    settings : Settings
    """

    directory: Path
    when: datetime
    acts: int
    settings: Settings


def sessions_home() -> Path:
    """The folder of all sessions: what SAM2_SESSIONS names, else one for the user's data."""
    named = os.environ.get(HOME)
    return Path(named).expanduser() if named else platformdirs.user_data_path("napari-sam2") / "sessions"


def saved_sessions(identity: str) -> list[SavedSession]:
    """The sessions of an image in which something was done, the latest first; damaged ones are left out."""
    found = []
    for directory in sessions_home().glob(f"{identity}-*"):
        try:
            settings = Settings.load(directory)
            journal = directory / JOURNAL
            acts = sum(1 for _, record in journals.read(journal) if record["act"] not in ("flushed", "plane", "leg"))
            when = datetime.fromtimestamp(journal.stat().st_mtime)
        except (InputError, OSError):
            continue
        if acts:
            found.append(SavedSession(directory, when, acts, settings))
    return sorted(found, key=lambda s: s.when, reverse=True)


def new_directory(identity: str) -> Path:
    """A folder for a new session of an image; it is not made yet."""
    stem = sessions_home() / f"{identity}-{datetime.now():%Y%m%d-%H%M%S}"
    numbered = (stem.with_name(f"{stem.name}-{k}") for k in range(2, 1000))
    return stem if not stem.exists() else next(p for p in numbered if not p.exists())
