"""`sam2 evaluate`: measure a model, or masks that were written, on labelled data."""

from __future__ import annotations

import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from sam2_core.cli import options
from sam2_core.cli.training_extra import import_training
from sam2_core.errors import InputError


class PartName(StrEnum):
    """What of a label store is measured on."""

    validation = "validation"
    train = "train"
    test = "test"
    all = "all"


def evaluate(
    data: Annotated[
        Path,
        typer.Option(
            metavar="STORE|FOLDER",
            help="A label store (or STORE@SNAPSHOT), or a folder as DAVIS or the Cell Tracking Challenge have it.",
        ),
    ],
    model: Annotated[str | None, typer.Option(help="Name or checkpoint file.", show_default="cells-nano")] = None,
    config: options.Config = None,
    predictions: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Measure masks DIR/VIDEO/00000.png or DIR/01_RES instead of a model."),
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="REPORT.json", help="Write the report as JSON, too.")] = None,
    part: Annotated[PartName | None, typer.Option(help="Of a store.", show_default="validation")] = None,
    videos: options.Videos = None,
    limit: Annotated[
        int, typer.Option(min=1, help="Objects clicked on; clips and volumes are taken until they hold as many.")
    ] = 100,
    automatic: Annotated[
        int, typer.Option(min=0, help="Images for automatic masks, of those whose labels are complete.")
    ] = 10,
    points_per_side: Annotated[int, typer.Option(min=1, help="Of automatic masks, as in sam2 auto.")] = 32,
    pred_iou_thresh: options.PredIouThresh = None,
    stability_score_thresh: options.StabilityScoreThresh = None,
    image_size: options.ImageSize = None,
    device: options.Device = "auto",
) -> None:
    """Measure a model on labelled data and print a table.

    IoU after 1, 3 and 5 simulated clicks and with a box, the clicks it takes to IoU 0.85 and 0.9 (NoC), J&F of clips
    as DAVIS 2017 defines it, Dice of volumes, and the average precision of automatic masks. On data of the Cell
    Tracking Challenge: SEG, TRA, DET and LNK of the objects carried on from their first masks.

    Example: sam2 evaluate --model my-cells/model.safetensors --data lab --out report.json
    """
    measure = import_training("measure", "evaluate a model")
    from sam2_core.volume.files import write_json

    data, names = data.expanduser(), options.parse_names(videos)
    started = time.perf_counter()
    about: dict[str, Any] = {"data": str(data), "part": None if part is None else part.value, "videos": names}
    if predictions is not None:
        if model is not None or part is not None:
            raise InputError("--predictions are measured as they are: leave out --model and --part")
        report = measure.measure_predictions(data, predictions.expanduser(), names)
        about |= {"predictions": str(predictions)}
    else:
        tracking = measure.is_ctc_folder(data)
        if tracking and part is not None:
            raise InputError(f"{data} has no part {part.value}: leave out --part, or put the data into a label store")
        sequences = [] if tracking else measure.load_data(data, about["part"], names)
        from sam2_core.build import load_model

        model = model or "cells-nano"
        network = load_model(model, device=device, config=config, image_size=image_size)
        about |= {"model": model, "image_size": int(network.image_size)}
        if tracking:
            report = measure.measure_tracking(network, data, names)
        else:
            found: dict[str, Any] = {"points_per_side": points_per_side}
            found |= options.automatic_thresholds(network, pred_iou_thresh, stability_score_thresh)
            report = measure.measure_model(network, sequences, limit, automatic, **found)
            about |= {"limit": limit, "automatic": found}
    if out is not None:
        write_json(out.expanduser(), {**about, "seconds": round(time.perf_counter() - started), **report})
        typer.echo(f"wrote {out}", err=True)
    typer.echo(measure.table(report))
