"""The training step's own logic, which needs no clone: the clip, our side, and what is refused."""

import math
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("psutil")

from benchmarks.training_side import COUNTED, Job, TrainingSide, serve
from benchmarks.training_step import Process, check_clone, check_same_work, make_clip, parity_rows, rows
from benchmarks.weights import randomize
from sam2_core.build import build_model
from sam2_core.configs import load_config
from sam2_core.errors import InputError

FRAMES, CORRECTIONS = 3, 2


def step(**changes: float) -> dict:
    return {"wall": 2.0, "cpu": 1.0, "loss": 3.0, "images": 4, **dict.fromkeys(COUNTED, 1), **changes}


def answers(ours: list[dict], theirs: list[dict]) -> dict:
    memory = {"peak": 300.0, "before": 100.0}
    return {"ours": [*ours, memory], "theirs": [*theirs, {"peak": 500.0, "before": 100.0}]}


def test_the_clip_is_the_same_every_time_and_its_objects_move():
    images, masks = make_clip(64, FRAMES, 2)
    assert images.shape == (FRAMES, 3, 64, 64)
    assert masks.shape == (2, FRAMES, 64, 64)
    again, _ = make_clip(64, FRAMES, 2)
    assert torch.equal(images, again)
    assert masks.flatten(2).any(dim=2).all()
    assert not torch.equal(masks[:, 0], masks[:, -1])


def test_our_side_tells_its_work_its_time_and_its_memory(tmp_path: Path):
    state = randomize(build_model(load_config("cells-nano")))
    path = Job(state, *make_clip(64, FRAMES, 2), CORRECTIONS, config="cells-nano").save(tmp_path / "job.pt")
    job, told = Job.load(path), []
    serve(TrainingSide.build("ours", job), job, iter(["step\n", "same\n"]), told.append)
    one, same, memory = told
    assert one["images"] == FRAMES
    assert one["image_encoder"] == 1
    assert one["memory_attention"] == FRAMES - 1
    assert one["memory_encoder"] == FRAMES
    assert one["sam_mask_decoder"] == FRAMES + CORRECTIONS
    assert one["wall"] > 0
    assert all(math.isfinite(value) for value in (one["loss"], same["loss"], same["gradient"]))
    assert memory["peak"] >= memory["before"] > 0


def test_sides_that_do_other_work_are_not_compared():
    check_same_work(answers([step()], [step()]))
    with pytest.raises(InputError, match="same work"):
        check_same_work(answers([step(sam_mask_decoder=1)], [step(sam_mask_decoder=2)]))
    with pytest.raises(InputError, match="not finite"):
        check_same_work(answers([step(loss=math.nan)], [step()]))


def test_the_first_step_is_not_timed():
    told = answers([step(wall=90.0), step(), step()], [step(wall=1.0), step(wall=4.0), step(wall=4.0)])
    clock, cpu, peak, growth = rows(told, "", "cpu")
    assert (clock.ours, clock.theirs) == (2.0, 4.0)
    assert cpu.ratio == 1
    assert (peak.ours, peak.theirs) == (300.0, 500.0)
    assert growth.ratio == 0.5


def test_losses_that_differ_are_seen():
    one, other = {"loss": 1.0, "gradient": 2.0}, {"loss": 1.01, "gradient": 2.0}
    loss, gradient = parity_rows({"ours": [one], "theirs": [other]}, "")
    assert not loss.met
    assert gradient.met


def test_a_folder_that_is_no_clone_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match="git clone"):
        check_clone(tmp_path)


def test_a_side_that_fails_says_why(tmp_path: Path):
    failing = Process("theirs", tmp_path / "job.pt", [], Path(sys.executable))
    with failing as process, pytest.raises(InputError, match=r"theirs failed: .*job\.pt"):
        process.ask("step")
