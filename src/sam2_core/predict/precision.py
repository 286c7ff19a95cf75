"""The context predictions run in: no gradients, and autocast where it was asked for."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Literal

import torch

Precision = Literal["float32", "bfloat16"]


@contextmanager
def inference(device: torch.device, precision: Precision) -> Iterator[None]:
    """Run a block without gradients, with bfloat16 autocast if `precision` says so."""
    autocast = torch.autocast(device.type, torch.bfloat16) if precision == "bfloat16" else nullcontext()
    with torch.inference_mode(), autocast:
        yield
