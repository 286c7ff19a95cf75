"""Brush answers decode to exactly their masks with label-studio-sdk's own converter."""

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ls_backend.regions.results import image_regions
from tests.ls_backend.regions.drawn import STACK, blob, blobs

pytestmark = pytest.mark.e2e


@dataclass(frozen=True, eq=False)
class Answer:
    mask: np.ndarray
    score: float = 1.0


@pytest.fixture
def python():
    """An interpreter that has label-studio-sdk."""
    found = os.environ.get("LABEL_STUDIO_PYTHON")
    if not found:
        pytest.skip("LABEL_STUDIO_PYTHON does not name a Python that has label-studio-sdk")
    return found


def check(python, masks):
    tag = STACK.object("image")
    lines = []
    for mask in masks:
        (region,) = image_regions([(None, Answer(mask))], STACK, tag, mask.shape)
        height, width = region["original_height"], region["original_width"]
        lines.append(json.dumps({"rle": region["value"]["rle"], "height": height, "width": width}))
    script = Path(__file__).with_name("decode_with_sdk.py")
    done = subprocess.run([python, str(script)], input="\n".join(lines), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    decoded = [np.array(json.loads(line)) for line in done.stdout.splitlines()]
    assert len(decoded) == len(masks)
    for mask, alpha in zip(masks, decoded):
        np.testing.assert_array_equal(alpha, mask * 255)


# starting the other Python takes seconds: many masks for each start
@settings(max_examples=3, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(blobs, min_size=60, max_size=60))
def test_random_masks(python, masks):
    check(python, masks)


def test_long_runs(python):
    check(python, [np.ones((400, 400), bool), blob(0, 500, 700, 20, 0.4)])
