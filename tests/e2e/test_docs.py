"""The Python examples of the documentation run, as they stand and in their order."""

import re
from pathlib import Path

import numpy as np
import pytest
import zarr
from PIL import Image

PAGE = Path(__file__).parents[2] / "docs" / "python.md"


@pytest.fixture
def files(tmp_path, monkeypatch):
    """The files that the page speaks of: two bright discs, one of which drifts."""
    t, y, x = np.mgrid[:5, :128, :160]
    discs = ((x - 40 - 3 * t) ** 2 + (y - 45) ** 2 < 15**2) | ((x - 112) ** 2 + (y - 85) ** 2 < 20**2)
    movie = (np.random.default_rng(0).normal(30, 8, t.shape) + 160 * discs).clip(0, 255).astype(np.uint8)
    monkeypatch.chdir(tmp_path)
    Image.fromarray(movie[0]).save("cells.png")
    Path("frames").mkdir()
    for number, frame in enumerate(movie):
        Image.fromarray(frame).save(f"frames/{number:05d}.png")
    scale = {"type": "scale", "scale": [1.0, 1.0, 0.5, 0.5]}
    kinds = {"t": "time", "c": "channel"}
    axes = [{"name": a, "type": kinds.get(a, "space")} for a in "tcyx"]
    multiscale = {"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": [scale]}]}
    group = zarr.create_group("timelapse.zarr", attributes={"ome": {"version": "0.5", "multiscales": [multiscale]}})
    group.create_array("0", data=movie[:, None], chunks=(1, 1, 128, 160), dimension_names=list("tcyx"))


def test_python_page(files, capsys):
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(blocks) >= 6
    names: dict = {}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
    assert np.unique(names["masks"][1]).size == 2  # the corrected object is there on the last frame
    assert names["labels"].shape == (5, 128, 160)
    assert Path("work/01_RES/res_track.txt").exists()
    assert "tcyx" in capsys.readouterr().out
