"""What is said to the user of an exception."""

from __future__ import annotations

from sam2_core.errors import InputError

NO_MEMORY = (
    "The GPU has no memory left for this. What was done before is saved: continue on the CPU, or close what else uses"
    " the GPU and try again."
)


def sentence(error: Exception) -> str:
    """An exception in words: as it is if it was meant for the user, else with its kind."""
    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, MemoryError):
        return "There is no memory left for this: close other programs, or choose a smaller model."
    return f"{type(error).__name__}: {error}"


def is_out_of_gpu_memory(error: Exception) -> bool:
    """Whether a GPU has no memory left, whichever library says so."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    return "OutOfMemoryError" in kinds or ("RuntimeError" in kinds and "out of memory" in str(error).lower())
