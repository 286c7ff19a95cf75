"""Import the package `training` that belongs to this one: the PyPI package sam2 has another of the same name."""

from __future__ import annotations

import base64
import hashlib
import sys
from collections.abc import Iterator
from importlib import import_module, invalidate_caches
from importlib.machinery import PathFinder
from importlib.metadata import Distribution, PackageNotFoundError, PackagePath, distribution, distributions
from pathlib import Path
from types import ModuleType

import sam2_core
from sam2_core.errors import InputError, MissingDependencyError

PACKAGE, OURS = "training", "napari-sam2"


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
        Files of another package have replaced those of ours, or a dependency is missing.
    """
    _put_ours_first()
    try:
        return import_module(f"{PACKAGE}.{module}")
    except ImportError as error:
        raise _explained(error, purpose) from None


def _put_ours_first() -> None:
    """See to it that `import training` finds ours, here and in the processes that are started from here."""
    folder = Path(sam2_core.__file__).resolve().parent
    # beside the package in a wheel, beside src/ in a clone
    home = next((home for home in (folder.parent, folder.parents[1]) if (home / PACKAGE).is_dir()), None)
    if home is None or PACKAGE in sys.modules:
        return
    spec = PathFinder.find_spec(PACKAGE)
    if spec is None or spec.origin is None or Path(spec.origin).resolve().parents[1] != home:
        sys.path.insert(0, str(home))
        invalidate_caches()


def _explained(error: ImportError, purpose: str) -> InputError:
    place = Path(getattr(sys.modules.get(PACKAGE), "__path__", ["?"])[0])
    others = " and ".join(sorted(_others(place)))
    if _is_mixed():
        if others:
            return InputError(
                f"{others} has put files of its own package `{PACKAGE}` in the place of those of {OURS}: give {others} "
                f"another environment: pip uninstall {others}, then pip install --force-reinstall --no-deps {OURS}"
            )
        return InputError(
            f"files of {OURS} in {place} are missing or changed, as when another package with a `{PACKAGE}` was "
            f"uninstalled: run pip install --force-reinstall --no-deps {OURS}"
        )
    if isinstance(error, ModuleNotFoundError) and error.name and error.name.partition(".")[0] != PACKAGE:
        return MissingDependencyError(error.name, "train", purpose)
    whose = f"that of {others}, " if others else ""
    return InputError(
        f"the package `{PACKAGE}` in {place} is {whose}not that of {OURS}, which is needed to {purpose}: uninstall it "
        f"or use another environment ({error})"
    )


def _is_mixed() -> bool:
    """Whether a file of `training` is gone or not as it was installed; a clone's are as its owner likes."""
    try:
        ours = distribution(OURS)
    except PackageNotFoundError:
        return False
    return any(not _is_as_installed(file) for file in _training_files(ours))


def _is_as_installed(file: PackagePath) -> bool:
    if file.hash is None:
        return True
    path = Path(str(file.locate()))
    if not path.is_file():
        return False
    digest = hashlib.new(file.hash.mode, path.read_bytes()).digest()
    return base64.urlsafe_b64encode(digest).decode().rstrip("=") == file.hash.value


def _others(place: Path) -> Iterator[str]:
    """Names of other installed packages that have files in this folder."""
    for other in distributions():
        if other.name != OURS and any(Path(str(file.locate())).parent == place for file in _training_files(other)):
            yield other.name


def _training_files(of: Distribution) -> list[PackagePath]:
    return [file for file in of.files or () if file.parts[0] == PACKAGE and file.suffix == ".py"]
