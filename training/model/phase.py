"""What changes in a model from phase to phase of a run: its input size, what learns, and what is kept in memory."""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from functools import partial

from torch.utils.checkpoint import checkpoint

from sam2_core.errors import InputError
from sam2_core.model.sam2 import SAM2Base


def recompute_activations(model: SAM2Base, again: bool) -> None:
    """Let the image encoder's blocks keep no inner values for the backward pass (Chen et al. 2016), or keep them."""
    for block in model.image_encoder.trunk.get_submodule("blocks").children():
        vars(block).pop("forward", None)
        if again:
            block.forward = partial(checkpoint, block.forward, use_reentrant=False)  # type: ignore[method-assign]


def set_trainable(model: SAM2Base, patterns: Sequence[str], trunk: bool = True) -> None:
    """Let the parameters whose names fit one of the patterns learn; those of the image encoder only with `trunk`.

    Raises
    ------
    InputError
        No name fits.
    """
    chosen = 0
    for name, parameter in model.named_parameters():
        fits = any(fnmatchcase(name, pattern) for pattern in patterns)
        chosen += fits
        parameter.requires_grad_(fits and (trunk or not name.startswith("image_encoder.")))
    if not chosen:
        raise InputError(f"trainable: no parameter of the model is called {' or '.join(patterns)}")


def set_input_size(model: SAM2Base, image_size: int) -> None:
    """Let a model work at another input size; no parameter depends on it."""
    grid = image_size // model.backbone_stride
    model.image_size = image_size
    model.sam_prompt_encoder.input_image_size = (image_size, image_size)
    model.sam_prompt_encoder.image_embedding_size = (grid, grid)
