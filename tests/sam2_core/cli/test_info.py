"""`sam2 info` as a user sees it."""

import json

import numpy as np
import tifffile
from typer.testing import CliRunner

from sam2_core.cli.main import app


def run(*args):
    return CliRunner().invoke(app, [str(a) for a in args])


def test_text_and_json(tmp_path):
    data = np.random.default_rng(0).integers(0, 999, (2, 5, 20, 30), dtype=np.uint16)
    metadata = {"axes": "CTYX", "PhysicalSizeX": 0.6, "PhysicalSizeXUnit": "µm", "Channel": {"Name": ["DNA", "light"]}}
    tifffile.imwrite(tmp_path / "a.ome.tif", data, metadata=metadata)
    text = run("info", tmp_path / "a.ome.tif")
    assert text.exit_code == 0, text.output
    lines = dict(line.split("  ", 1) for line in text.output.splitlines())
    assert lines["axes"].strip() == "tcyx"
    assert lines["shape"].strip() == "t=5 c=2 y=20 x=30"
    assert "x=0.6 micrometer" in lines["scale"]
    assert "window" in lines["channel 1 (light)"]
    facts = json.loads(run("info", tmp_path / "a.ome.tif", "--json").output)
    assert facts["shape"] == [5, 2, 20, 30]
    assert facts["channels"] == ["DNA", "light"]
    assert len(facts["default_windows"]) == 2


def test_assumed_axes_are_said_and_can_be_set(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((4, 20, 30), np.uint8), photometric="minisblack")
    output = run("info", tmp_path / "a.tif").output
    assert "zyx  (assumed" in output
    assert "constant" in output  # told, not fatal
    assert "(assumed" not in run("info", tmp_path / "a.tif", "--axes", "tyx").output


def test_bad_input_is_one_sentence(tmp_path):
    result = run("info", tmp_path / "absent.tif")
    assert result.exit_code == 2
    assert result.stderr.startswith("sam2: ")
    assert len(result.stderr.splitlines()) == 1
