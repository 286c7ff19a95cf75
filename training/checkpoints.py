"""Checkpoints of a run: whole, so that a run may go on with another number of processes, in shards or not."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from torch.distributed.tensor import DTensor, distribute_tensor

from sam2_core.errors import InputError
from sam2_core.volume.files import disk_errors


def save_beside(state: dict[str, Any], path: Path) -> None:
    """Write a checkpoint so that the one that is there stays until the new one is whole.

    Raises
    ------
    InputError
        The disk is full or read-only.
    """
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        with disk_errors(path):
            try:
                torch.save(state, temporary)
            except RuntimeError as error:  # torch's writer says so of a full disk
                raise OSError(errno.ENOSPC, str(error).splitlines()[0]) from error
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """What `save_beside` wrote.

    Raises
    ------
    InputError
        The file is damaged.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch has several, of a file that was cut off or written over
        reason = str(error).partition(". ")[0].splitlines()[0]
        raise InputError(f"{path} is damaged ({reason}): put a copy back, or delete it to begin anew") from error


@contextmanager
def of_this_run(path: Path) -> Iterator[None]:
    """Say that a checkpoint is another run's where its tensors do not fit the model or the optimizers."""
    try:
        yield
    except (RuntimeError, ValueError, KeyError, IndexError) as error:
        raise InputError(
            f"{path} is of a run with another model or other settings: give those it was begun with, or another folder"
        ) from error


def gathered(state: Any, keep: bool) -> Any:
    """A state dict with whole tensors on the CPU; all processes call it, and those that do not `keep` it get None."""
    if isinstance(state, DTensor):
        whole = state.full_tensor()
        return whole.cpu() if keep else None
    if isinstance(state, dict):
        values = {key: gathered(value, keep) for key, value in state.items()}
        return values if keep else None
    if isinstance(state, list):
        items = [gathered(value, keep) for value in state]
        return items if keep else None
    return state if keep else None


def load_weights(module: nn.Module, whole: dict[str, torch.Tensor]) -> None:
    """Load a whole state dict into a module, sharded or not."""
    own = module.state_dict()
    module.load_state_dict({name: _as(own[name], value) if name in own else value for name, value in whole.items()})


def load_optimizer(optimizer: torch.optim.Optimizer, whole: dict[str, Any]) -> None:
    """Load a whole state dict into an optimizer of parameters, sharded or not."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    kept = {
        number: {
            name: _as(parameters[number], value) if value.shape == parameters[number].shape else value
            for name, value in values.items()
        }
        for number, values in whole["state"].items()
    }
    optimizer.load_state_dict({**whole, "state": kept})


def _as(like: torch.Tensor, whole: torch.Tensor) -> torch.Tensor:
    """A tensor that all processes have, or the shard of it that belongs here."""
    if not isinstance(like, DTensor):
        return whole
    there = whole.to(like.device)
    return cast(torch.Tensor, distribute_tensor(there, like.device_mesh, like.placements, src_data_rank=None))
