"""Several annotators at once get their own answers, and the benchmark says how fast."""

import os
import subprocess
import sys

import pytest


@pytest.mark.e2e
def test_several_annotators(tmp_path):
    command = [sys.executable, "-m", "benchmarks.annotators", "--annotators", "4", "--each", "3", "--side", "160"]
    done = subprocess.run(
        [*command, "--think", "0.05"],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "HOME": str(tmp_path)},
    )
    rows = [line.split("|") for line in done.stdout.splitlines() if line.startswith("|")]
    assert len(rows) == 4, done.stderr
    for row in rows[2:]:
        errors, mixed = row[-3], row[-2]
        assert (errors.strip(), mixed.strip()) == ("0", "0"), done.stdout + done.stderr
