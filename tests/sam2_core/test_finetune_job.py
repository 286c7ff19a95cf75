"""A job's process, with a small program in the place of the training: it starts, is followed, stops and goes on."""

import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sam2_core import finetune_job
from sam2_core.errors import InputError, MissingDependencyError
from sam2_core.finetune_job import FinetuneJob, FinetuneRequest, JobState, jobs_dir, unfinished
from sam2_core.finetune_log import LogReader, read_gain

CARD = """# new

made

## Accuracy

Measured on the test part: 2 items, never seen.

| measure | before | after | change | on |
|---|--:|--:|--:|--:|
| IoU, 1 click | 0.574 | 0.581 | +0.007 | 100 objects |
| NoC@85 (of 20 clicks), fewer is better | 9.10 | 8.90 | -0.20 | 100 objects |

## Settings
"""

PRETENDED = """
# stands for `sam2`: writes the files of a run as the real one does, slowly, until its standard input ends
import json, os, sys, time
from pathlib import Path
words = sys.argv[1:]
if words[0] == "models":
    sys.exit(0)
out = Path(words[words.index("--out") + 1])
steps = int(words[words.index("--steps") + 1])
if steps == 13:
    print("\\rstep 1\\rsam2: the store has nothing to train on", file=sys.stderr)
    sys.exit(2)
if steps == 14:
    os.abort()
out.mkdir(exist_ok="--resume" in words)
(out / "run.json").write_text(json.dumps({"options": {}}))
(out / "run.json").write_text(json.dumps({"options": {}, "before": {}}))
log = out / "log.jsonl"
at = json.loads((out / "last.pt").read_text()) if "--resume" in words else 0
kept = [l for l in log.read_text().splitlines() if json.loads(l)["step"] <= at] if log.exists() else []
log.with_suffix(".new").write_text("".join(l + "\\n" for l in kept))
log.with_suffix(".new").replace(log)
def write(line):
    with log.open("a") as file:
        file.write(json.dumps(line) + "\\n")
write({"step": at, "steps": steps, "seconds": 0.0})
try:
    for step in range(at + 1, steps + 1):
        time.sleep(0.02)
        write({"step": step, "steps": steps, "loss": 1 / step, "lr": 1e-4, "seconds": 0.02 * (step - at)})
        if step % 5 == 0:
            write({"step": step, "metrics": {"mean": step / steps}})
            (out / "last.pt").write_text(str(step))
except KeyboardInterrupt:
    (out / "last.pt").write_text(str(step - 1))
    sys.exit(0)
(out / "model.md").write_text(CARD)
(out / "model.safetensors").write_text("")
"""


@pytest.fixture
def pretended(tmp_path, monkeypatch):
    """The real process of a job, in which `sam2` is a pretended one."""
    program = tmp_path / "pretended.py"
    program.write_text(f"CARD = {CARD!r}\n{PRETENDED}")
    child = tmp_path / "child.py"
    child.write_text(
        "import runpy, sys\n"
        "from sam2_core import finetune_child\n"
        "def sam2(*words):\n"
        f"    sys.argv = [{str(program)!r}, *words]\n"
        "    try:\n"
        f"        runpy.run_path({str(program)!r})\n"
        "    except SystemExit as ended:\n"
        "        return ended.code\n"
        "    return 0\n"
        "finetune_child._sam2 = sam2\n"
        "sys.exit(finetune_child.main(*sys.argv[1:]))\n"
    )
    monkeypatch.setattr(finetune_job, "COMMAND", (sys.executable, str(child)))
    monkeypatch.setenv("SAM2_CACHE_DIR", str(tmp_path / "models"))


def request(**changes):
    return FinetuneRequest(**{"labels": "store", "name": "new", "steps": 10, **changes})


def wait(job, until, seconds=20):
    """Poll until something is so; gives the states that were seen."""
    seen = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        job.poll()
        if not seen or seen[-1] != job.state:
            seen.append(job.state)
        if until(job):
            return seen
        time.sleep(0.01)
    raise AssertionError(f"{job.state}, step {job.log.step}, {job.error}")


def ended(job):
    return not job.state.is_running


def test_a_job_runs_to_its_end(tmp_path, pretended):
    job = FinetuneJob.create(request(), tmp_path / "jobs")
    assert job.gain() is None
    job.start()
    assert job.state is JobState.STARTING
    with pytest.raises(InputError, match="already"):
        job.start()
    seen = wait(job, ended)
    assert seen[-1] is JobState.FINISHED
    assert JobState.TRAINING in seen
    assert (job.log.step, job.log.steps) == (10, 10)
    assert job.log.losses == [(step, 1 / step) for step in range(1, 11)]
    assert job.log.metrics == {"mean": [(5, 0.5), (10, 1.0)]}
    assert job.gain().rows[0] == ("IoU, 1 click", "0.574", "0.581", "+0.007", "100 objects")
    assert FinetuneJob.open(job.folder).state is JobState.FINISHED
    assert not unfinished(tmp_path / "jobs")


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_a_job_stops_and_goes_on(tmp_path, pretended, end):
    job = FinetuneJob.create(request(steps=100), tmp_path / "jobs")
    job.start()
    wait(job, lambda job: job.log.step >= 12)
    getattr(job, end)()
    wait(job, ended)
    assert job.state is JobState.STOPPED
    assert job.error is None
    reached = job.log.step
    assert reached < 100
    with pytest.raises(InputError, match="unfinished run new"):
        FinetuneJob.create(request(), tmp_path / "jobs")
    (again,) = unfinished(tmp_path / "jobs")
    assert again.request == job.request
    assert again.log.losses == job.log.losses
    again.resume()
    wait(again, ended)
    assert again.state is JobState.FINISHED
    assert [step for step, _ in again.log.losses] == list(range(1, 101))


