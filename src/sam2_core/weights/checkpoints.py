"""From a name or a file to the tensors of a model: `resolve`, `load_state_dict`, `config_for`, `check_state_dict`."""

from __future__ import annotations

import inspect
import os
import pickle
import re
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from sam2_core.errors import InputError
from sam2_core.weights.download import download
from sam2_core.weights.table import Checkpoint, find_checkpoint

if TYPE_CHECKING:
    from torch import Tensor, nn

SUFFIXES = (".pt", ".pth", ".safetensors")
PATCH = "image_encoder.trunk.patch_embed.proj.weight"
_NOT_SAM2 = f"the checkpoint is not one of SAM 2: it has no {PATCH}"
PREFIXES = ("module.", "model.", "_orig_mod.")  # what wrappers put before every key of a state dict


@dataclass(frozen=True)
class ResolvedCheckpoint:
    """A checkpoint file that is there.

    Attributes
    ----------
    path : Path
        The file.
    config : str or None
        The name of its model config, or the config's YAML text (which has line breaks) when the file carries it;
        None when only the tensors' shapes can tell (see `config_for`).
    checkpoint : Checkpoint or None
        Its entry in the table, when it was asked for by name.
    """

    path: Path
    config: str | None
    checkpoint: Checkpoint | None = None


def resolve(name_or_path: str | Path, progress: bool = True) -> ResolvedCheckpoint:
    """Find a checkpoint by name, downloading it when it is not there yet, or by path.

    Parameters
    ----------
    name_or_path : str or Path
        A name or alias of the table (``sam2.1_hiera_tiny``, ``facebook/sam2.1-hiera-tiny``, ``cells-nano``), a name
        that the user gave (``sam2 models add``), or a .pt, .pth or .safetensors file.
    progress : bool
        Show a progress bar while downloading.

    Raises
    ------
    InputError
        There is no such name and no such file, or the download fails.
    """
    path = Path(name_or_path).expanduser()
    if path.is_file():
        return ResolvedCheckpoint(path, embedded_config(path))
    if path.suffix.lower() in SUFFIXES:
        raise InputError(f"there is no file {path}: give a checkpoint that exists, or a name of sam2 models list")
    try:
        checkpoint = find_checkpoint(str(name_or_path))
    except InputError:
        if path.is_dir():
            raise InputError(f"{path} is a folder: give the checkpoint file in it") from None
        raise
    path = download(checkpoint, progress)
    return ResolvedCheckpoint(path, checkpoint.config or embedded_config(path), checkpoint)


def load_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Read the tensors of a checkpoint, without running any code that may be in it.

    Parameters
    ----------
    path : str or Path
        A .safetensors file, or one written by ``torch.save``: a state dict, or one under ``model`` or
        ``state_dict``, as training scripts save it.

    Returns
    -------
    dict of str to torch.Tensor
        In the file's own precision, on the CPU; mapped from the file where its format allows.

    Raises
    ------
    InputError
        The file is missing, truncated, no checkpoint, or holds Python objects other than tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"there is no checkpoint file {path}")
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty: download or save the checkpoint again")
    try:
        content = _read_safetensors(path) if path.suffix.lower() == ".safetensors" else _read_torch(path)
    except PermissionError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    return _tensors(content, path)


def embedded_config(path: str | Path) -> str | None:
    """The config's YAML text that a .safetensors file carries in its metadata, if any."""
    return embedded_metadata(path).get("config")


def embedded_metadata(path: str | Path) -> dict[str, str]:
    """The texts that a .safetensors file carries beside its tensors; empty for other files."""
    path = Path(path)
    return (_safetensors_metadata(path) or {}) if path.suffix.lower() == ".safetensors" else {}


