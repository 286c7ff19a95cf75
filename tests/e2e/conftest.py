"""The real command line in processes of its own, with the model that the package brings."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sam2_core.weights.table import find_checkpoint


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.e2e)


@pytest.fixture(scope="session")
def sam2():
    """Run the installed command `sam2`; its exit code, output and errors."""
    command = Path(sys.executable).with_name("sam2")
    start = [str(command)] if command.exists() else [sys.executable, "-m", "sam2_core"]

    def run(*args, cwd=None):
        words = [*start, *(str(a) for a in args)]
        return subprocess.run(words, cwd=cwd, capture_output=True, text=True, timeout=1200, check=False)

    return run


@pytest.fixture(scope="session", autouse=True)
def bundled_model():
    """The package is whole."""
    assert find_checkpoint("cells-nano").path.is_file(), "the package lacks the weights of cells-nano"
