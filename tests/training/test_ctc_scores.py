"""Results of tracking score what py-ctcmetrics says, whoever wrote them."""

import shutil

import numpy as np
import pytest
import tifffile
from typer.testing import CliRunner

from sam2_core.cli.main import app
from sam2_core.errors import InputError
from sam2_core.labelstore.formats.ctc import CtcSequence
from training.ctc_scores import choose_sequences, follow, score_results, whole_objects
from training.measure import is_ctc_folder, measure_predictions, table

ctc_metrics = pytest.importorskip("ctc_metrics")

FRAMES = 5
TRACKS = "1 0 4 0\n2 0 2 0\n3 3 4 2\n4 3 4 2\n"  # the second one divides


def truth(t):
    """Two discs, of which the second becomes two."""
    y, x = np.mgrid[:60, :80]
    centres = {1: (15, 15 + 2 * t)} | ({2: (42, 40)} if t < 3 else {3: (42, 26), 4: (42, 56)})
    ids = np.zeros((60, 80), np.uint16)
    for i, (cy, cx) in centres.items():
        ids[(y - cy) ** 2 + (x - cx) ** 2 < 81] = i
    return ids


@pytest.fixture
def data(tmp_path):
    """A data set of one sequence, whose tracking truth are small marks."""
    folder = tmp_path / "Set"
    for name in ("01", "01_GT/TRA", "01_GT/SEG"):
        (folder / name).mkdir(parents=True)
    for t in range(FRAMES):
        ids = truth(t)
        tifffile.imwrite(folder / "01" / f"t{t:03d}.tif", ((ids > 0) * 900 + 100).astype(np.uint16))
        tifffile.imwrite(folder / "01_GT" / "SEG" / f"man_seg{t:03d}.tif", ids)
        marks = ids * (np.indices(ids.shape).sum(0) % 3 > 0)
        tifffile.imwrite(folder / "01_GT" / "TRA" / f"man_track{t:03d}.tif", marks.astype(np.uint16))
    (folder / "01_GT" / "TRA" / "man_track.txt").write_text(TRACKS)
    return folder


def write_result(folder, planes, tracks):
    folder.mkdir(parents=True)
    for t, ids in enumerate(planes):
        tifffile.imwrite(folder / f"mask{t:03d}.tif", ids.astype(np.uint16))
    (folder / "res_track.txt").write_text(tracks)


def test_a_perfect_result_scores_one(data, tmp_path):
    write_result(tmp_path / "res" / "01_RES", [truth(t) for t in range(FRAMES)], TRACKS)
    report = measure_predictions(data, tmp_path / "res")
    for name in ("SEG", "TRA", "DET", "LNK"):
        assert report["measures"][name] == {"score": 1.0, "sequences": 1}
    assert "| SEG, Cell Tracking Challenge | 1.000 | 1 sequence |" in table(report)
    assert "| 01 | 1.000 | 1.000 | 1.000 | 1.000 |" in table(report)


def test_a_lost_track_scores_what_the_package_says(data, tmp_path):
    planes = [truth(t) for t in range(FRAMES)]
    for plane in planes[2:]:
        plane[plane == 1] = 0
    result = tmp_path / "res" / "01_RES"
    write_result(result, planes, TRACKS.replace("1 0 4 0", "1 0 1 0"))
    ours = score_results(choose_sequences(data), tmp_path / "res")["sequences"]["01"]
    theirs = ctc_metrics.evaluate_sequence(str(result), str(data / "01_GT"), ["SEG", "TRA", "DET", "LNK"], threads=1)
    assert ours == {name: pytest.approx(theirs[name], abs=1e-4) for name in ("SEG", "TRA", "DET", "LNK")}
    assert max(ours.values()) < 1


