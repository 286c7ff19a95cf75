"""From an OME-Zarr and a prompts file to labels in the formats that other programs read, on the real command line."""

import json

import numpy as np
import pytest
import tifffile
import zarr

from sam2_core.metrics import iou

FRAMES, HEIGHT, WIDTH = 6, 128, 160


@pytest.fixture(scope="module")
def cells():
    """Two bright discs that drift through a noisy time-lapse: their masks (object, t, y, x) and the image (t, y, x)."""
    t, y, x = np.mgrid[:FRAMES, :HEIGHT, :WIDTH]
    masks = np.stack([(x - 40 - 3 * t) ** 2 + (y - 45) ** 2 < 15**2, (x - 112) ** 2 + (y - 85 + 2 * t) ** 2 < 20**2])
    noise = np.random.default_rng(0).normal(200, 30, t.shape)
    return masks, (noise + 900 * masks.any(0)).clip(0).astype(np.uint16)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, cells):
    """The image as OME-Zarr, and one click and one box as prompts."""
    path = tmp_path_factory.mktemp("segment")
    scale = {"type": "scale", "scale": [2.0, 0.5, 0.5]}
    axes = [{"name": "t", "type": "time"}, *({"name": a, "type": "space", "unit": "micrometer"} for a in "yx")]
    multiscale = {"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": [scale]}]}
    group = zarr.create_group(path / "cells.zarr", attributes={"ome": {"version": "0.5", "multiscales": [multiscale]}})
    group.create_array("0", data=cells[1], chunks=(1, HEIGHT, WIDTH), dimension_names=list("tyx"))
    click = {"frame": 0, "points": [[40, 45]], "labels": [1]}
    box = {"frame": 0, "box": [92, 65, 132, 105]}
    objects = [{"id": 1, "prompts": [click]}, {"id": 7, "name": "large", "prompts": [box]}]
    (path / "prompts.json").write_text(json.dumps({"objects": objects}))
    return path


@pytest.fixture(scope="module")
def segmented(sam2, folder):
    result = sam2("segment", "cells.zarr", "--prompts", "prompts.json", "--out", "labels.zarr", cwd=folder)
    assert result.returncode == 0, result.stderr
    assert "2 objects, 6 frames" in result.stdout
    return folder


def test_info_says_what_will_be_read(sam2, folder):
    result = sam2("info", "cells.zarr", "--json", cwd=folder)
    assert result.returncode == 0, result.stderr
    facts = json.loads(result.stdout)
    assert facts["axes"] == "tyx"
    assert facts["scale"] == {"t": 2.0, "y": 0.5, "x": 0.5}
    assert facts["default_axis"] == "t"


def test_objects_are_followed(sam2, segmented, cells):
    assert sam2("export", "labels.zarr", "--to", "tiff", "--out", "labels.tif", cwd=segmented).returncode == 0
    labels = tifffile.imread(segmented / "labels.tif")
    assert labels.shape == (FRAMES, HEIGHT, WIDTH)
    assert set(np.unique(labels)) == {0, 1, 7}
    for object_id, truth in zip((1, 7), cells[0]):
        fits = [iou(plane == object_id, true) for plane, true in zip(labels, truth)]
        assert min(fits) > 0.6, (object_id, fits)


def test_export_for_other_programs(sam2, segmented):
    assert sam2("export", "labels.zarr", "--to", "coco", "--out", "labels.json", cwd=segmented).returncode == 0
    coco = json.loads((segmented / "labels.json").read_text())
    assert len(coco["images"]) == FRAMES
    assert len(coco["annotations"]) == 2 * FRAMES
    assert sam2("export", "labels.zarr", "--to", "ctc", "--out", "01_RES", cwd=segmented).returncode == 0
    tracks = np.loadtxt(segmented / "01_RES" / "res_track.txt", dtype=int)
    np.testing.assert_array_equal(tracks, [[1, 0, FRAMES - 1, 0], [7, 0, FRAMES - 1, 0]])


def test_an_output_is_not_replaced_unasked(sam2, segmented):
    before = sorted(p.name for p in segmented.iterdir())
    result = sam2("segment", "cells.zarr", "--prompts", "prompts.json", "--out", "labels.zarr", cwd=segmented)
    assert result.returncode == 2
    assert result.stderr.startswith("sam2: labels.zarr exists")
    assert len(result.stderr.splitlines()) == 1
    assert sorted(p.name for p in segmented.iterdir()) == before


def test_a_prompt_outside_the_image_is_one_sentence(sam2, folder):
    (folder / "bad.json").write_text(
        json.dumps({"objects": [{"id": 1, "prompts": [{"frame": 0, "points": [[400, 5]], "labels": [1]}]}]})
    )
    result = sam2("segment", "cells.zarr", "--prompts", "bad.json", "--out", "bad.zarr", cwd=folder)
    assert result.returncode == 2
    assert "(400, 5)" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not (folder / "bad.zarr").exists()
