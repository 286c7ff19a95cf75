"""`sam2 segment` with a model of random weights: what it writes, how it resumes, how it refuses."""

import errno
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tifffile

from sam2_core.volume.labels import LabelVolume


def segment(sam2, folder, *args, prompts="prompts.json", out="out.zarr"):
    return sam2("segment", folder / "stack.tif", "--prompts", folder / prompts, "--out", folder / out, *args)


def labels_in(path):
    return LabelVolume.open(path).volume.read()


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def test_writes_labels_and_says_so(sam2, folder):
    before = names(folder)
    result = segment(sam2, folder)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith(str(folder / "out.zarr"))
    assert "1 object, 10 frames" in result.stdout
    assert "s per frame" in result.stdout
    assert names(folder) == sorted([*before, "out.zarr"])
    labels = labels_in(folder / "out.zarr")
    assert labels.shape == (10, 40, 48)
    assert labels.dtype == np.uint32
    assert set(np.unique(labels)) == {0, 1}


def test_is_the_video_predictor_on_the_same_clicks(sam2, folder, checkpoint):
    from sam2_core.build import load_model
    from sam2_core.predict.video_predictor import SAM2VideoPredictor
    from sam2_core.volume.open import open_volume
    from sam2_core.volume.planes import PlaneSource

    assert segment(sam2, folder).exit_code == 0
    predictor = SAM2VideoPredictor(load_model(checkpoint, "auto", "nano/cells-nano", 64))
    state = predictor.init_state(PlaneSource(open_volume(folder / "stack.tif")))
    predictor.add_new_points_or_box(state, 0, 1, points=[[12, 15]], labels=[1])
    expected = [m[0, 0].cpu().numpy() > 0 for _, _, m in predictor.propagate_in_video(state, progress=False)]
    np.testing.assert_array_equal(labels_in(folder / "out.zarr") == 1, np.stack(expected))


def test_a_label_image_as_prompts_keeps_its_ids_and_its_masks(sam2, folder):
    result = segment(sam2, folder, "--range", "0:3", prompts="labels.tif")
    assert result.exit_code == 0, result.output
    labels = labels_in(folder / "out.zarr")
    np.testing.assert_array_equal(labels[0], tifffile.imread(folder / "labels.tif"))
    assert not labels[3:].any()


