"""Train a model on a folder of labelled sets: ``python -m training.train --config FILE --data DIR --out DIR``."""

import argparse
import sys
from pathlib import Path

import torch

from sam2_core.errors import InputError
from training.dataset.splits import load_part
from training.device import make_fabric
from training.settings import load_settings
from training.trainer import Trainer


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", required=True, type=Path, help="a run's YAML file, as in training/configs")
    parser.add_argument("--data", required=True, type=Path, help="folder of labelled sets, see training/dataset")
    parser.add_argument("--out", required=True, type=Path, help="where logs and checkpoints go; resumed if it has some")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    parser.add_argument("--workers", default=1, type=int, help="processes that prepare clips")
    parser.add_argument("--threads", default=0, type=int, help="CPU threads of the model; 0 lets torch decide")
    options = parser.parse_args(arguments)
    try:
        settings = load_settings(options.config)
        if options.threads:
            torch.set_num_threads(options.threads)
        torch.set_flush_denormal(True)
        sequences = load_part(options.data, "training")
        fabric = make_fabric(options.device, settings.precision)
        trainer = Trainer(settings, options.out, fabric)
        if trainer.resume():
            print(f"going on from step {trainer.step} in {options.out}")
        trainer.fit(sequences, options.workers)
    except InputError as error:
        print(f"training: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