def test_without_tracking_truth_there_is_seg_alone(data, tmp_path):
    shutil.rmtree(data / "01_GT" / "TRA")
    (data / "01_GT" / "SEG" / "man_seg001.tif").unlink()
    write_result(tmp_path / "01_RES", [truth(t) for t in range(FRAMES)], TRACKS)
    assert score_results(choose_sequences(data), tmp_path)["sequences"] == {"01": {"SEG": 1.0}}


def test_nothing_found_scores_zero(data, tmp_path):
    write_result(tmp_path / "01_RES", [np.zeros((60, 80))] * FRAMES, "")
    assert set(score_results(choose_sequences(data), tmp_path)["sequences"]["01"].values()) == {0.0}


def test_what_is_wrong_with_a_result_is_said(data, tmp_path):
    with pytest.raises(InputError, match="no sequence 02"):
        choose_sequences(data, ["02"])
    with pytest.raises(InputError, match="01_RES"):
        measure_predictions(data, tmp_path)
    planes = [truth(t) for t in range(FRAMES)]
    write_result(tmp_path / "few" / "01_RES", planes[:3], "1 0 2 0\n2 0 2 0\n")
    with pytest.raises(InputError, match="no mask of frame 3"):
        measure_predictions(data, tmp_path / "few")
    write_result(tmp_path / "wrong" / "01_RES", planes, "1 0 4 0\n")
    with pytest.raises(InputError, match=r"no valid result.*not in res_track"):
        measure_predictions(data, tmp_path / "wrong")
    write_result(tmp_path / "small" / "01_RES", [plane[:9] for plane in planes], TRACKS)
    with pytest.raises(InputError, match="do not fit"):
        measure_predictions(data, tmp_path / "small")


def test_marks_become_the_objects_they_lie_in():
    marks, gold, silver = np.zeros((3, 4, 12), int)
    marks[1, 1:3], marks[1, 5:7], marks[1, 10] = 7, 8, 9
    gold[:3, :4] = 1
    silver[:, 4:8] = 2
    silver[:, :4] = 3
    found = whole_objects(marks, [gold, silver])
    np.testing.assert_array_equal(np.unique(found), [0, 7, 8, 9])
    np.testing.assert_array_equal(found == 7, gold == 1)
    np.testing.assert_array_equal(found == 8, silver == 2)
    np.testing.assert_array_equal(found == 9, marks == 9)


def test_objects_are_given_whole_on_their_first_frame_and_followed(data, tmp_path, monkeypatch):
    import sam2_core.predict.vos as vos

    given = {}

    def perfect(predictor, source, first, ids_at):
        given.update({t: (ids, ids_at(t)) for t, ids in first.items()})
        assert len(source) == FRAMES
        yield from ((t, truth(t)) for t in range(FRAMES))

    monkeypatch.setattr(vos, "segment_clip", perfect)
    monkeypatch.setattr("sam2_core.predict.video_predictor.SAM2VideoPredictor", lambda model: None)
    follow(None, CtcSequence(data / "01"), tmp_path, progress=False)
    assert {t: ids for t, (ids, _) in given.items()} == {0: [1, 2], 3: [3, 4]}
    np.testing.assert_array_equal(given[3][1], truth(3))
    scores = score_results(choose_sequences(data), tmp_path)["sequences"]["01"]
    assert scores["SEG"] == scores["DET"] == 1.0
    assert scores["TRA"] < 1  # nobody says who divided


def test_the_command(data, tmp_path):
    assert is_ctc_folder(data)
    for wrong, sentence in ((["--part", "test"], "no part test"), (["--videos", "03"], "no sequence 03")):
        result = CliRunner().invoke(app, ["evaluate", "--data", str(data), "--device", "cpu", *wrong])
        assert result.exit_code == 2
        assert sentence in result.stderr
    result = CliRunner().invoke(app, ["evaluate", "--data", str(data), "--device", "cpu", "--image-size", "128"])
    assert result.exit_code == 0, result.output
    assert "| TRA, Cell Tracking Challenge |" in result.stdout
