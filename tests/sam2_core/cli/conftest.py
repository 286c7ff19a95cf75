"""A small model with random weights, and images to run the commands on."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tifffile
from typer.testing import CliRunner

SIDE = "64"


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory, make_model):
    """A checkpoint of cells-nano's architecture with random weights."""
    import torch

    path = tmp_path_factory.mktemp("model") / "random.pt"
    torch.save({"model": make_model().state_dict()}, path)
    return path


@pytest.fixture
def folder(tmp_path):
    """A stack of two discs that drift, the labels of its first plane, and prompts for it."""
    z, y, x = np.mgrid[:10, :40, :48]
    rng = np.random.default_rng(0)
    stack = rng.integers(0, 60, z.shape).astype(np.uint8)
    discs = [(x - 12 - z) ** 2 + (y - 15) ** 2 < 50, (x - 34) ** 2 + (y - 26) ** 2 < 40]
    for disc in discs:
        stack[disc] += 130
    tifffile.imwrite(tmp_path / "stack.tif", stack)
    labels = 3 * discs[0][0] + 8 * discs[1][0]
    tifffile.imwrite(tmp_path / "labels.tif", labels.astype(np.uint16))
    write_prompts(tmp_path / "prompts.json", [{"frame": 0, "points": [[12, 15]], "labels": [1]}], 1)
    return tmp_path


def write_prompts(path, prompts, object_id):
    path.write_text(json.dumps({"objects": [{"id": object_id, "prompts": prompts}]}))


@pytest.fixture
def sam2(checkpoint):
    """Run a command in this process; the random model is added unless another is given."""
    from sam2_core.cli.main import app

    usual = {"--model": str(checkpoint), "--config": "nano/cells-nano", "--image-size": SIDE}

    def run(*args):
        words = [str(a) for a in args]
        return CliRunner().invoke(app, words + [w for k, v in usual.items() if k not in words for w in (k, v)])

    return run
