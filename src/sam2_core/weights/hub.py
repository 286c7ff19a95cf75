"""Checkpoints from the Hugging Face hub, by Meta's model ids."""

from __future__ import annotations

from pathlib import Path

from sam2_core.errors import InputError, MissingDependencyError
from sam2_core.weights.table import CHECKPOINTS


def download_from_hub(model_id: str) -> Path:
    """Fetch one of Meta's checkpoints through the hub's own cache.

    Parameters
    ----------
    model_id : str
        Such as ``facebook/sam2.1-hiera-tiny``.

    Raises
    ------
    InputError
        The id is not one of Meta's eight, or the hub cannot be reached.
    MissingDependencyError
        The package huggingface_hub is not installed.
    """
    filenames = {entry.hub_id: entry.filename for entry in CHECKPOINTS if entry.hub_id is not None}
    if model_id not in filenames:
        raise InputError(f"there is no SAM 2 model {model_id!r} on the hub: give one of {', '.join(filenames)}")
    try:
        from huggingface_hub import hf_hub_download
    except ModuleNotFoundError as error:
        raise MissingDependencyError("huggingface_hub", "hf", "download from the Hugging Face hub") from error
    try:
        return Path(hf_hub_download(repo_id=model_id, filename=filenames[model_id]))
    except (OSError, ValueError) as error:  # the hub's errors derive from these
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"cannot fetch {model_id} from the Hugging Face hub ({reason}): check the network, or load "
            f"{filenames[model_id].removesuffix('.pt')}, which comes from Meta's server"
        ) from error
