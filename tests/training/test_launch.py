"""Runs start in one process, in several, and as jobs."""

import os
import stat
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sam2_core.errors import InputError
from training.hydra_config import TRAINING, TrainConfig, compose_config
from training.launch import Run, make_executor, make_run, start, submit
from training.train import main
from training.validation import Validator

pytest.importorskip("hydra")
pytest.importorskip("submitit")

MOSE = "configs/sam2.1_training/sam2.1_hiera_b+_MOSE_finetune.yaml"
WEIGHTS = "trainer.checkpoint.model_weight_initializer.state_dict.checkpoint_path"


@pytest.fixture
def changes(tmp_path: Path) -> list[str]:
    """Overrides for two steps on two made videos."""
    y, x = np.mgrid[:64, :64]
    for video in ("one", "two"):
        for kind in ("JPEGImages", "Annotations"):
            (tmp_path / kind / video).mkdir(parents=True)
        for t in range(3):
            disc = (x - 20 - 4 * t) ** 2 + (y - 30) ** 2 < 12**2
            Image.fromarray((40 + 150 * disc).astype(np.uint8)).save(tmp_path / f"JPEGImages/{video}/{t:05d}.jpg")
            Image.fromarray(disc.astype(np.uint8)).save(tmp_path / f"Annotations/{video}/{t:05d}.png")
    return [
        f"dataset.img_folder={tmp_path}/JPEGImages",
        f"dataset.gt_folder={tmp_path}/Annotations",
        f"launcher.experiment_log_dir={tmp_path}/logs",
        f"{WEIGHTS}=cells-nano",
        "scratch.model_config=cells-nano",
        "scratch.resolution=64",
        "scratch.num_frames=2",
        "scratch.num_train_workers=0",
        "scratch.num_epochs=1",
        "trainer.accelerator=cpu",
        "trainer.optim.amp.enabled=false",
        "trainer.model.num_correction_pt_per_frame=1",
        "launcher.gpus_per_node=1",
        "dataset.multiplier=1",
    ]


def config(changes: list[str], *more: str) -> TrainConfig:
    return compose_config(MOSE, [*changes, *more])


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Programs that say what SLURM's would; the submitted file is kept where this points to."""
    programs, kept = tmp_path / "bin", tmp_path / "submitted.sh"
    programs.mkdir()
    for name, body in (("srun", "exit 1"), ("sbatch", f"cp $1 {kept}; echo Submitted batch job 4711")):
        (programs / name).write_text(f"#!/bin/sh\n{body}\n")
        (programs / name).chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    return kept


def test_a_job_asks_slurm_for_what_the_flags_say(
    changes: list[str], slurm: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = ["--use-cluster", "1", "--num-gpus", "2", "--num-nodes", "1", "--partition", "gpu", "--account", "lab"]
    more = ["submitit.timeout_hour=3", "submitit.constraints=a100", "submitit.mem_gb=64", "submitit.name=cells"]
    assert main(["-c", MOSE, *flags, "--qos", "high", *changes, *more]) == 0
    assert "4711" in capsys.readouterr().out
    lines = slurm.read_text().splitlines()
    expected = {
        "nodes": "1",
        "ntasks-per-node": "2",
        "cpus-per-task": "10",
        "partition": "gpu",
        "account": "lab",
        "qos": "high",
        "time": "180",
        "constraint": "a100",
        "mem": "64GB",
        "job-name": "cells",
    }
    for name, value in expected.items():
        assert f"#SBATCH --{name}={value}" in lines
    assert not any("gpus-per-node" in line for line in lines)  # on the CPU
    assert any(line.startswith("export PYTHONPATH=") and str(TRAINING.parent) in line for line in lines)


def test_a_job_on_gpus_asks_for_them(changes: list[str], slurm: Path) -> None:
    chosen = config(changes, "trainer.accelerator=cuda", "launcher.gpus_per_node=2")
    run = replace(make_run(chosen), nodes=4, devices=8)
    text = make_executor(chosen, run)._executor._make_submission_file_text("run", "uid")
    for line in ("--nodes=4", "--ntasks-per-node=8", "--gpus-per-node=8"):
        assert f"#SBATCH {line}" in text.splitlines()
    assert "partition" not in text


def test_without_slurm(changes: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(InputError, match="use-cluster"):
        start(config(changes, "submitit.use_cluster=true"))
    with pytest.raises(InputError, match="SLURM"):
        start(config(changes, "launcher.num_nodes=2"))


@pytest.mark.e2e
def test_a_job_trains_in_two_processes(changes: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(TRAINING.parent))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    chosen = config(changes, "launcher.gpus_per_node=2", "scratch.num_epochs=2")
    run = make_run(chosen)
    assert run.settings.total_steps == 2
    job = submit(chosen, run, cluster="local")
    assert job.results() == [True, True]
    assert (run.out / "model.safetensors").is_file()
    assert "SystemExit" not in (job.stderr() or "")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["-c", MOSE, "scratch.nothing=1"], "nothing"),
        (["-c", MOSE, "--workers", "2"], "--workers"),
        (["-c", MOSE, "--data", "sets"], "--out"),
        (["-c", "x.yaml", "--data", "sets", "--out", "run", "--qos", "high"], "--qos"),
        (["-c", "x.yaml", "scratch.resolution=64", "--data", "sets", "--out", "run"], "scratch.resolution=64"),
        (["-c", MOSE, "--num-gpus", "1", f"{WEIGHTS}=null"], "img_folder"),
    ],
)
def test_wrong_commands_exit_with_2(
    arguments: list[str],
    named: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    assert named in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_run_may_validate_on_other_videos(changes: list[str], tmp_path: Path) -> None:
    assert make_run(config(changes)).validate is None
    assert make_run(config(changes)).settings.validate_every == 0
    folders = [f"validation.img_folder={tmp_path}/JPEGImages", f"validation.gt_folder={tmp_path}/Annotations"]
    run = make_run(config(changes, *folders, "validation.objects=1", "validation.epochs=3"))
    assert run.settings.validate_every == 3 * 2
    assert isinstance(run.validate, Validator)
    assert [s.name for s in run.validate.sequences] == ["one", "two"]
    assert run.validate.limit == 1
    with pytest.raises(InputError, match="no-such-folder"):
        make_run(config(changes, folders[0], "validation.gt_folder=no-such-folder"))


@pytest.mark.parametrize(("flags", "limit"), [([], 8), (["--limit", "3"], 3)])
def test_a_run_on_labelled_sets_validates(
    flags: list[str], limit: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Run] = []
    monkeypatch.setattr("training.launch.train", started.append)
    file = TRAINING / "configs" / "cells-nano.yaml"
    assert main(["--config", str(file), "--data", str(tmp_path / "sets"), "--out", str(tmp_path / "run"), *flags]) == 0
    (run,) = started
    assert isinstance(run.validate, Validator)
    assert run.validate.limit == limit
    with pytest.raises(InputError, match="sets"):
        run.validate.load()
