"""Start a run: in this process, in one for each device, or as a job of SLURM."""

from __future__ import annotations

import os
import random
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning_fabric import Fabric
from torch.multiprocessing import ProcessExitedException

from sam2_core.build import build_model
from sam2_core.configs import load_config
from sam2_core.errors import InputError, MissingDependencyError
from sam2_core.model.sam2 import SAM2Base
from sam2_core.volume.files import disk_errors, replacing
from sam2_core.weights.checkpoints import check_state_dict, load_state_dict, save_safetensors
from sam2_core.weights.table import MODEL
from training.dataset.folders import load_davis
from training.dataset.labelled_sets import Sequence as LabelledSequence
from training.device import make_fabric
from training.hydra_config import TRAINING, TrainConfig
from training.interrupt import finish_step_on_interrupt
from training.settings import TrainSettings
from training.sharding import started_outside
from training.trainer import Trainer, Validation
from training.validation import Validator

if TYPE_CHECKING:
    import submitit

CONFIG, JOBS = "config.yaml", "submitit_logs"


@dataclass(frozen=True)
class Run:
    """What the processes of a run share; it travels to them.

    Attributes
    ----------
    settings : TrainSettings
    load : callable
        Gives the sequences; called in every process.
    out : Path
        Where logs and checkpoints go.
    device : str
        auto, cpu, cuda or mps.
    devices, nodes : int
        Devices of each machine, one process a device, and machines.
    workers : int
        Processes that prepare clips, for each device.
    export : str, optional
        File to write the model to at the end, in `out`; the settings' model must be the text of a config then.
    validate : callable, optional
        Of the `Trainer`, and never called where the settings' `validate_every` is 0; it travels, too.
    """

    settings: TrainSettings
    load: Callable[[], Sequence[LabelledSequence]]
    out: Path
    device: str = "auto"
    devices: int = 1
    nodes: int = 1
    workers: int = 1
    export: str | None = None
    validate: Callable[[SAM2Base], Validation] | None = None


@dataclass(frozen=True)
class ClusterJob:
    """A run as submitit calls it, in each of the processes that SLURM starts; requeued, it goes on where it was."""

    run: Run
    port: int

    def __call__(self) -> bool:
        """Train in this process; whether the run came to its end."""
        import submitit

        here = submitit.JobEnvironment()
        # as torchrun would have set them, which Fabric knows whatever the executor
        os.environ |= {
            "RANK": str(here.global_rank),
            "LOCAL_RANK": str(here.local_rank),
            "GROUP_RANK": str(here.node),
            "WORLD_SIZE": str(here.num_tasks),
            "MASTER_ADDR": here.hostnames[0],
            "MASTER_PORT": str(self.port),
            "TORCHELASTIC_RUN_ID": here.job_id,
        }
        return train(self.run)

    def checkpoint(self) -> Any:
        """What submitit queues again after a time-out or when another job was preferred."""
        import submitit

        return submitit.helpers.DelayedSubmission(self)


def start(config: TrainConfig) -> None:
    """Check a config, write it to the run's folder, and train, or submit the job that does.

    Raises
    ------
    InputError
        Data, weights, model config, devices or SLURM are not there, or do not fit each other.
    """
    run = make_run(config)
    model = build_model(load_config(run.settings.model))
    if run.settings.start_from is not None:
        check_state_dict(model, load_state_dict(run.settings.start_from))
    del model
    with replacing(run.out / CONFIG, overwrite=True) as new:
        new.write_text(config.as_yaml(), encoding="utf-8")
    if config.submitit.use_cluster:
        job = submit(config, run)
        print(f"submitted as job {job.job_id}; its output is in {run.out / JOBS}")
    elif run.nodes > 1 and not started_outside():
        raise InputError(f"{run.nodes} machines need SLURM: give --use-cluster 1, or --num-nodes 1")
    elif train(run):
        print(f"the model is {run.out / MODEL}")
    else:
        print(f"interrupted; the same command goes on from {run.out}")


