"""The command of Meta's training guide, from another folder, on made videos."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from sam2_core import SAM2ImagePredictor, load_model

TRAINING = Path(__file__).parents[2] / "training"
MOSE = "configs/sam2.1_training/sam2.1_hiera_b+_MOSE_finetune.yaml"
WEIGHTS = "trainer.checkpoint.model_weight_initializer.state_dict.checkpoint_path"
LOGS = "sam2_logs/sam2.1_hiera_b+_MOSE_finetune"


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    """Two videos of a disc that drifts."""
    y, x = np.mgrid[:72, :96]
    for video in ("one", "two"):
        for kind in ("JPEGImages", "Annotations"):
            (tmp_path / "mose" / kind / video).mkdir(parents=True)
        for t in range(4):
            disc = (x - 30 - 4 * t) ** 2 + (y - 36) ** 2 < 14**2
            picture = Image.fromarray(np.stack([40 + 150 * disc, 60 + 0 * disc, 90 + 0 * disc], -1).astype(np.uint8))
            picture.save(tmp_path / f"mose/JPEGImages/{video}/{t:05d}.jpg")
            Image.fromarray(disc.astype(np.uint8)).save(tmp_path / f"mose/Annotations/{video}/{t:05d}.png")
    return tmp_path


def train(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(TRAINING / "train.py"), "-c", MOSE, *arguments]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=1200, check=False
    )


@pytest.mark.parametrize("processes", [1, 2])
def test_the_official_command(videos: Path, processes: int) -> None:
    changes = [
        "dataset.img_folder=mose/JPEGImages",
        "dataset.gt_folder=mose/Annotations",
        f"dataset.multiplier={processes}",
        "scratch.model_config=configs/nano/cells-nano.yaml",
        "scratch.resolution=64",
        "scratch.num_frames=2",
        "scratch.num_train_workers=1",
        "scratch.num_epochs=1",
        "trainer.accelerator=cpu",
        "trainer.optim.amp.enabled=false",
        "trainer.logging.log_freq=1",
        f"{WEIGHTS}=cells-nano",
    ]
    done = train(videos, "--use-cluster", "0", "--num-gpus", str(processes), *changes)
    assert done.returncode == 0, done.stderr
    logs = videos / LOGS
    assert yaml.safe_load((logs / "config.yaml").read_text())["scratch"]["resolution"] == 64
    assert list((logs / "tensorboard").iterdir())
    model = load_model(logs / "model.safetensors", device="cpu")
    assert model.image_size == 64
    predictor = SAM2ImagePredictor(model)
    predictor.set_image(np.asarray(Image.open(videos / "mose/JPEGImages/one/00000.jpg")))
    masks, _, _ = predictor.predict(point_coords=[[30, 36]], point_labels=[1])
    assert masks.shape[1:] == (72, 96)
    if processes > 1:
        return
    again = train(videos, "--use-cluster", "0", "--num-gpus", str(processes), *changes)
    assert again.returncode == 0, again.stderr
    assert "going on from step 2" in again.stdout


def test_what_is_wrong_with_the_data_is_said(videos: Path) -> None:
    done = train(videos, "--num-gpus", "2", "dataset.img_folder=mose/none", "dataset.gt_folder=mose/Annotations")
    assert done.returncode == 2
    assert "mose/none" in done.stderr
    assert "Traceback" not in done.stderr
