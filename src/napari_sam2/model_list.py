"""What the models of this machine are, which is used by default, and what it takes to change them; without Qt.

The list is read anew from disk whenever it is asked for, so nothing has to be told that it changed. Downloads, new
models and removals are commands of `sam2 models`, run as processes: they can be cancelled at any moment, and what
they compute does not disturb the window.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from sam2_core.errors import InputError
from sam2_core.volume.files import write_json
from sam2_core.weights.table import CHECKPOINTS, Checkpoint, find_checkpoint, own_checkpoints

BUNDLED = "cells-nano"
AUTO = "auto"
PROGRAM = (sys.executable, "-m", "sam2_core")
"""The command line, in the Python that runs here."""


@dataclass(frozen=True)
class Defaults:
    """What a session starts with: the name of a model, and auto, cpu, cuda or mps."""

    model: str = BUNDLED
    device: str = AUTO


def models() -> list[Checkpoint]:
    """All models that have names: the bundled one, Meta's, the user's own."""
    return [*CHECKPOINTS, *own_checkpoints()]


def usable_models() -> list[str]:
    """The names of those whose files are here."""
    return [c.name for c in models() if c.path.is_file()]


def devices() -> dict[str, str]:
    """Devices that there may be on this machine, and what to call them; whether they are there, torch knows."""
    graphics = {"mps": "Apple GPU (mps)"} if sys.platform == "darwin" else {"cuda": "NVIDIA GPU (cuda)"}
    return {AUTO: "Automatic", "cpu": "CPU", **graphics}


def read_defaults() -> Defaults:
    """The user's choice; in place of a model that is gone, or a device that is none, the built-in default."""
    try:
        stored = json.loads(_settings().read_text(encoding="utf-8"))
        model, device = str(stored["model"]), str(stored["device"])
    except (OSError, ValueError, LookupError, TypeError):
        return Defaults()
    return Defaults(model if model in usable_models() else BUNDLED, device if device in devices() else AUTO)


def write_defaults(defaults: Defaults) -> None:
    """Keep the user's choice for the next start.

    Raises
    ------
    InputError
        The settings cannot be written.
    """
    path = _settings()
    try:
        write_json(path, asdict(defaults))
    except OSError as error:
        raise InputError(
            f"the settings cannot be kept in {path} ({error.strerror or error}): make room there"
        ) from error


def size_text(checkpoint: Checkpoint) -> str:
    """The size of a model's file, as "156 MB"."""
    return "–" if checkpoint.size is None else f"{checkpoint.size / 1e6:.0f} MB"


def licence_text(checkpoint: Checkpoint) -> str:
    """The licence of a model's weights."""
    return "licence not stated" if checkpoint.licence == "-" else checkpoint.licence


def downloaded(checkpoint: Checkpoint) -> int:
    """How many bytes of a model have come so far."""
    for file in (checkpoint.path, checkpoint.part):
        try:
            return file.stat().st_size
        except FileNotFoundError:  # also the moment in which the one becomes the other
            continue
    return 0


def card_text(checkpoint: Checkpoint) -> str:
    """What is known about a model, and its model card if it has one, as Markdown."""
    facts = {
        "SAM version": checkpoint.version,
        "Licence": licence_text(checkpoint),
        "Size": size_text(checkpoint),
        "State": checkpoint.state,
        "Also called": ", ".join(checkpoint.aliases),
        "Source": checkpoint.url or checkpoint.source or "part of this package",
        "File": str(checkpoint.path) if checkpoint.path.is_file() else "",
    }
    text = "\n".join(f"- **{key}:** {value}" for key, value in facts.items() if value)
    card = checkpoint.card.read_text(encoding="utf-8", errors="replace").strip() if checkpoint.card.is_file() else ""
    return f"# {checkpoint.name}\n\n{text}\n" if not card else f"{text}\n\n{card}\n"


def suggested_name(file: Path) -> str:
    """A name that a model from a file could have: the file's own, or its folder's if it says only "model"."""
    stem = file.stem if file.stem.lower() not in ("model", "checkpoint") else file.parent.name
    name = "".join(ch if ch.isascii() and (ch.isalnum() or ch in "._-") else "-" for ch in stem).strip("._-")
    return name or "my-model"


def download_command(name: str) -> list[str]:
    """Downloads a model, or goes on with one that was cancelled."""
    return _sam2("models", "download", find_checkpoint(name).name)


def add_command(file: Path, name: str) -> list[str]:
    """Checks a file and copies it to the models under a name."""
    return _sam2("models", "add", str(file), "--name", name)


def remove_command(name: str) -> list[str]:
    """Deletes a model of the user's own."""
    return _sam2("models", "remove", name)


def failure(output: str) -> str:
    """The sentence in which a command says why it failed, out of what it wrote to standard error."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    own = [line.removeprefix("sam2: ") for line in lines if line.startswith("sam2: ")]
    sentence = own[-1] if own else lines[-1] if lines else "the command ended without a word: try again"
    return sentence[0].upper() + sentence[1:]


def _sam2(*arguments: str) -> list[str]:
    return [*PROGRAM, *arguments]


def _settings() -> Path:
    from platformdirs import user_config_path

    return user_config_path("napari-sam2", appauthor=False) / "settings.json"
