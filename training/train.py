"""Train a model, in one of two ways.

On videos in the layout of DAVIS and MOSE, from a config under the names of Meta's and changes to it:
``python training/train.py -c configs/sam2.1_training/sam2.1_hiera_b+_MOSE_finetune.yaml --use-cluster 0 --num-gpus 8
dataset.img_folder=DIR dataset.gt_folder=DIR``.

On a folder of labelled sets, from a file as those in training/configs:
``python -m training.train --config FILE --data DIR --out DIR``.
"""

import argparse
import sys
from functools import partial
from pathlib import Path

if not __package__:  # run as a file: what is on the path is the package's folder, and `training` may be another one
    sys.path[0] = str(Path(__file__).resolve().parents[1])


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    options = _parser().parse_intermixed_args(arguments)
    from sam2_core.errors import InputError

    try:
        if options.data is None and options.out is None:
            _from_hydra(options)
        else:
            _from_labelled_sets(options)
    except InputError as error:
        print(f"training: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        if error.errno is None:  # not from the operating system: a bug, to be seen whole
            raise
        place = "" if error.filename is None else f"{error.filename}: "
        print(f"training: {place}{error.strerror}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("training: stopped; the same command goes on from the last checkpoint", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="training.train", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-c", "--config", required=True, help="a YAML file, looked for here and beside train.py")
    parser.add_argument("--num-gpus", type=int, metavar="N", help="devices of each machine, one process a device")
    videos = parser.add_argument_group("videos")
    videos.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="changes to the config, as Hydra reads them")
    videos.add_argument("--use-cluster", type=int, choices=(0, 1), help="1 submits a job to SLURM")
    videos.add_argument("--num-nodes", type=int, metavar="N", help="machines")
    videos.add_argument("--partition", help="of SLURM")
    videos.add_argument("--account", help="of SLURM")
    videos.add_argument("--qos", help="of SLURM")
    sets = parser.add_argument_group("labelled sets")
    sets.add_argument("--data", type=Path, help="folder of labelled sets, see training/dataset")
    sets.add_argument("--out", type=Path, help="where logs and checkpoints go; resumed if it has some")
    sets.add_argument("--device", help="auto (default), cpu, cuda or mps")
    sets.add_argument("--limit", type=int, metavar="N", help="objects of each set for validation (default 8)")
    sets.add_argument("--workers", type=int, metavar="N", help="processes that prepare clips (default 1)")
    sets.add_argument("--threads", type=int, metavar="N", help="CPU threads of the model; by default torch decides")
    return parser


def _from_hydra(options: argparse.Namespace) -> None:
    from training.hydra_config import compose_config
    from training.launch import start

    _refuse(
        options,
        "device",
        "limit",
        "workers",
        "threads",
        reason="needs --data and --out; here it is a key of the config",
    )
    cluster = options.use_cluster
    flags = {
        "submitit.use_cluster": None if cluster is None else bool(cluster),
        "submitit.partition": options.partition,
        "submitit.account": options.account,
        "submitit.qos": options.qos,
        "launcher.gpus_per_node": options.num_gpus,
        "launcher.num_nodes": options.num_nodes,
    }
    start(compose_config(options.config, options.overrides, flags))


def _from_labelled_sets(options: argparse.Namespace) -> None:
    from sam2_core.errors import InputError
    from training.dataset.splits import load_part
    from training.launch import Run, train
    from training.settings import load_settings
    from training.validation import Validator

    if options.data is None or options.out is None:
        raise InputError("--data and --out go together: give both, or neither for a config under Meta's names")
    names = ("overrides", "use_cluster", "num_nodes", "partition", "account", "qos")
    _refuse(options, *names, reason="does not go with --data and --out")
    if options.threads:
        import torch

        torch.set_num_threads(options.threads)
    run = Run(
        settings=load_settings(options.config),
        load=partial(load_part, options.data, "training"),
        out=options.out,
        device=options.device or "auto",
        devices=1 if options.num_gpus is None else options.num_gpus,
        workers=1 if options.workers is None else options.workers,
        validate=Validator(partial(load_part, options.data, "validation"), options.limit or 8),
    )
    train(run)


def _refuse(options: argparse.Namespace, *names: str, reason: str) -> None:
    from sam2_core.errors import InputError

    for name in names:
        if getattr(options, name) not in (None, []):
            given = options.overrides[0] if name == "overrides" else f"--{name.replace('_', '-')}"
            raise InputError(f"{given} {reason}")


if __name__ == "__main__":
    sys.exit(main())