def save_safetensors(state: Mapping[str, Tensor], path: str | Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write a state dict as .safetensors: beside its place first, then renamed.

    Parameters
    ----------
    state : mapping of str to torch.Tensor
        The tensors, on any device.
    path : str or Path
        Where to write; an existing file is replaced.
    metadata : mapping of str to str, optional
        Kept in the file; under ``config``, the text of the model's YAML, which `resolve` gives back.
    """
    from safetensors.torch import save_file

    path = Path(path)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    tensors = {key: tensor.detach().cpu().contiguous() for key, tensor in state.items()}
    try:
        save_file(tensors, part, metadata=dict(metadata or {}))
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def config_for(state: Mapping[str, Tensor]) -> str:
    """The shipped config whose model has the shapes of a state dict.

    Parameters
    ----------
    state : mapping of str to torch.Tensor
        As `load_state_dict` gives it.

    Returns
    -------
    str
        A config's name, such as ``configs/sam2.1/sam2.1_hiera_t.yaml``. Shapes do not tell the image size, so it is
        that of the config.

    Raises
    ------
    InputError
        The tensors are not those of a SAM 2 model, or of none that a shipped config describes.
    """
    features = _features_of_state(state)
    if features is None:
        raise InputError(_NOT_SAM2)
    for name, known in _features_of_configs().items():
        if known == features:
            return name
    raise InputError(
        f"no shipped config fits the checkpoint ({features.embed_dim} channels, {features.blocks} blocks in its image "
        "encoder): give the model's own YAML as config"
    )


def check_state_dict(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Make sure that a state dict has exactly a model's keys and shapes.

    Raises
    ------
    InputError
        It has not; the sentence names the first difference and, where it can be told, the config that would fit.
    """
    expected = model.state_dict()
    if PATCH in expected and PATCH not in state:
        raise InputError(_NOT_SAM2)
    for key, tensor in state.items():
        if key in expected and tensor.shape != expected[key].shape:
            raise InputError(
                f"the checkpoint does not fit the model: {key} is {tuple(tensor.shape)} in the checkpoint and "
                f"{tuple(expected[key].shape)} in the model{_advice(state, expected)}"
            )
    missing = [key for key in expected if key not in state]
    unexpected = [key for key in state if key not in expected]
    if missing or unexpected:
        parts = [_some("lacks", missing)] if missing else []
        parts += [_some("has unknown", unexpected)] if unexpected else []
        raise InputError(f"the checkpoint does not fit the model: it {' and '.join(parts)}{_advice(state, expected)}")


class _Features(NamedTuple):
    """What tells the members of the family apart."""

    embed_dim: int
    blocks: int
    no_obj_embed_spatial: bool
    obj_ptr_tpos_proj: bool


def _features_of_state(state: Mapping[str, Tensor]) -> _Features | None:
    if PATCH not in state:
        return None
    blocks = {key.split(".")[3] for key in state if key.startswith("image_encoder.trunk.blocks.")}
    return _Features(
        state[PATCH].shape[0],
        len(blocks),
        "no_obj_embed_spatial" in state,
        "obj_ptr_tpos_proj.weight" in state,
    )


@cache
def _features_of_configs() -> dict[str, _Features]:
    from sam2_core.configs import config_names, load_config
    from sam2_core.model.hiera import Hiera

    defaults = {name: parameter.default for name, parameter in inspect.signature(Hiera).parameters.items()}
    features = {}
    for name in config_names():
        model = load_config(name)["model"]
        trunk = defaults | model["image_encoder"]["trunk"]
        features[f"configs/{name}"] = _Features(
            trunk["embed_dim"],
            sum(trunk["stages"]),
            bool(model.get("no_obj_embed_spatial")),
            bool(model.get("proj_tpos_enc_in_obj_ptrs")),
        )
    return features


def _advice(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> str:
    """The end of a sentence about a misfit: which config the checkpoint is for, if it can be told."""
    try:
        theirs = config_for(state)
    except InputError as error:
        return f"; {error}"
    return "" if _features_of_state(state) == _features_of_state(expected) else f"; use the config {theirs}"


def _some(verb: str, keys: list[str]) -> str:
    rest = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
    return f"{verb} {', '.join(keys[:3])}{rest}"


def _tensors(content: Any, path: Path) -> dict[str, Tensor]:
    """The state dict in what a checkpoint file holds."""
    import torch

    for key in ("model", "state_dict"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if (
        not isinstance(content, Mapping)
        or not content
        or not all(isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in content.items())
    ):
        raise InputError(f"{path} holds no state dict: save one with torch.save({{'model': model.state_dict()}}, path)")
    state = dict(content)
    while PATCH not in state and (
        prefix := next((p for p in PREFIXES if all(key.startswith(p) for key in state)), None)
    ):
        state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def _read_torch(path: Path) -> Any:
    import torch

    is_zip = zipfile.is_zipfile(path)
    if not is_zip and path.open("rb").read(2) == b"PK":  # a zip archive's index is at its end
        raise InputError(f"{path} is truncated: download or copy it again")
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except pickle.UnpicklingError as error:
        if (found := re.search(r"GLOBAL ([\w.]+)", str(error))) is None:
            raise _not_a_checkpoint(path) from error
        raise InputError(
            f"{path} holds Python objects other than tensors ({found[1]}), which could run code, and was not loaded: "
            "save its state dict alone with torch.save({'model': model.state_dict()}, path)"
        ) from error
    # a legacy file that is cut short fails wherever its pickle or its header ends
    except (RuntimeError, EOFError, ValueError, LookupError, AttributeError, TypeError, struct.error) as error:
        raise _not_a_checkpoint(path) from error


def _read_safetensors(path: Path) -> Any:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise _bad_safetensors(path, error) from error


def _safetensors_metadata(path: Path) -> dict[str, str] | None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata()
    except SafetensorError as error:
        raise _bad_safetensors(path, error) from error


def _not_a_checkpoint(path: Path) -> InputError:
    return InputError(f"{path} is not a checkpoint, or is damaged: give a file written by torch.save")


def _bad_safetensors(path: Path, error: Exception) -> InputError:
    return InputError(f"{path} is truncated or no safetensors file ({error}): download or save it again")
