"""Options that several commands share, and how their text is read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sam2_core.errors import InputError

if TYPE_CHECKING:
    from sam2_core.model.sam2 import SAM2Base
    from sam2_core.volume.volume import Volume

Input = Annotated[Path, typer.Argument(metavar="INPUT", help="Image, volume, folder of images, video or zarr store.")]
Out = Annotated[Path, typer.Option(help="Label volume to write (OME-Zarr).", metavar="OUT.zarr")]
Model = Annotated[str, typer.Option(help="A name of 'sam2 models list', or a checkpoint file.")]
Config = Annotated[Path | None, typer.Option(help="Model config (YAML), if the checkpoint is not one of those listed.")]
Axis = Annotated[str | None, typer.Option(help="Axis of propagation: t, z, y or x. By default z, else t.")]
Axes = Annotated[str | None, typer.Option(help="Axes as stored, for example tzyx, where the file is wrong.")]
ChannelOption = Annotated[
    str | None, typer.Option(metavar="N[,N,N]", help="Channel, or up to three shown as red, green and blue.")
]
LevelOption = Annotated[int, typer.Option(help="Resolution of a multiscale image; 0 is the finest.")]
WindowOption = Annotated[
    str | None, typer.Option(metavar="LO,HI", help="Intensities of black and white; estimated by default.")
]
RangeOption = Annotated[
    str | None,
    typer.Option("--range", metavar="A:B", help="Frames A to B - 1; of a 3D time-lapse also t=A:B,z=A:B."),
]
ImageSize = Annotated[int | None, typer.Option(help="Side of the model's input in pixels, a multiple of 32.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
PredIouThresh = Annotated[
    float | None, typer.Option(help="Least predicted IoU of a mask, 0 to 1.", show_default="what suits the model")
]
StabilityScoreThresh = Annotated[
    float | None, typer.Option(help="Least stability of a mask's edge, 0 to 1.", show_default="what suits the model")
]
Videos = Annotated[str | None, typer.Option(metavar="A,B", help="Only these videos of the folder.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace OUT if it exists.")]


def automatic_thresholds(
    model: SAM2Base, pred_iou_thresh: float | None, stability_score_thresh: float | None
) -> dict[str, float]:
    """Settings of automatic masks: the given thresholds, else those that suit the model."""
    return {
        "pred_iou_thresh": model.pred_iou_thresh if pred_iou_thresh is None else pred_iou_thresh,
        "stability_score_thresh": (
            model.stability_score_thresh if stability_score_thresh is None else stability_score_thresh
        ),
    }


def parse_channel(text: str | None) -> int | tuple[int, ...] | None:
    """``"1"`` or ``"0,2"``."""
    if text is None:
        return None
    try:
        channels = tuple(int(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"--channel {text}: give one number, or up to three as 0,1,2") from None
    return channels[0] if len(channels) == 1 else channels


def parse_names(text: str | None) -> list[str] | None:
    """``"dog,libby"``."""
    if text is None:
        return None
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise InputError(f"--videos {text}: give names of videos as dog,libby")
    return names


def parse_window(text: str | None) -> tuple[float, float] | None:
    """``"100,4000"``."""
    if text is None:
        return None
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"--window {text}: give two numbers LO,HI") from None
    return low, high


def parse_range(text: str | None, axis: str | None) -> dict[str, tuple[int | None, int | None]]:
    """``"3:10"`` along `axis`, or ``"t=0:5,z=3:10"``; either end may be left out."""
    ranges: dict[str, tuple[int | None, int | None]] = {}
    for part in text.split(",") if text else ():
        name, equals, ends = part.rpartition("=")
        first, colon, last = ends.partition(":")
        try:
            if not colon or (equals and not name):
                raise ValueError
            low, high = (int(first) if first.strip() else None), (int(last) if last.strip() else None)
        except ValueError:
            raise InputError(f"--range {text}: give A:B, or t=A:B,z=A:B for a 3D time-lapse") from None
        along = name.strip() or axis
        if along is None:
            raise InputError(f"--range {text}: the image is one plane and has no range")
        ranges[along] = (low, high)
    return ranges


def parse_frame(text: str) -> int | dict[str, int]:
    """``"0"``, or ``"t=3,z=10"``."""
    try:
        if "=" not in text:
            return int(text)
        return {axis.strip(): int(index) for axis, index in (part.split("=") for part in text.split(","))}
    except ValueError:
        raise InputError(f"--frame {text}: give a number, or t=3,z=10 for a 3D time-lapse") from None


def run_settings(
    volume: Volume,
    path: Path,
    model: str,
    config: Path | None,
    image_size: int | None,
    axis: str | None,
    ranges: dict[str, tuple[int, int]],
    **given: Any,
) -> dict[str, Any]:
    """What decides a run's result, by the names of the options; `--resume` asks for the same again."""
    return {
        "input": str(path.absolute()),
        "model": model,
        "config": None if config is None else str(config),
        "image-size": image_size,
        "axis": axis,
        "axes": volume.order.stored,
        "level": volume.level,
        "range": {a: list(ends) for a, ends in ranges.items()},
        **given,
    }
