"""The user's own checkpoints under names: `add_model` and `remove_model`. `table` finds them.

CACHE/own/NAME/model.safetensors has the tensors and the text of their config, model.json what is known about the file,
model.md the model card, where there was one. A folder appears and goes as a whole.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from sam2_core.errors import InputError
from sam2_core.weights.checkpoints import (
    SUFFIXES,
    check_state_dict,
    config_for,
    embedded_metadata,
    load_state_dict,
    save_safetensors,
)
from sam2_core.weights.download import sha256_of
from sam2_core.weights.table import CARD, FACTS, MODEL, Checkpoint, official, own_checkpoints, own_dir

_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,98}[A-Za-z0-9])?")


def add_model(file: str | Path, name: str, config: str | Path | None = None, force: bool = False) -> Checkpoint:
    """Copy a checkpoint into the models' folder, so that `load_model` and ``--model`` know it by a name.

    Parameters
    ----------
    file : str or Path
        A .pt, .pth or .safetensors file. A model card `model.md` beside it is copied, too.
    name : str
        Letters, digits, ".", "_" and "-"; upper and lower case are alike.
    config : str or Path, optional
        The model's config, a YAML file or a name of a shipped one; by default that in the file, or the one that the
        tensors' shapes tell.
    force : bool
        Replace an own model of that name.

    Returns
    -------
    Checkpoint
        As `find_checkpoint` gives it from now on.

    Raises
    ------
    InputError
        The name cannot be one, is an official model's or taken; the file is no checkpoint that loads safely, or does
        not fit the config; or the models' folder cannot be written.
    """
    check_name(name)
    file = Path(file).expanduser()
    from sam2_core.build import build_model
    from sam2_core.configs import config_text, load_config

    state = load_state_dict(file)
    metadata = embedded_metadata(file)
    chosen = config or metadata.get("config") or config_for(state)
    # a file of one line is the text of a config, too, as long as its line has an end
    text = config_text(chosen).rstrip("\n") + "\n"
    check_state_dict(build_model(load_config(text)), state)
    card = file.with_name(CARD)
    facts = {
        "version": "2.1" if "no_obj_embed_spatial" in state else "2",
        "source": str(file.absolute()),
        "added": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    with _changing(name) as (taken, folder):
        if taken is not None and not force:
            raise InputError(f"you have a model {taken.name}: choose another name, or give --force to replace it")
        # copies, since tensors of one storage, as .pt files may have them, cannot be written as safetensors
        save_safetensors({k: v.clone() for k, v in state.items()}, folder / MODEL, {**metadata, "config": text})
        facts |= {"sha256": sha256_of(folder / MODEL)}
        (folder / FACTS).write_text(json.dumps(facts, indent=1), encoding="utf-8")
        if card.is_file():
            shutil.copyfile(card, folder / CARD)
        old = _set_aside(taken)
        os.replace(folder, own_dir() / name)
        _delete(old)
    return next(entry for entry in own_checkpoints() if entry.name == name)


def remove_model(name: str) -> Path:
    """Delete an own model; gives the folder that it was in.

    Raises
    ------
    InputError
        There is no own model of that name, or its folder cannot be written.
    """
    if (known := official(name)) is not None:
        where = "comes with the package" if known.bundled else f"is Meta's: to free the disk, delete {known.path}"
        raise InputError(f"{known.name} is no model of yours and is not removed: it {where}")
    with _changing(name) as (taken, _):
        if taken is None:
            own = ", ".join(entry.name for entry in own_checkpoints()) or "none"
            raise InputError(f"there is no model {name!r} of yours: of such there is {own}")
        _delete(_set_aside(taken))
    return taken


@contextmanager
def _changing(name: str) -> Iterator[tuple[Path | None, Path]]:
    """One change at a time: the folder of the own model of a name, if any, and a new one, which is gone afterwards."""
    from filelock import FileLock

    home = own_dir()
    folder = home / f".{os.getpid()}.part"
    try:
        home.mkdir(parents=True, exist_ok=True)
        with FileLock(home / ".lock"):
            _delete(folder)
            folder.mkdir()
            try:
                models = (f for f in home.iterdir() if f.is_dir() and not f.name.startswith("."))
                yield next((f for f in models if f.name.lower() == name.lower()), None), folder
            finally:
                _delete(folder)
    except OSError as error:
        raise InputError(
            f"cannot write to {home} ({error.strerror or error}): make room or give it write permission, or set "
            "SAM2_CACHE_DIR to another folder"
        ) from error


def _set_aside(taken: Path | None) -> Path | None:
    """Rename a model's folder, which is done in one step, to a hidden one that can be deleted."""
    if taken is None:
        return None
    hidden = own_dir() / f".{os.getpid()}.old"
    _delete(hidden)
    os.replace(taken, hidden)
    return hidden


def _delete(folder: Path | None) -> None:
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)


def check_name(name: str) -> None:
    """Check that a model of the user's may have a name.

    Raises
    ------
    InputError
        It is none, or that of an official model.
    """
    if not _NAME.fullmatch(name) or name.lower().endswith(SUFFIXES):
        raise InputError(
            f"{name!r} cannot name a model: use letters, digits, '.', '_' and '-', and no ending of a checkpoint file"
        )
    if (known := official(name)) is not None:
        raise InputError(f"{name} is the name of an official model ({known.name}): choose another")


def check_new_name(name: str) -> None:
    """Check that a new model can have a name.

    Raises
    ------
    InputError
        It cannot be a name, or there is a model of that name.
    """
    check_name(name)
    if any(name.lower() == c.name.lower() for c in own_checkpoints()):
        raise InputError(f"you have a model {name}: choose another name, or remove that one first")
