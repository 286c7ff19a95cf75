"""`sam2 auto`: everything in an image, plane by plane, linked through the planes, or carried on from the first."""

from __future__ import annotations

import time
from itertools import product
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from sam2_core.cli import options
from sam2_core.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from sam2_core.cli.output import Output
    from sam2_core.volume.session import Session
    from sam2_core.volume.session_state import Grid, Plane


def auto(
    input_path: options.Input,
    out: options.Out,
    model: options.Model = "cells-nano",
    config: options.Config = None,
    axis: options.Axis = None,
    axes: options.Axes = None,
    channel: options.ChannelOption = None,
    level: options.LevelOption = 0,
    window: options.WindowOption = None,
    frames: options.RangeOption = None,
    image_size: options.ImageSize = None,
    device: options.Device = "auto",
    points_per_side: Annotated[int, typer.Option(min=1, help="Clicks along each side of a plane.")] = 32,
    pred_iou_thresh: options.PredIouThresh = None,
    stability_score_thresh: options.StabilityScoreThresh = None,
    box_nms_thresh: Annotated[float, typer.Option(help="Overlap of boxes above which the better mask stays.")] = 0.7,
    min_area: Annotated[int, typer.Option(min=0, help="Objects of fewer pixels are left out.")] = 0,
    max_area: Annotated[int | None, typer.Option(min=1, help="Objects of more pixels are left out.")] = None,
    crop_layers: Annotated[int, typer.Option(min=0, help="Layers of crops, for small objects: slower.")] = 0,
    tile: Annotated[
        str | None,
        typer.Option(metavar="SIDE", help="Search large planes by tiles of this many pixels; 'model': its input size."),
    ] = None,
    link: Annotated[
        bool, typer.Option("--link", help="Find objects on every frame, and link them through the frames.")
    ] = False,
    track: Annotated[
        bool, typer.Option("--track", help="Find objects on the first frame only, and carry them through the others.")
    ] = False,
    overwrite: options.Overwrite = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was stopped or killed.")] = False,
) -> None:
    """Segment everything in INPUT, without prompts.

    Each plane gets labels of its own, from 1; with --link or --track an object keeps its number through the volume.
    """
    from sam2_core.cli.output import Output
    from sam2_core.cli.segment import carry
    from sam2_core.predict.automatic_tiles import labels_by_tiles
    from sam2_core.volume.automatic import label_finder, sized
    from sam2_core.volume.label_prompts import objects_of
    from sam2_core.volume.open import open_volume
    from sam2_core.volume.session_plan import complete_ranges
    from sam2_core.volume.session_settings import grid_of
    from sam2_core.volume.window import windows_for

    if link and track:
        raise InputError("--link looks at every frame and --track at the first alone: give one of them")
    side = _tile(tile)
    volume = open_volume(input_path, axes=axes, level=level)
    grid = grid_of(volume, axis)
    ranges = complete_ranges(grid, options.parse_range(frames, grid.axis))
    chosen, limits = options.parse_channel(channel), options.parse_window(window)
    windows_for(volume, chosen, limits)
    found: dict[str, Any] = {
        "points_per_side": points_per_side,
        "box_nms_thresh": box_nms_thresh,
        "crop_n_layers": crop_layers,
    }
    settings = options.run_settings(
        volume, input_path, model, config, image_size, grid.axis, ranges, channel=channel, window=window
    )
    settings |= {"track": track, "link": link, "tile": tile, "min-area": min_area, "max-area": max_area, **found}
    settings |= {"pred_iou_thresh": pred_iou_thresh, "stability_score_thresh": stability_score_thresh}
    output = Output.prepare(out, volume, settings, overwrite=overwrite, resume=resume)

    from sam2_core.build import load_model
    from sam2_core.predict.video_predictor import SAM2VideoPredictor

    network = load_model(model, device=device, config=config, image_size=image_size)
    found |= options.automatic_thresholds(network, pred_iou_thresh, stability_score_thresh)
    predictor = SAM2VideoPredictor(network)
    find = label_finder(predictor, **found)
    side = network.image_size if side == "model" else side
    with output.session(resume, predictor, volume, config=config, axis=axis, channel=chosen, window=limits) as session:

        def labels_of(plane: Plane) -> np.ndarray:
            axis_, index, still = session.where(plane)
            image = session.source(still, axis_).frame(index)
            labels = find(image) if side is None else labels_by_tiles(find, image, side)
            return sized(labels, min_area, max_area)

        def first_objects() -> Any:
            plane = planes_of(grid, ranges)[0]
            return objects_of(labels_of(plane), dict(plane), f"what was found in {volume.name}")

        if track:
            done, seconds = carry(session, output, first_objects, ranges, "forward")
        elif link:
            frames_ = [dict(plane) or 0 for plane in planes_of(grid, ranges)]
            areas = {"min_area": min_area, "max_area": max_area}
            done, seconds = _link(session, output, frames_, tile=side, find=find, **areas)
        else:
            done, seconds = _paint(session, output, planes_of(grid, ranges), labels_of)
        target = session.labels
        count = len(session.objects) if track or link else None
    output.finish(keep_session=False)
    pace = f", {seconds / done:.2f} s per frame" if done else ""
    objects = "" if count is None else f"{count} objects, "
    typer.echo(f"{target.path}: {objects}{done} frame{'s' * (done != 1)}{pace}")


def planes_of(grid: Grid, ranges: dict[str, tuple[int, int]]) -> list[Plane]:
    """Every plane within the ranges, in order."""
    spans = [range(*ranges.get(a, (0, n))) for a, n in grid.axes]
    names = [a for a, _ in grid.axes]
    return [tuple(zip(names, place)) for place in product(*spans)]


def _tile(text: str | None) -> int | Literal["model"] | None:
    """What --tile says."""
    if text is None:
        return None
    if text == "model":
        return "model"
    if not text.isdecimal() or int(text) < 4:
        raise InputError(f"--tile {text}: give a number of pixels, at least 4, or 'model'")
    return int(text)


def _link(session: Session, output: Output, frames: list[int | dict[str, int]], **given: Any) -> tuple[int, float]:
    """Find and link objects; a run that was killed begins anew, as the numbers depend on all that came before."""
    from tqdm import tqdm

    from sam2_core.volume.automatic import automatic

    while session.undo() is not None:
        pass
    started = time.perf_counter()
    with tqdm(desc="auto", unit="tile" if given["tile"] else "frame") as bar:
        try:
            for done, total in automatic(session, frames, **given):
                bar.total = total
                bar.update(done - bar.n)
        except KeyboardInterrupt:
            typer.echo(output.stopped() if output.kept else "sam2: stopped; nothing was written", err=True)
            raise typer.Exit(130) from None
    return len(frames), time.perf_counter() - started


def _paint(session: Session, output: Output, planes: list[Plane], labels_of: Any) -> tuple[int, float]:
    """Label plane by plane; planes that an earlier run painted are left as they are."""
    from tqdm import tqdm

    started = time.perf_counter()
    before = sum(entry.kind == "paint" for entry in session.history.done)
    done = 0
    try:
        for plane in tqdm(planes[before:], desc="auto", unit="frame"):
            session.paint(dict(plane) or 0, labels_of(plane))
            done += 1
            output.kept = True
    except KeyboardInterrupt:
        typer.echo(output.stopped(), err=True)
        raise typer.Exit(130) from None
    except (InputError, OSError) as error:
        if not output.kept:
            raise
        raise output.explained(error) from error
    return done, time.perf_counter() - started
