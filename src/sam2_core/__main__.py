"""`python -m sam2_core` is `sam2`."""

from sam2_core.cli.main import run

run()
