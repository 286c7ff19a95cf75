"""The log that programs follow: whole lines, at once, and none of steps that are trained again."""

import json
from pathlib import Path

import numpy as np

from sam2_core.finetuning import LOG
from training.run_log import RunLog
from training.trainer import Validation


def lines(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / LOG).read_text().splitlines()]


def test_each_line_is_there_at_once(tmp_path):
    log = RunLog(tmp_path, 0, 20)
    assert lines(tmp_path) == [{"step": 0, "steps": 20, "seconds": 0.0}]
    log.losses(10, {"total": 0.5, "iou": 0.1}, lr=1e-3)
    seen = Validation({"mean": 0.75, "box": float("nan")}, {"worst": np.zeros((4, 4, 3), np.uint8)})
    log.validation(10, seen)
    _, loss, metrics = lines(tmp_path)
    assert loss.pop("seconds") >= 0
    assert loss == {"step": 10, "steps": 20, "loss": 0.5, "lr": 1e-3}
    assert metrics == {"step": 10, "metrics": {"mean": 0.75, "box": None}}
    log.close()
    assert list((tmp_path / "tensorboard").iterdir())


def test_a_run_that_goes_on_drops_what_it_trains_again(tmp_path):
    first = RunLog(tmp_path, 0, 30)
    for step in (10, 20, 30):
        first.losses(step, {"total": 1 / step}, lr=1e-3)
        first.validation(step, Validation({"mean": step / 100}))
    with (tmp_path / LOG).open("a") as file:
        file.write('{"step": 3')  # killed here
    again = RunLog(tmp_path, 20, 30)
    again.losses(30, {"total": 7.0}, lr=1e-3)
    kept = lines(tmp_path)
    assert [line["step"] for line in kept] == [0, 10, 10, 20, 20, 20, 30]
    assert [line["loss"] for line in kept if "loss" in line] == [0.1, 0.05, 7.0]
    assert [line["metrics"]["mean"] for line in kept if "metrics" in line] == [0.1, 0.2]
    first.close()
    again.close()
