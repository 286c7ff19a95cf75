"""`sam2 export`: labels as TIFF, NIfTI, COCO JSON, in the layout of the Cell Tracking Challenge, or measured as CSV."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer


class Kind(StrEnum):
    """What to write."""

    tiff = "tiff"
    nifti = "nifti"
    coco = "coco"
    ctc = "ctc"
    csv = "csv"


def export(
    labels: Annotated[Path, typer.Argument(help="Label volume (OME-Zarr), or an image with one label image inside.")],
    to: Annotated[
        Kind,
        typer.Option(
            help="tiff: OME-TIFF; nifti; coco: JSON with RLE; ctc: Cell Tracking Challenge folder; csv: measurements of"
            " every object."
        ),
    ],
    out: Annotated[Path, typer.Option(help="File to write (.tif, .nii, .nii.gz, .json, .csv), for ctc a folder.")],
    axis: Annotated[str | None, typer.Option(help="coco: planes across this axis; by default z, else t.")] = None,
    truth: Annotated[
        bool, typer.Option("--truth", help="ctc: name the files as ground truth (man_track) instead of a result.")
    ] = False,
    image: Annotated[
        Path | None, typer.Option(help="csv: the image that was labelled, to measure its intensities as well.")
    ] = None,
    axes: Annotated[str | None, typer.Option(help="csv: axes of --image as stored, where the file is wrong.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT if it exists.")] = False,
) -> None:
    """Write labels in another format.

    Example: sam2 export labels.zarr --to ctc --out 01_RES
    """
    from sam2_core.errors import InputError
    from sam2_core.volume.export import EXPORTS
    from sam2_core.volume.labels import LabelVolume
    from sam2_core.volume.open import open_volume

    options: dict[str, Any] = {}
    if axis is not None:
        if to is not Kind.coco:
            raise InputError("--axis is for --to coco alone: the other formats hold whole volumes")
        options["axis"] = axis
    if truth:
        if to is not Kind.ctc:
            raise InputError("--truth is for --to ctc alone")
        options["truth"] = True
    if image is not None:
        if to is not Kind.csv:
            raise InputError("--image is for --to csv alone")
        options["image"] = open_volume(image, axes=axes)
    elif axes is not None:
        raise InputError("--axes says how --image is stored: give --image too")
    EXPORTS[to.value](LabelVolume.open(labels), out.expanduser(), overwrite=overwrite, **options)
    typer.echo(f"wrote {out}")