def test_a_job_ends_with_napari(tmp_path, pretended):
    """The process that started it is killed, and has no time to say goodbye."""
    job = FinetuneJob.create(request(steps=1000), tmp_path / "jobs")
    code = (
        "import sys, time, pathlib\n"
        "from sam2_core import finetune_job\n"
        f"finetune_job.COMMAND = {finetune_job.COMMAND!r}\n"
        f"job = finetune_job.FinetuneJob.open(pathlib.Path({str(job.folder)!r}))\n"
        "job.start()\n"
        "print(job._process.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    napari = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    child = int(napari.stdout.readline())
    wait(job, lambda job: job.log.read() or job.log.step >= 3)
    napari.kill()
    napari.wait()
    napari.stdout.close()
    end = time.monotonic() + 20
    while time.monotonic() < end and not (job.out / "last.pt").exists():
        time.sleep(0.02)
    assert json.loads((job.out / "last.pt").read_text()) < 1000
    while time.monotonic() < end and _lives(child):
        time.sleep(0.02)
    assert not _lives(child)


def _lives(pid):
    try:
        os.kill(pid, 0)
        return not Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].strip().startswith("Z")
    except (ProcessLookupError, FileNotFoundError):
        return False


def test_two_programs_do_not_train_one_model(tmp_path, pretended):
    job = FinetuneJob.create(request(steps=500), tmp_path / "jobs")
    job.start()
    wait(job, lambda job: job.log.step >= 1)
    (other,) = unfinished(tmp_path / "jobs")
    other.resume()
    wait(other, ended)
    assert other.state is JobState.FAILED
    assert "another program" in other.error
    job.kill()
    wait(job, ended)


@pytest.mark.parametrize(
    ("steps", "error"), [(13, "sam2: the store has nothing to train on"), (14, "by signal 6: resume it")]
)
def test_what_went_wrong_is_said_as_it_was(tmp_path, pretended, steps, error):
    job = FinetuneJob.create(request(steps=steps), tmp_path / "jobs")
    job.start()
    wait(job, ended)
    assert job.state is JobState.FAILED
    assert error in job.error
    assert not job.can_resume
    with pytest.raises(InputError, match="nothing of new to go on with"):
        job.resume()
    FinetuneJob.create(request(), tmp_path / "jobs")  # nothing is lost with that run


def test_names_that_cannot_be(tmp_path, monkeypatch):
    monkeypatch.setenv("SAM2_CACHE_DIR", str(tmp_path))
    for name in ("", "a/b", "cells-nano", "x.pt"):
        with pytest.raises(InputError):
            FinetuneJob.create(request(name=name), tmp_path)


def test_what_is_missing_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(finetune_job, "EXTRA", ("lightning_fabric", "nothing_of_this_name"))
    with pytest.raises(MissingDependencyError, match=r'run pip install "napari-sam2\[train\]"'):
        FinetuneJob.create(request(), tmp_path)


def test_a_folder_of_no_job(tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "request.json").write_text('{"of": "another version"}')
    with pytest.raises(InputError, match="no fine-tuning run"):
        FinetuneJob.open(tmp_path / "x")
    assert unfinished(tmp_path) == []


def test_the_jobs_have_a_place(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert jobs_dir().name == "finetuning"


def test_a_log_that_grows_is_read_once(tmp_path):
    path = tmp_path / "log.jsonl"
    log = LogReader(path, 30)
    log.read()
    assert (log.step, log.steps, log.begun, log.remaining) == (0, 30, False, None)
    with path.open("a") as file:
        file.write('{"step": 0, "steps": 20, "seconds": 0.0}\n{"step": 1, "steps": 20, "loss": null, "seconds": 2.0}\n')
        file.write('{"step": 2, "steps": 20, "lo')
        file.flush()
        log.read()
        assert (log.step, log.steps, log.begun, log.remaining) == (1, 20, True, 38.0)
        assert math.isnan(log.losses[0][1])
        file.write('ss": 0.5, "seconds": 3.0}\nno JSON\n{"step": 2, "metrics": {"mean": null, "box": 0.5}}\n')
    log.read()
    log.read()
    assert log.losses[1:] == [(2, 0.5)]
    assert log.remaining == 27.0
    assert log.metrics["box"] == [(2, 0.5)]
    assert math.isnan(log.metrics["mean"][0][1])


def test_a_log_that_is_written_anew_is_read_anew(tmp_path):
    path = tmp_path / "log.jsonl"
    line = '{{"step": {0}, "steps": 9, "loss": {0}, "seconds": 1.0}}\n'
    path.write_text("".join(line.format(step) for step in range(1, 5)))
    log = LogReader(path, 9)
    log.read()
    new = tmp_path / "new"
    new.write_text("".join(line.format(step) for step in (1, 2)) + '{"step": 2, "steps": 9, "seconds": 0.0}\n')
    new.replace(path)
    log.read()
    assert [step for step, _ in log.losses] == [1, 2]
    assert (log.step, log.begun) == (2, True)


def test_the_gain_of_a_card():
    gain = read_gain(CARD)
    assert gain.measured_on == "Measured on the test part: 2 items, never seen."
    assert gain.header == ("measure", "before", "after", "change", "on")
    assert len(gain.rows) == 2
    unmeasured = read_gain("## Accuracy\n\nNot measured: no part.\n\n## Settings\n")
    assert (unmeasured.measured_on, unmeasured.rows) == ("Not measured: no part.", ())
    assert read_gain("# a card of another kind").measured_on == ""
