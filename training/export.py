"""Turn a training run into a checkpoint: ``python -m training.export RUN/last.pt OUT.safetensors --config CONFIG``."""

import argparse
import sys
from pathlib import Path

import torch

from sam2_core.build import build_model
from sam2_core.configs import config_text, load_config
from sam2_core.errors import InputError
from sam2_core.weights.checkpoints import check_state_dict, save_safetensors


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="last.pt of a run")
    parser.add_argument("out", type=Path, help="the .safetensors file to write")
    parser.add_argument("--config", required=True, help="the model's config; it is kept in the file")
    parser.add_argument("--last", action="store_true", help="the last weights instead of their average")
    options = parser.parse_args(arguments)
    try:
        export(options.run, options.out, options.config, averaged=not options.last)
    except InputError as error:
        print(f"export: {error}", file=sys.stderr)
        return 2
    return 0


def export(run: Path, out: Path, config: str, averaged: bool = True) -> None:
    """Write the weights of a run as float16 safetensors, with the text of their config.

    Raises
    ------
    InputError
        The run is missing or was trained with another config.
    """
    try:
        state = torch.load(run, map_location="cpu", weights_only=True)
    except OSError as error:
        raise InputError(f"cannot read the run {run}: {error.strerror}") from error
    kept, prefix = ("average", "module.") if averaged else ("model", "model.")
    weights = {k.removeprefix(prefix): v for k, v in state[kept].items() if k.startswith(prefix)}
    check_state_dict(build_model(load_config(config)), weights)
    half = {name: value.half() for name, value in weights.items()}
    save_safetensors(half, out, {"config": config_text(config), "step": str(state["step"])})


if __name__ == "__main__":
    sys.exit(main())
