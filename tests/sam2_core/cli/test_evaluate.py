"""`sam2 evaluate` with a model of random weights: what is measured on what, and what cannot be."""

import json

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from sam2_core.cli.main import app
from sam2_core.labelstore import LabelStore
from sam2_core.labelstore.formats.davis import save_ids

SIZE = (40, 56)
CLICKS = {"clicks1", "clicks3", "clicks5", "box", "noc85", "noc90"}


@pytest.fixture
def davis(tmp_path):
    """One video of four frames with two objects."""
    root = tmp_path / "davis"
    for i in range(4):
        for kind in ("JPEGImages", "Annotations"):
            (root / kind / "one").mkdir(parents=True, exist_ok=True)
        ids = np.zeros(SIZE, int)
        ids[5:20, 5 + i : 20 + i] = 2
        ids[25:38, 30:50] = 5
        Image.fromarray(((ids > 0) * 130 + 20).astype(np.uint8)).convert("RGB").save(
            root / "JPEGImages" / "one" / f"{i:05d}.jpg"
        )
        save_ids(root / "Annotations" / "one" / f"{i:05d}.png", ids)
    return root


@pytest.fixture
def store(tmp_path):
    """A picture and a volume of two discs, both for validation."""
    made = LabelStore.create(tmp_path / "store")
    z, y, x = np.mgrid[:8, :40, :56]
    labels = np.select([(x - 14 - z) ** 2 + (y - 15) ** 2 < 60, (x - 40) ** 2 + (y - 26) ** 2 < 70], [1, 2])
    image = ((labels > 0) * 150 + 30).astype(np.uint8)
    made.add(image[0], labels[0], axes="yx", item="picture")
    made.add(image, labels, axes="zyx", item="volume")
    return made


def plain(*args):
    return CliRunner().invoke(app, [str(a) for a in args])


def report_of(result, path):
    assert result.exit_code == 0, result.output
    return json.loads(path.read_text())


def test_a_folder_of_videos(sam2, davis, tmp_path):
    result = sam2("evaluate", "--data", davis, "--out", tmp_path / "r.json", "--limit", "3")
    report = report_of(result, tmp_path / "r.json")
    assert set(report["measures"]) == {*CLICKS, "J", "F", "J&F"}
    assert report["measures"]["box"]["objects"] == 3
    assert report["clips"]["one"]["objects"] == report["measures"]["J"]["objects"] == 2
    assert 1 <= report["measures"]["noc85"]["score"] <= report["measures"]["noc90"]["score"] <= 20
    assert report["image_size"] == 64
    assert f"| J&F, clips | {report['measures']['J&F']['score']:.3f} | 2 objects |" in result.stdout
    assert "| NoC@90 (of 20 clicks) |" in result.stdout


def test_written_masks_score_as_the_model_does(sam2, davis, tmp_path):
    masks = tmp_path / "masks"
    assert sam2("predict-video", davis, "--out", masks).exit_code == 0
    model = report_of(sam2("evaluate", "--data", davis, "--out", tmp_path / "a.json"), tmp_path / "a.json")
    written = report_of(
        plain("evaluate", "--data", davis, "--predictions", masks, "--out", tmp_path / "b.json"), tmp_path / "b.json"
    )
    assert set(written["measures"]) == {"J", "F", "J&F"}
    assert written["clips"] == model["clips"]


def test_the_truth_scores_one_and_a_mask_that_is_missing_is_named(davis, tmp_path):
    result = plain("evaluate", "--data", davis, "--predictions", davis / "Annotations")
    assert result.exit_code == 0, result.output
    assert "| one | 2 | 1.000 | 1.000 | 1.000 |" in result.stdout
    (tmp_path / "masks" / "one").mkdir(parents=True)
    result = plain("evaluate", "--data", davis, "--predictions", tmp_path / "masks")
    assert result.exit_code == 2
    assert "00001.png is missing" in result.stderr
    save_ids(tmp_path / "masks" / "one" / "00001.png", np.zeros((9, 9)))
    result = plain("evaluate", "--data", davis, "--predictions", tmp_path / "masks")
    assert result.exit_code == 2
    assert "9 x 9 pixels" in result.stderr


def test_a_label_store(sam2, store, tmp_path, monkeypatch):
    from sam2_core.predict.automatic import SAM2AutomaticMaskGenerator

    # one of the two discs, and something that is none
    def found(self, image, progress=None):
        labels = np.zeros(image.shape[:2], np.uint32)
        labels[(np.mgrid[:40, :56][1] - 40) ** 2 + (np.mgrid[:40, :56][0] - 26) ** 2 < 70] = 1
        labels[:3, :3] = 2
        return labels

    monkeypatch.setattr(SAM2AutomaticMaskGenerator, "generate_labels", found)
    nothing = sam2("evaluate", "--data", store.path)
    assert nothing.exit_code == 2
    assert "--part all" in nothing.stderr
    result = sam2("evaluate", "--data", store.path, "--part", "all", "--limit", "4", "--out", tmp_path / "r.json")
    report = report_of(result, tmp_path / "r.json")
    assert set(report["measures"]) == {*CLICKS, "propagation", "ap50"}
    assert report["measures"]["ap50"] == {"score": pytest.approx(1 / 3, abs=1e-4), "images": 9}
    assert report["measures"]["propagation"]["objects"] == 2
    assert report["clips"] == {}
    store.split(0.5)
    few = sam2("evaluate", "--data", store.path, "--limit", "1", "--automatic", "0", "--out", tmp_path / "s.json")
    assert "ap50" not in report_of(few, tmp_path / "s.json")["measures"]
    snapshot = store.snapshot("before")
    named = sam2("evaluate", "--data", f"{store.path}@{snapshot.name}", "--part", "all", "--automatic", "0")
    assert named.exit_code == 0, named.output


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["--data", "nothing"], "neither a label store nor a folder"),
        (["--data", "davis", "--part", "test"], "has no part test"),
        (["--data", "davis", "--videos", "two"], "no video two"),
        (["--data", "store", "--part", "all", "--videos", "one"], "--videos is for folders"),
        (["--data", "davis", "--predictions", "masks"], "leave out --model"),
    ],
)
def test_bad_input(sam2, davis, store, tmp_path, monkeypatch, args, sentence):
    monkeypatch.chdir(tmp_path)
    result = sam2("evaluate", *args, "--out", "report.json")
    assert result.exit_code == 2, result.output
    assert sentence in result.stderr
    assert not (tmp_path / "report.json").exists()


def test_masks_are_measured_on_a_folder_with_enough_frames(davis, store, tmp_path):
    result = plain("evaluate", "--data", store.path, "--predictions", tmp_path)
    assert result.exit_code == 2
    assert "Annotations" in result.stderr
    for i in (1, 2):
        (davis / "Annotations" / "one" / f"{i:05d}.png").unlink()
    result = plain("evaluate", "--data", davis, "--predictions", tmp_path)
    assert result.exit_code == 2
    assert "three annotated frames" in result.stderr
