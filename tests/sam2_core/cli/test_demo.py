"""The parts of `sam2 demo`; tests/e2e runs it whole."""

import importlib.util

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from sam2_core.cli import demo, demo_picture
from sam2_core.cli.main import app
from sam2_core.errors import InputError, MissingDependencyError


def discs(*places, size=(40, 60)):
    """Labels 1, 2, ... of discs at (x, y, radius)."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    labels = np.zeros(size, np.uint16)
    for number, (x, y, radius) in enumerate(places, 1):
        labels[(columns - x) ** 2 + (rows - y) ** 2 <= radius**2] = number
    return labels


def test_clicks_lie_deepest_inside_each_label():
    labels = discs((10, 12, 5), (0, 30, 6), (40, 20, 7))
    labels[labels == 2] = 9  # numbers need not be consecutive
    prompts = demo.click_centres(labels)
    assert [item.id for item in prompts.objects] == [1, 2, 3]
    clicks = {item.prompts[0].points[0]: item.prompts[0] for item in prompts.objects}
    assert (10, 12) in clicks
    assert (40, 20) in clicks
    for (x, y), prompt in clicks.items():
        assert labels[int(y), int(x)] > 0
        assert prompt.labels == (1,)
        assert prompt.frame == 0
    # the label at the image's edge is clicked inside, not on the edge
    assert any(x > 0 and labels[int(y), int(x)] == 9 for x, y in clicks)


def test_scores_pair_objects_one_to_one():
    labelled = discs((15, 15, 6), (40, 20, 6))
    assert demo.score(labelled, labelled) == demo.Score(2, 2.0)
    renumbered = np.choose(labelled, [0, 7, 3])
    assert demo.score(renumbered, labelled).mean == 1.0
    halves = labelled.copy()
    halves[:16][labelled[:16] == 1] = 5  # two objects on one nucleus: only one of them can be its partner
    split = demo.score(halves, labelled)
    assert split.found == 3
    assert split.mean == pytest.approx((1.0 + np.mean(halves[labelled == 1] == 5)) / 3)
    lost = demo.score(np.where(labelled == 1, labelled, 0), labelled)
    assert (lost.found, lost.mean) == (1, 1.0)
    assert demo.score(np.zeros_like(labelled), labelled).mean == 0.0


def test_report_states_all_that_was_lost(capsys):
    demo.report([demo.Score(4, 3.0), demo.Score(2, 1.0), demo.Score(0, 0.0)], prompted=4)
    text = capsys.readouterr().out
    assert "mean IoU 0.625 " in text  # of the two frames with nuclei
    assert "it would be 0.333." in text
    assert "last frame: 0.000" in text


def test_only_what_a_demo_wrote_is_replaced(tmp_path):
    out = tmp_path / "out"
    demo.check_output(out, overwrite=False)
    out.mkdir()
    (out / demo.PICTURE).touch()
    with pytest.raises(InputError, match="--overwrite"):
        demo.check_output(out, overwrite=False)
    demo.check_output(out, overwrite=True)
    (out / "thesis.tex").touch()
    with pytest.raises(InputError, match="other things"):
        demo.check_output(out, overwrite=True)


@pytest.mark.parametrize("absent", ["ndev_sampledata", "matplotlib"])
def test_without_the_extra_it_says_what_to_install(tmp_path, monkeypatch, absent):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == absent else find_spec(name))
    if absent == "matplotlib":
        pytest.importorskip("ndev_sampledata")
    with pytest.raises(MissingDependencyError, match=rf"{absent}.*napari-sam2\[demo\]"):
        demo.find_sample()
    result = CliRunner().invoke(app, ["demo", "--out", str(tmp_path / "out")])
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_timelapse_is_ome_zarr_on_the_files_grid(tmp_path):
    from sam2_core.volume.open import open_volume

    pixels = np.random.default_rng(0).integers(0, 999, (3, 4, 20, 30), dtype=np.uint16)
    file = open_volume(pixels, axes="tcyx", scale={"y": 0.6, "x": 0.6})
    demo.write_timelapse(file, tmp_path / "image.zarr")
    image = open_volume(tmp_path / "image.zarr")
    assert image.axes == "tcyx"
    assert image.scale == {"t": 1.0, "y": 0.6, "x": 0.6}
    assert image.units == {"y": "micrometer", "x": "micrometer"}
    assert image.channel_names == ("nuclei", "transmitted light")
    np.testing.assert_array_equal(image.read(), pixels[:, :2])


def test_pictures_show_each_object_in_its_colour(tmp_path):
    pytest.importorskip("matplotlib")
    labels = np.stack([discs((15 + t, 15, 8), (40, 20 + t, 8)) for t in range(3)]).astype(np.uint32)
    image = np.zeros(labels.shape, np.float32)
    demo_picture.draw_picture(tmp_path / "a.png", image, labels, "two discs", pixel_size=2.0)
    demo_picture.draw_movie(tmp_path / "a.gif", image, labels, pixel_size=2.0)
    colours = np.array([demo_picture.colour_of(i) for i in (1, 2)]) * 255
    with Image.open(tmp_path / "a.gif") as movie:
        assert movie.n_frames == 3
        assert movie.info["loop"] == 0
        first = np.asarray(movie.convert("RGB"), float)
    with Image.open(tmp_path / "a.png") as picture:
        whole = np.asarray(picture.convert("RGB"), float)
    for pixels in (first, whole):
        distances = np.linalg.norm(pixels[:, :, None] - colours, axis=-1).reshape(-1, 2)
        assert (distances < 24).sum(axis=0).min() > 50
    # the discs lie left and right of each other, below the header
    places = [np.argwhere(np.linalg.norm(first - c, axis=-1) < 24).mean(0) for c in colours]
    assert places[0][1] / first.shape[1] == pytest.approx(15 / 60, abs=0.05)
    assert places[1][1] / first.shape[1] == pytest.approx(40 / 60, abs=0.05)


def test_paths_follow_the_centres():
    labels = np.stack([discs((15 + t, 15, 6)) for t in range(3)])
    labels[1] = 0  # lost, and found again
    path = demo_picture.centres(labels)[1]
    assert list(path) == [0, 2]
    assert path[2] == pytest.approx((17, 15))


def test_neighbouring_numbers_have_different_colours():
    colours = np.array([demo_picture.colour_of(i) for i in range(1, 60)])
    assert colours.min() >= 0
    assert colours.max() <= 1
    assert np.linalg.norm(np.diff(colours, axis=0), axis=1).min() > 0.3
