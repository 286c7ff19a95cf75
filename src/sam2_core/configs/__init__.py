"""Model configs: YAML files in Meta's layout, found by name or path, changed by overrides."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from sam2_core.errors import InputError

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class OwnSettings:
    """What a config says to this implementation alone, in its part `napari_sam2`; the reference does not read it.

    Attributes
    ----------
    boxes_as_masks : bool
        See `sam2_core.model.prompt_encoder.PromptEncoder`.
    keep_to_prompts : bool
        Cut masks at their boxes, and drop the pieces of a mask that no positive click is on.
    pred_iou_thresh, stability_score_thresh : float, optional
        Thresholds of automatic masks that suit the scores the model gives; without, those of Meta's models.
    """

    boxes_as_masks: bool = False
    keep_to_prompts: bool = False
    pred_iou_thresh: float | None = None
    stability_score_thresh: float | None = None


def own_settings(config: Mapping[str, Any]) -> OwnSettings:
    """The part `napari_sam2` of a config's content.

    Raises
    ------
    InputError
        It has an unknown key.
    """
    given = dict(config.get("napari_sam2") or {})
    known = [field.name for field in fields(OwnSettings)]
    for key in given:
        if key not in known:
            raise InputError(f"the config has an unknown key napari_sam2.{key}: there are {', '.join(known)}")
    return OwnSettings(**given)


def config_names() -> list[str]:
    """Names of the configs that ship with the package, such as ``sam2.1/sam2.1_hiera_t.yaml``."""
    return sorted(path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("*.yaml"))


def find_config(name_or_path: str | Path) -> Path:
    """The file of a config.

    Parameters
    ----------
    name_or_path : str or Path
        A YAML file; or a shipped config by any of its names, as in ``configs/sam2.1/sam2.1_hiera_t.yaml``,
        ``sam2.1_hiera_t.yaml`` or ``sam2.1_hiera_t``.

    Raises
    ------
    InputError
        Nothing of that name exists.
    """
    path = Path(name_or_path)
    if path.is_file():
        return path
    wanted = path.as_posix().removeprefix("configs/").removesuffix(".yaml")
    for known in config_names():
        stem = known.removesuffix(".yaml")
        if wanted in (stem, stem.rsplit("/", 1)[-1]):
            return FOLDER / known
    raise InputError(
        f"there is no config {str(name_or_path)!r}: give a YAML file or one of {', '.join(config_names())}"
    )


def config_text(source: str | Path) -> str:
    """The text of a config: of a name or path (see `find_config`), or the text itself, which has several lines.

    Raises
    ------
    InputError
        Nothing of that name exists.
    """
    if isinstance(source, str) and "\n" in source:
        return source
    return find_config(source).read_text(encoding="utf-8")


def load_config(source: str | Path | Mapping[str, Any], overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Read a config and apply overrides.

    Parameters
    ----------
    source : str, Path or mapping
        A name or path (see `find_config`), the text of a YAML file, or its content.
    overrides : sequence of str
        Such as ``model.image_size=256``; a leading ``++`` or ``+`` is allowed and changes nothing.

    Raises
    ------
    InputError
        The file is no YAML mapping with a part ``model``, or an override is malformed.
    """
    if isinstance(source, Mapping):
        config = _copy(source)
    else:
        text = config_text(source)
        try:
            config = yaml.load(text, Loader=_Loader)
        except yaml.YAMLError as error:
            place = "the config text" if text == source else str(source)
            raise InputError(f"{place} is not a YAML file: {str(error).splitlines()[0]}") from error
    if not isinstance(config, dict) or not isinstance(config.get("model"), dict):
        raise InputError(
            f"the config {_title(source)} has no part 'model': it must be laid out as a SAM 2 model config"
        )
    for override in overrides:
        _override(config, override)
    return config


class _Loader(yaml.SafeLoader):
    """YAML 1.1 takes 1e-6 for a string; configs mean the number."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(?:\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def _override(config: dict[str, Any], override: str) -> None:
    key, equals, value = override.lstrip("+").partition("=")
    if not equals or not key:
        raise InputError(f"the override {override!r} must look like model.image_size=512")
    *parents, last = key.split(".")
    node = config
    for parent in parents:
        child = node.get(parent)
        if not isinstance(child, dict):
            child = node[parent] = {}
        node = child
    node[last] = yaml.load(value, Loader=_Loader)


def _copy(node: Any) -> Any:
    if isinstance(node, Mapping):
        return {key: _copy(value) for key, value in node.items()}
    return [_copy(value) for value in node] if isinstance(node, list | tuple) else node


def _title(source: object) -> str:
    return repr(str(source)) if isinstance(source, str | Path) and "\n" not in str(source) else "given"
