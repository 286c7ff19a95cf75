"""The command line as a whole: quick help, and errors that are one sentence."""

import errno
import subprocess
import sys
from types import ModuleType
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from sam2_core.cli import main
from sam2_core.errors import InputError, MissingDependencyError

HEAVY = ("torch", "torchvision", "numpy", "zarr", "dask", "skimage", "scipy", "PIL", "pydantic", "requests")


def python(code: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


@pytest.fixture
def command(monkeypatch):
    """Put a function in the place of `sam2 info` and give a way to run it."""

    def install(function):
        module = ModuleType("sam2_test_command")
        module.info = function
        monkeypatch.setitem(sys.modules, "sam2_test_command", module)
        monkeypatch.setitem(main.COMMANDS, "info", ("sam2_test_command", "info", "For a test."))
        return lambda *args: CliRunner().invoke(main.app, ["info", *args])

    return install


def test_help_is_quick_and_imports_nothing_heavy():
    code = f"""
import sys, time
from sam2_core.cli.main import run
sys.argv = ["sam2", "--help"]
try:
    run()
except SystemExit as end:
    assert end.code == 0, end.code
print("heavy:", [name for name in {HEAVY!r} if name in sys.modules])
print("seconds:", time.process_time())
"""
    done = python(code)
    assert done.returncode == 0, done.stderr
    for name in main.COMMANDS:
        assert f"  {name} " in done.stdout
    assert "heavy: []" in done.stdout
    # processor time, which other work on the machine does not change; interpreter and all it is about 0.1 s
    assert float(done.stdout.rsplit("seconds:", 1)[1]) < 1


def test_importing_the_package_imports_nothing_heavy():
    done = python(f"import sys, sam2_core, sam2_core.weights; print([n for n in {HEAVY!r} if n in sys.modules])")
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_version():
    result = CliRunner().invoke(main.app, ["--version"])
    assert result.exit_code == 0
    assert result.output.startswith("sam2 (napari-sam2) ")


def test_module_runs_as_the_command():
    done = subprocess.run([sys.executable, "-m", "sam2_core", "--help"], capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stdout.startswith("Usage: sam2 ")


@pytest.mark.parametrize("arguments", [["segmnt"], ["--bogus"], []])
def test_usage_errors_exit_2(arguments):
    done = subprocess.run([sys.executable, "-m", "sam2_core", *arguments], capture_output=True, text=True)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "Usage: sam2" in done.stderr + done.stdout


def test_a_command_gets_its_arguments_and_explains_itself(command):
    seen = []

    def info(path: str, level: Annotated[int, typer.Option(help="Which level.")] = 0) -> None:
        """Look at PATH."""
        seen.append((path, level))

    invoke = command(info)
    assert invoke("a.tif", "--level", "2").exit_code == 0
    assert seen == [("a.tif", 2)]
    text = invoke("--help").output
    assert text.startswith("Usage: sam2 info [OPTIONS] ")
    assert "Look at PATH." in text
    assert invoke("a.tif", "--level", "two").exit_code == 2
    assert invoke().exit_code == 2


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (
            InputError("a.tif is empty: give a file with pixels"),
            "sam2: a.tif is empty: give a file with pixels",
        ),
        (
            MissingDependencyError("nibabel", "medical", "read NIfTI files"),
            'sam2: nibabel is needed to read NIfTI files: run pip install "napari-sam2[medical]"',
        ),
        (OSError(errno.ENOSPC, "No space left on device"), "sam2: No space left on device"),
        (PermissionError(errno.EACCES, "Permission denied", "/out"), "sam2: /out: Permission denied"),
    ],
)
def test_errors_of_the_user_are_one_sentence_and_exit_2(command, error, sentence):
    def info() -> None:
        raise error

    result = command(info)()
    assert result.exit_code == 2
    assert result.stderr == sentence + "\n"
    assert result.stdout == ""


def test_a_bug_is_not_hidden(command):
    def info() -> None:
        raise OSError("not from the operating system")

    result = command(info)()
    assert result.exit_code == 1
    assert isinstance(result.exception, OSError)


def test_control_c_exits_130(command):
    def info() -> None:
        raise KeyboardInterrupt

    assert command(info)().exit_code == 130


def test_a_reader_that_goes_away_is_no_traceback():
    code = "import sam2_core.cli.main as m, sys; sys.argv = ['sam2', '--help']; m.run()"
    writer = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert writer.stdout is not None
    assert writer.stderr is not None
    writer.stdout.close()
    error = writer.stderr.read().decode()
    writer.wait()
    assert error == ""
