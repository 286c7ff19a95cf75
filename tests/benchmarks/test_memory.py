"""The judgement of a memory trace, and a short run of the measurement."""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("psutil")

from benchmarks.memory import report
from benchmarks.sampling import Trace

ROOT = Path(__file__).parents[2]


def trace(*resident: float) -> Trace:
    return Trace([(float(second), mb) for second, mb in enumerate(resident)])


def test_flat_below_the_limit():
    assert report(trace(100, 800, 900, 890, 910, 900, 905, 900, 900))


def test_growth_is_seen():
    assert not report(trace(*range(100, 2000, 100)))


def test_a_single_peak_is_seen():
    assert not report(trace(100, 800, 900, 2600, 910, 900, 905, 900, 900))


@pytest.mark.e2e
def test_the_measurement_runs():
    command = [sys.executable, "-m", "benchmarks.memory", "--planes", "6", "--side", "64", "--image-size", "64"]
    done = subprocess.run([*command, "--model", "random", "--every", "0.1"], cwd=ROOT, capture_output=True, text=True)
    # six planes are over before memory has settled, so the verdict may go either way
    assert done.returncode in (0, 1), done.stderr
    assert "6 planes of 64 x 64" in done.stdout
    assert "highest:" in done.stdout