def test_options_reach_the_run(sam2, folder):
    (folder / "prompts.json").write_text(
        json.dumps(
            {"objects": [{"id": 2, "name": "cell", "prompts": [{"frame": 4, "lasso": [[5, 5], [20, 5], [20, 20]]}]}]}
        )
    )
    result = segment(
        sam2, folder, "--axes", "tyx", "--axis", "t", "--range", "2:7", "--direction", "backward", "--channel", "0",
        "--window", "0,255", "--device", "cpu", "--keep-session",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    volume = LabelVolume.open(folder / "out.zarr")
    assert volume.axes == "tyx"
    assert volume.names == {2: "cell"}
    labels = volume.volume.read()
    assert labels[4].any()
    assert not labels[5:].any()
    assert not labels[:2].any()
    assert (folder / "out.zarr.session" / "journal.jsonl").exists()


def test_an_existing_output_is_refused_or_replaced(sam2, folder):
    assert segment(sam2, folder).exit_code == 0
    before = labels_in(folder / "out.zarr")
    again = segment(sam2, folder)
    assert again.exit_code == 2
    assert "exists" in again.stderr
    assert "--overwrite" in again.stderr
    np.testing.assert_array_equal(labels_in(folder / "out.zarr"), before)
    assert segment(sam2, folder, "--range", "0:2", "--overwrite").exit_code == 0
    after = labels_in(folder / "out.zarr")
    assert not after[2:].any()
    assert [n for n in names(folder) if "out" in n] == ["out.zarr"]


def test_a_kept_session_does_not_count_as_a_run_that_did_not_end(sam2, folder, monkeypatch):
    assert segment(sam2, folder, "--range", "0:2", "--keep-session").exit_code == 0
    before = labels_in(folder / "out.zarr")
    assert "exists: choose another" in segment(sam2, folder).stderr
    assert "is complete" in segment(sam2, folder, "--resume").stderr
    with monkeypatch.context() as patch:
        full_after(patch, 3)
        assert segment(sam2, folder, "--overwrite").exit_code == 2
    np.testing.assert_array_equal(labels_in(folder / "out.zarr"), before)


def test_the_schema_is_printed_without_other_arguments(sam2):
    result = sam2("segment", "--print-schema")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["title"] == "PromptFile"


BAD_OPTIONS = [
    (["--axes", "zzx"], "repeated"),
    (["--axes", "yx"], "names 2 axes but the data has 3"),
    (["--axis", "t"], "none to propagate along called 't'"),
    (["--axis", "q"], "called 'q'"),
    (["--channel", "3"], "has no channel 3"),
    (["--channel", "a"], "give one number"),
    (["--level", "2"], "level 2 does not exist"),
    (["--window", "9,3"], "window 9,3 is empty"),
    (["--window", "9"], "give two numbers"),
    (["--range", "3"], "give A:B"),
    (["--range", "0:99"], "not within the frames 0:10"),
    (["--range", "t=0:2"], "no range along 't'"),
    (["--range", "2:5"], "object 1 is prompted on frame 0, which --range 2:5 leaves out"),
    (["--direction", "up"], "forward, backward or both"),
    (["--device", "abacus"], "abacus"),
    (["--image-size", "100"], "32"),
    (["--resume"], "was not begun"),
    (["--resume", "--overwrite"], "give one of them"),
    (["--model", "no-such-model"], "no-such-model"),
    (["--config", "no.yaml"], "no.yaml"),
]


@pytest.mark.parametrize(("args", "sentence"), BAD_OPTIONS, ids=lambda v: " ".join(v) if isinstance(v, list) else "")
def test_bad_options(sam2, folder, args, sentence):
    refused(lambda: segment(sam2, folder, *args), folder, sentence)


BAD_PROMPTS = [
    ({"id": 0, "prompts": [{"frame": 0, "box": [1, 1, 5, 5]}]}, "object 0: id must be"),
    ({"id": 1, "prompts": [{"frame": 0, "points": [[90, 5]], "labels": [1]}]}, r"the point (90, 5) outside"),
    ({"id": 1, "prompts": [{"frame": 10, "box": [1, 1, 5, 5]}]}, "frame z 10 does not exist"),
    ({"id": 1, "prompts": [{"frame": {"t": 1, "z": 1}, "box": [1, 1, 5, 5]}]}, "names the axis t"),
    ({"id": 1, "prompts": [{"frame": 0, "mask": "stack.tif"}]}, "3 dimensions"),
    ({"id": 1, "prompts": [{"frame": 0}]}, "is empty"),
]


@pytest.mark.parametrize(("item", "sentence"), BAD_PROMPTS, ids=[s for _, s in BAD_PROMPTS])
def test_bad_prompts(sam2, folder, item, sentence):
    (folder / "prompts.json").write_text(json.dumps({"objects": [item]}))
    refused(lambda: segment(sam2, folder), folder, sentence)


@pytest.mark.parametrize(
    ("image", "sentence"),
    [
        (np.full((3, 40, 48), np.nan, np.float32), "no finite value"),
        (np.full((3, 40, 48), 7, np.uint8), "is constant"),
        (np.zeros((3, 40, 48), np.complex64), "real numbers"),
        (None, "does not exist"),
        (b"", "is empty"),
        (b"II*\0nothing", "stack.tif"),
    ],
    ids=["nan", "constant", "complex", "missing", "empty", "broken"],
)
def test_bad_images(sam2, folder, image, sentence):
    (folder / "stack.tif").unlink()
    if isinstance(image, bytes):
        (folder / "stack.tif").write_bytes(image)
    elif image is not None:
        tifffile.imwrite(folder / "stack.tif", image, photometric="minisblack")
    refused(lambda: segment(sam2, folder), folder, sentence)


@pytest.mark.parametrize("kind", ["truncated", "another size", "no checkpoint"])
def test_bad_checkpoints(sam2, folder, checkpoint, kind):
    bad = folder / "bad.pt"
    bad.write_bytes(b"hello" if kind == "no checkpoint" else checkpoint.read_bytes()[: 10**6])
    config = "sam2.1/sam2.1_hiera_t.yaml" if kind == "another size" else "nano/cells-nano"
    model = checkpoint if kind == "another size" else bad
    sentence = "does not fit the model" if kind == "another size" else str(bad)
    refused(lambda: segment(sam2, folder, "--model", model, "--config", config), folder, sentence)


def test_an_output_that_cannot_be_written(sam2, folder):
    refused(lambda: segment(sam2, folder, out="prompts.json/out.zarr"), folder, "cannot be written")
    refused(lambda: segment(sam2, folder, out="stack.tif"), folder, "is the input")
    (folder / "precious").mkdir()
    (folder / "precious" / "data").write_text("x")
    refused(lambda: segment(sam2, folder, "--overwrite", out="precious"), folder, "is no label volume")
    assert (folder / "precious" / "data").exists()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder(sam2, folder):
    (folder / "locked").mkdir()
    (folder / "locked").chmod(0o500)
    refused(lambda: segment(sam2, folder, out="locked/out.zarr"), folder, "permission is denied")


def full_after(monkeypatch, count):
    """Make the disk full after some records of the journal."""
    real, calls = os.fsync, []

    def fsync(descriptor):
        calls.append(descriptor)
        if len(calls) > count:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)


