"""`sam2 export`: labels as TIFF, NIfTI, COCO JSON or in the layout of the Cell Tracking Challenge."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Kind(StrEnum):
    """What to write."""

    tiff = "tiff"
    nifti = "nifti"
    coco = "coco"
    ctc = "ctc"


def export(
    labels: Annotated[Path, typer.Argument(help="Label volume (OME-Zarr), or an image with one label image inside.")],
    to: Annotated[
        Kind, typer.Option(help="tiff: OME-TIFF; nifti; coco: JSON with RLE; ctc: Cell Tracking Challenge folder.")
    ],
    out: Annotated[Path, typer.Option(help="File to write (.tif, .nii, .nii.gz, .json), for ctc a folder.")],
    axis: Annotated[str | None, typer.Option(help="coco: planes across this axis; by default z, else t.")] = None,
    truth: Annotated[
        bool, typer.Option("--truth", help="ctc: name the files as ground truth (man_track) instead of a result.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT if it exists.")] = False,
) -> None:
    """Write labels in another format.

    Example: sam2 export labels.zarr --to ctc --out 01_RES
    """
    from sam2_core.errors import InputError
    from sam2_core.volume.export import EXPORTS
    from sam2_core.volume.labels import LabelVolume

    options: dict[str, str | bool] = {}
    if axis is not None:
        if to is not Kind.coco:
            raise InputError("--axis is for --to coco alone: the other formats hold whole volumes")
        options["axis"] = axis
    if truth:
        if to is not Kind.ctc:
            raise InputError("--truth is for --to ctc alone")
        options["truth"] = True
    EXPORTS[to.value](LabelVolume.open(labels), out.expanduser(), overwrite=overwrite, **options)
    typer.echo(f"wrote {out}")
