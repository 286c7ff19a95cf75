"""Import the package `training` that belongs to this one: the PyPI package sam2 has another of the same name."""

from __future__ import annotations

import sys
from importlib import import_module, invalidate_caches
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType

import sam2_core
from sam2_core.errors import InputError, MissingDependencyError

PACKAGE = "training"


def import_training(module: str, purpose: str) -> ModuleType:
    """A module of our own `training`, whatever else goes by that name.

    Parameters
    ----------
    module : str
        As ``finetune``.
    purpose : str
        What it is needed for, as the end of "... is needed to".

    Raises
    ------
    InputError
        Another package of the name was imported before, or a dependency is missing.
    """
    _put_ours_first()
    try:
        return import_module(f"{PACKAGE}.{module}")
    except ImportError as error:
        if isinstance(error, ModuleNotFoundError) and error.name and error.name.partition(".")[0] != PACKAGE:
            raise MissingDependencyError(error.name, "train", purpose) from None
        place = Path(getattr(sys.modules.get(PACKAGE), "__path__", ["?"])[0])
        raise InputError(
            f"the package `{PACKAGE}` in {place} is not that of napari-sam2, which is needed to {purpose}: do it in a "
            f"process that has not imported the other one, or install napari-sam2 anew ({error})"
        ) from None


def _put_ours_first() -> None:
    """See to it that `import training` finds ours, here and in the processes that are started from here."""
    folder = Path(sam2_core.__file__).resolve().parent
    # where pyproject.toml puts it in a wheel; beside src/ in a clone
    home = next((home for home in (folder / "apart", folder.parents[1]) if (home / PACKAGE).is_dir()), None)
    if home is None or PACKAGE in sys.modules:
        return
    spec = PathFinder.find_spec(PACKAGE)
    if spec is None or spec.origin is None or Path(spec.origin).resolve().parents[1] != home:
        sys.path.insert(0, str(home))
        invalidate_caches()