@pytest.mark.parametrize("replacing", [False, True])
def test_a_full_disk_before_the_first_frame_leaves_nothing(sam2, folder, monkeypatch, replacing):
    args = []
    if replacing:
        assert segment(sam2, folder, "--range", "0:2").exit_code == 0
        args = ["--overwrite"]
    before = labels_in(folder / "out.zarr") if replacing else None
    full_after(monkeypatch, 3)
    refused(lambda: segment(sam2, folder, *args), folder, "the disk is full")
    if replacing:
        np.testing.assert_array_equal(labels_in(folder / "out.zarr"), before)


def test_a_full_disk_half_way_keeps_what_is_done(sam2, folder, monkeypatch):
    assert segment(sam2, folder, out="whole.zarr").exit_code == 0
    with monkeypatch.context() as patch:
        full_after(patch, 11)
        result = segment(sam2, folder)
    assert result.exit_code == 2
    assert "the disk is full" in result.stderr.splitlines()[-1]
    assert "--resume" in result.stderr.splitlines()[-1]
    assert segment(sam2, folder, "--resume").exit_code == 0
    np.testing.assert_array_equal(labels_in(folder / "out.zarr"), labels_in(folder / "whole.zarr"))


def test_control_c_says_how_to_go_on(sam2, folder, monkeypatch):
    from sam2_core.volume.session_run import Run

    assert segment(sam2, folder, out="whole.zarr").exit_code == 0
    calls = []
    step = Run.__next__

    def interrupted(run):
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return step(run)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "__next__", interrupted)
        result = segment(sam2, folder)
    assert result.exit_code == 130
    assert "--resume" in result.stderr
    assert "was begun and not ended" in segment(sam2, folder).stderr
    other = segment(sam2, folder, "--resume", "--direction", "forward")
    assert other.exit_code == 2
    assert "begun with another direction" in other.stderr
    assert segment(sam2, folder, "--resume").exit_code == 0
    np.testing.assert_array_equal(labels_in(folder / "out.zarr"), labels_in(folder / "whole.zarr"))
    done = segment(sam2, folder, "--resume")
    assert done.exit_code == 2
    assert "is complete" in done.stderr


def test_a_killed_run_resumes_to_the_labels_of_an_unbroken_one(sam2, folder, checkpoint):
    points = [[12, 15], [34, 26]]
    objects = [
        {"id": i + 1, "prompts": [{"frame": 5 - 2 * i, "points": [p], "labels": [1]}]} for i, p in enumerate(points)
    ]
    (folder / "prompts.json").write_text(json.dumps({"objects": objects}))
    assert segment(sam2, folder, out="whole.zarr").exit_code == 0
    command = [sys.executable, "-m", "sam2_core", "segment", "stack.tif", "--prompts", "prompts.json", "--out"]
    command += ["out.zarr", "--model", str(checkpoint), "--config", "nano/cells-nano", "--image-size", "64"]
    journal = folder / "out.zarr.session" / "journal.jsonl"
    process = subprocess.Popen(command, cwd=folder, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while not journal.exists() or journal.read_bytes().count(b'"act":"plane"') < 4:
            assert process.poll() is None, "ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.005)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert b'"act":"end"' not in journal.read_bytes()
    resumed = subprocess.run([*command, "--resume"], cwd=folder, capture_output=True, text=True)
    assert resumed.returncode == 0, resumed.stderr
    whole = labels_in(folder / "whole.zarr")
    assert whole.any(axis=(1, 2)).all()
    np.testing.assert_array_equal(labels_in(folder / "out.zarr"), whole)
    assert not (folder / "out.zarr.session").exists()


def refused(run, folder, sentence):
    """One sentence, exit code 2, and the folder as it was."""
    before = names(folder)
    result = run()
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("sam2: "), result.stderr
    last = result.stderr.splitlines()
    assert len([line for line in last if line.startswith("sam2: ")]) == 1
    assert sentence in result.stderr
    assert "Traceback" not in result.stderr
    assert names(folder) == before
