"""The command `sam2`: its table of commands, and the one place where errors become sentences.

Each command's module is imported only when that command is asked for, so `sam2 --help` is immediate.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from sam2_core.errors import InputError

# name: (module, function or sub-app in it, one line of help)
COMMANDS: dict[str, tuple[str, str, str]] = {
    "segment": ("sam2_core.cli.segment", "segment", "Segment and track objects given by prompts."),
    "auto": ("sam2_core.cli.auto", "auto", "Segment everything in an image or volume, without prompts."),
    "predict-video": ("sam2_core.cli.predict_video", "predict_video", "Carry the first masks of videos onwards."),
    "info": ("sam2_core.cli.info", "info", "Show what a file holds: axes, size, scale, channels, levels."),
    "export": ("sam2_core.cli.export", "export", "Write labels as TIFF, NIfTI, COCO JSON or CTC."),
    "labels": ("sam2_core.cli.labels", "app", "Gather labelled images for training, and look after them."),
    "demo": ("sam2_core.cli.demo", "demo", "Track nuclei through a real time-lapse and show the picture."),
    "serve": ("sam2_core.cli.serve", "serve", "Answer annotators in Label Studio with masks."),
    "finetune": ("sam2_core.cli.finetune", "finetune", "Train a model on a label store."),
    "evaluate": ("sam2_core.cli.evaluate", "evaluate", "Measure a model, or masks, on labelled data."),
    "models": ("sam2_core.cli.models", "app", "List, download, verify and add checkpoints."),
}

HELP = """Segment images, 3D volumes and time-lapses with SAM 2.1.

\b
First steps:
  sam2 demo                               a real time-lapse, segmented and tracked
  sam2 info stack.ome.zarr                axes, size, scale, channels, levels
  sam2 segment stack.ome.zarr --prompts prompts.json --out labels.zarr
  sam2 auto image.tif --out labels.zarr   no prompts: every object it finds
  sam2 models list                        the checkpoints there are

"sam2 COMMAND --help" explains a command and its options.
"""


class LazyGroup(TyperGroup):
    """A group that imports a command when it runs, and turns the user's errors into one sentence."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        name, command, rest = super().resolve_command(ctx, args)
        return name, _load(name) if command and name else None, rest

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except InputError as error:
            raise _failure(str(error)) from None
        except BrokenPipeError:
            raise
        except OSError as error:
            if error.errno is None:  # not from the operating system: a bug, to be seen whole
                raise
            raise _failure(_sentence(error)) from None
        except KeyboardInterrupt:
            raise typer.Exit(130) from None


def _placeholder() -> None:
    """Stand for a command in the list that `sam2 --help` prints."""


def _load(name: str) -> Any:
    module, attribute, summary = COMMANDS[name]
    target = getattr(import_module(module), attribute)
    if not isinstance(target, typer.Typer):
        single = typer.Typer(add_completion=False, rich_markup_mode=None)
        single.command(name, short_help=summary)(target)
        target = single
    return typer.main.get_command(target)


def _failure(sentence: str) -> typer.Exit:
    typer.echo(f"sam2: {sentence}", err=True)
    return typer.Exit(2)


def _sentence(error: OSError) -> str:
    reason = error.strerror or str(error)
    return f"{error.filename}: {reason}" if error.filename is not None else reason


def _version(asked: bool) -> None:
    if asked:
        from sam2_core import __version__

        typer.echo(f"sam2 (napari-sam2) {__version__}")
        raise typer.Exit


app = typer.Typer(
    name="sam2", cls=LazyGroup, help=HELP, no_args_is_help=True, rich_markup_mode=None, add_completion=True
)
for _name, (_, _, _summary) in COMMANDS.items():
    app.command(_name, help=_summary)(_placeholder)


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


def run() -> None:
    """Run the command line; the entry point `sam2`."""
    try:
        typer.main.get_command(app)(prog_name="sam2")
    finally:
        try:
            sys.stdout.flush()
        except BrokenPipeError:  # `sam2 ... | head`: the reader has gone, and that is no error of ours
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
