"""The comparison on tiny inputs."""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("psutil")

ROOT = Path(__file__).parents[2]


@pytest.mark.parity
@pytest.mark.e2e
@pytest.mark.parametrize(("part", "row"), [("speed", "propagation, 16 objects"), ("memory", "peak memory")])
def test_a_quick_run_fills_the_page(part, row, tmp_path):
    pytest.importorskip("sam2", reason="the reference implementation is not installed")
    page = tmp_path / "page.md"
    command = [sys.executable, "-m", "benchmarks", "--quick", "--only", part, "--out", str(page), "--threads", "1"]
    sizes = ["--image-size", "64", "--many-size", "64", "--long-size", "64", "--points-per-side", "2"]
    done = subprocess.run([*command, *sizes], cwd=ROOT, capture_output=True, text=True)
    # at this size either side may be the faster one
    assert done.returncode in (0, 1), done.stderr
    assert f"| {row} |" in page.read_text()


def test_without_the_reference_one_sentence_says_what_to_do(tmp_path):
    hide = "import sys; sys.modules['sam2'] = None; sys.argv = ['benchmarks']; from benchmarks.run import main; main()"
    done = subprocess.run([sys.executable, "-c", hide], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert "pip install" in done.stderr
    assert "Traceback" not in done.stderr