def make_run(config: TrainConfig) -> Run:
    """The run that a config describes.

    Raises
    ------
    InputError
        A folder, list, checkpoint or model config is not there, or the videos are too few.
    """
    load = partial(load_davis, **config.dataset.folders(), set_name="videos")  # type: ignore[arg-type]
    return Run(
        settings=config.settings(len(load())),
        load=load,
        out=config.launcher.experiment_log_dir.expanduser().absolute(),
        device=config.trainer.accelerator,
        devices=config.launcher.gpus_per_node,
        nodes=config.launcher.num_nodes,
        workers=config.scratch.num_train_workers,
        export=MODEL,
        validate=_validator(config),
    )


def _validator(config: TrainConfig) -> Validator | None:
    """What looks at the model on the videos that are for that, if there are any."""
    folders = config.validation.folders()
    if not folders:
        return None
    load = partial(load_davis, **folders, set_name="validation videos")  # type: ignore[arg-type]
    load()  # says what is wrong before the run
    return Validator(load, config.validation.objects)


def train(run: Run) -> bool:
    """Train; the processes are started here where nobody else did. False after Ctrl-C.

    Raises
    ------
    InputError
        The devices are not there, or the data are damaged.
    SystemExit
        With 2, where that happened in another process, which has said so.
    """
    fabric = make_fabric(run.device, run.settings.precision, run.devices, run.nodes, run.settings.strategy)
    # a run is bound to the function: Fabric would take an argument that is a frozen dataclass apart
    if run.devices * run.nodes == 1 or started_outside():
        return bool(fabric.launch(partial(_train, run=run)))
    try:
        with finish_step_on_interrupt():
            return bool(fabric.launch(partial(_train_and_report, run=run)))
    except ProcessExitedException as error:
        if error.exit_code == 2:
            raise SystemExit(2) from None
        raise


def submit(config: TrainConfig, run: Run, cluster: str = "slurm") -> submitit.Job[bool]:
    """Hand a run to a cluster's queue.

    Raises
    ------
    InputError
        There is no SLURM on this machine.
    """
    executor = make_executor(config, run, cluster)
    low, high = config.submitit.port_range
    return executor.submit(ClusterJob(run, random.randint(low, high)))


def make_executor(config: TrainConfig, run: Run, cluster: str = "slurm") -> submitit.AutoExecutor:
    """submitit's executor with what a config asks for: a task for each device."""
    try:
        import submitit
    except ImportError as error:
        raise MissingDependencyError("submitit", "train", "submit jobs to a cluster") from error
    wanted = config.submitit
    try:
        executor = submitit.AutoExecutor(run.out / JOBS, cluster=cluster)
    except RuntimeError as error:
        raise InputError(f"--use-cluster 1 needs SLURM on this machine ({error}): give --use-cluster 0") from error
    parameters = {
        "name": wanted.name,
        "timeout_min": round(60 * wanted.timeout_hour),
        "nodes": run.nodes,
        "tasks_per_node": run.devices,
        "gpus_per_node": run.devices if run.device in ("cuda", "auto") else None,
        "cpus_per_task": wanted.cpus_per_task,
        "mem_gb": wanted.mem_gb,
        "slurm_partition": wanted.partition,
        "slurm_account": wanted.account,
        "slurm_qos": wanted.qos,
        "slurm_constraint": wanted.constraints,
        # another package is called `training`, too
        "slurm_setup": [f'export PYTHONPATH={shlex.quote(str(TRAINING.parent))}"${{PYTHONPATH:+:$PYTHONPATH}}"'],
    }
    executor.update_parameters(**{name: value for name, value in parameters.items() if value is not None})
    return executor


def _train(fabric: Fabric, run: Run) -> bool:
    torch.set_flush_denormal(True)
    trainer = Trainer(run.settings, run.out, fabric, run.validate)
    if trainer.resume() and fabric.is_global_zero:
        print(f"going on from step {trainer.step} in {run.out}")
    is_done = trainer.fit(run.load(), run.workers)
    if is_done and run.export:
        weights = trainer.best_state()
        if fabric.is_global_zero:
            with disk_errors(run.out):
                save_safetensors(weights, run.out / run.export, {"config": run.settings.model})
    return is_done


def _train_and_report(fabric: Fabric, run: Run) -> bool:
    """As `_train`, in a process that was spawned: its parent gets no exception of it but the exit code."""
    try:
        return _train(fabric, run)
    except InputError as error:
        print(f"training: {error}", file=sys.stderr)
        raise SystemExit(2) from None
