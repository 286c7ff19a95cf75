"""Changes to the settings of a run, as KEY=VALUE."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from pydantic import TypeAdapter, ValidationError

from sam2_core.errors import InputError, MissingDependencyError
from training.settings import TrainSettings


def override(settings: TrainSettings, changes: Sequence[str]) -> TrainSettings:
    """The settings with some of them changed.

    Parameters
    ----------
    settings : TrainSettings
    changes : sequence of str
        As ``optimizer.weight_decay=0.1`` or ``phases.0.frames=4``: places in the settings, and values in YAML.

    Raises
    ------
    InputError
        A change is malformed, its key is no setting, or the value is of the wrong kind.
    """
    if not changes:
        return settings
    try:
        from omegaconf import OmegaConf
        from omegaconf.errors import OmegaConfBaseException
    except ImportError as error:
        raise MissingDependencyError("hydra-core", "train", "change settings of a run") from error
    config = OmegaConf.create(asdict(settings))
    OmegaConf.set_struct(config, True)
    OmegaConf.set_struct(config.optimizer.scales, False)  # its keys are patterns of the user's
    for change in changes:
        key, equals, _ = change.partition("=")
        if not equals or not key:
            raise InputError(f"{change!r} is no change to the settings: give KEY=VALUE as optimizer.weight_decay=0.1")
        try:
            config.merge_with_dotlist([change])
        except (OmegaConfBaseException, AttributeError, TypeError, ValueError):
            raise InputError(f"{key} is no setting of a run{_known(asdict(settings), key)}") from None
    try:
        return TypeAdapter(TrainSettings).validate_python(OmegaConf.to_container(config))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or ", ".join(change.partition("=")[0] for change in changes)
        raise InputError(f"the setting {place} has a wrong value: {first['msg']}") from None


def _known(settings: Any, key: str) -> str:
    """What there is at the deepest place of a key that exists."""
    place: list[str] = []
    for part in key.split("."):
        if isinstance(settings, dict) and part in settings:
            settings = settings[part]
        elif isinstance(settings, list) and part.isdecimal() and int(part) < len(settings):
            settings = settings[int(part)]
        else:
            break
        place.append(part)
    where = ".".join(place) or "it"
    if isinstance(settings, dict):
        return f": {where} has {', '.join(settings)}"
    return f": {where} has {len(settings)}, from 0" if isinstance(settings, list) else f": {where} has no parts"
