"""`sam2 segment`: objects given by prompts, segmented and carried through a volume or time-lapse."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sam2_core.cli import options
from sam2_core.errors import InputError

if TYPE_CHECKING:
    from sam2_core.cli.output import Output
    from sam2_core.volume.prompts import LabelledObject
    from sam2_core.volume.session import Session
    from sam2_core.volume.session_plan import Direction
    from sam2_core.volume.session_state import Grid
    from sam2_core.volume.volume import Volume


def _print_schema(asked: bool) -> None:
    if asked:
        from sam2_core.volume.prompts import PromptFile

        typer.echo(json.dumps(PromptFile.model_json_schema(by_alias=True), indent=2))
        raise typer.Exit


def segment(
    input_path: options.Input,
    prompts: Annotated[
        Path, typer.Option(help="Prompts (JSON, see --print-schema), or a label image: every label is an object.")
    ],
    out: options.Out,
    model: options.Model = "cells-nano",
    config: options.Config = None,
    axis: options.Axis = None,
    axes: options.Axes = None,
    channel: options.ChannelOption = None,
    level: options.LevelOption = 0,
    window: options.WindowOption = None,
    frames: options.RangeOption = None,
    direction: Annotated[str, typer.Option(help="From the prompts: forward, backward or both.")] = "both",
    one_piece: Annotated[
        bool,
        typer.Option("--one-piece", help="Tracked objects are in one piece on each plane, as cells and nuclei are."),
    ] = False,
    distinct: Annotated[
        bool,
        typer.Option(
            "--distinct", help="Of two tracked objects that come to lie in one place, leave out the less sure."
        ),
    ] = False,
    image_size: options.ImageSize = None,
    device: options.Device = "auto",
    frame: Annotated[
        str, typer.Option(metavar="N", help="Frame that a label image given as prompts shows; also t=3,z=10.")
    ] = "0",
    overwrite: options.Overwrite = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was stopped or killed.")] = False,
    keep_session: Annotated[
        bool, typer.Option("--keep-session", help="Keep the session (journal of all acts) beside OUT.")
    ] = False,
    print_schema: Annotated[
        bool,
        typer.Option("--print-schema", callback=_print_schema, is_eager=True, help="Print the schema of prompts."),
    ] = False,
) -> None:
    """Segment the objects that PROMPTS show and carry them through INPUT.

    Works plane by plane; a run that is stopped goes on with --resume, to the same labels.
    """
    from sam2_core.cli.output import Output
    from sam2_core.volume.open import open_volume
    from sam2_core.volume.session_plan import check_direction, complete_ranges
    from sam2_core.volume.session_settings import grid_of
    from sam2_core.volume.session_state import check_prompts, is_within
    from sam2_core.volume.window import windows_for

    volume = open_volume(input_path, axes=axes, level=level)
    grid = grid_of(volume, axis)
    objects = read_prompts(prompts, frame, volume, grid)
    check_prompts(objects, grid)
    ranges = complete_ranges(grid, options.parse_range(frames, grid.axis))
    for item in objects:
        for prompt in item.prompts:
            if not is_within(grid.plane(prompt.frame), ranges):
                where = json.dumps(prompt.frame)
                raise InputError(f"object {item.id} is prompted on frame {where}, which --range {frames} leaves out")
    way = check_direction(direction)
    chosen, limits = options.parse_channel(channel), options.parse_window(window)
    windows_for(volume, chosen, limits)
    settings = options.run_settings(
        volume, input_path, model, config, image_size, grid.axis, ranges, channel=channel, window=window
    )
    settings |= {"prompts": _digest(objects), "direction": direction, "one_piece": one_piece, "distinct": distinct}
    output = Output.prepare(out, volume, settings, overwrite=overwrite, resume=resume)

    from sam2_core.build import load_model
    from sam2_core.predict.video_predictor import SAM2VideoPredictor

    network = load_model(model, device=device, config=config, image_size=image_size)
    predictor = SAM2VideoPredictor(network, one_piece=one_piece, distinct=distinct)
    with output.session(resume, predictor, volume, config=config, axis=axis, channel=chosen, window=limits) as session:
        done, seconds = carry(session, output, lambda: objects, ranges, way)
        session.labels.set_names({i.id: i.name for i in session.objects if i.name})
    output.finish(keep_session)
    pace = f", {seconds / done:.2f} s per frame" if done else ""
    count = f"{len(objects)} object{'s' * (len(objects) != 1)}"
    typer.echo(f"{output.target}: {count}, {done} frame{'s' * (done != 1)}{pace}")


def read_prompts(path: Path, frame: str, volume: Volume, grid: Grid) -> tuple[LabelledObject, ...]:
    """Objects from a prompts file, or from a label image that shows `frame`."""
    from sam2_core.volume.label_prompts import label_prompts
    from sam2_core.volume.prompts import load_prompts

    if path.suffix.lower() == ".json" or _starts_as_json(path):
        return load_prompts(path).objects
    try:
        plane = grid.plane(options.parse_frame(frame))
    except ValueError as error:
        raise InputError(f"--frame {frame}: {error}") from None
    return label_prompts(path, volume, grid, plane)


def carry(
    session: Session,
    output: Output,
    objects: Callable[[], tuple[LabelledObject, ...]],
    ranges: dict[str, tuple[int, int]],
    direction: Direction,
) -> tuple[int, float]:
    """Propagate objects, or go on with it, under a progress bar; the number of frames and the seconds they took."""
    from tqdm import tqdm

    run = session.resume()
    if run is None:
        if output.finished(session):  # killed before it could tidy up
            return 0, 0.0
        while session.undo() is not None:  # killed before the run began
            pass
        session.add_prompts(objects())
        run = session.propagate(ranges=ranges, direction=direction)
    started = time.perf_counter()
    done = 0
    try:
        for _ in tqdm(run, total=run.length, desc="segment", unit="frame"):
            done += 1
            output.kept = True
    except KeyboardInterrupt:
        run.close()
        typer.echo(output.stopped(), err=True)
        raise typer.Exit(130) from None
    except (InputError, OSError) as error:
        if not output.kept:
            raise
        raise output.explained(error) from error
    return done, time.perf_counter() - started


def _starts_as_json(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(64).lstrip()[:1] in (b"{", b"[")


def _digest(objects: tuple[LabelledObject, ...]) -> str:
    text = json.dumps([item.model_dump(mode="json") for item in objects], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
