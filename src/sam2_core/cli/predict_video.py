"""`sam2 predict-video`: the objects of annotated videos, carried from their first frames through all others."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sam2_core.cli import options
from sam2_core.errors import InputError

if TYPE_CHECKING:
    from sam2_core.labelstore.formats.davis import Clip

MOST_OBJECTS = 255  # what a palette has room for


def predict_video(
    data: Annotated[
        Path, typer.Argument(metavar="DATA", help="Folder with JPEGImages/ and Annotations/, as DAVIS and MOSE are.")
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the masks, as DIR/VIDEO/00000.png.")],
    videos: options.Videos = None,
    model: options.Model = "cells-nano",
    config: options.Config = None,
    image_size: options.ImageSize = None,
    device: options.Device = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the masks of videos done before.")] = False,
) -> None:
    """Carry the first masks of annotated videos through all frames, and write palette PNGs.

    An object is given on the first frame it is annotated on; nothing else of Annotations/ is used. A run that was
    stopped or killed goes on with the videos that are not done.

    Example: sam2 predict-video DAVIS --out masks && sam2 evaluate --predictions masks --data DAVIS
    """
    from sam2_core.labelstore.formats.davis import clips as clips_of

    clips = list(clips_of(data.expanduser(), options.parse_names(videos)))
    out = out.expanduser()
    note = _settings(model, config, image_size)
    todo = [clip for clip in clips if not _is_done(clip, out / clip.name, note, overwrite)]
    before = len(clips) - len(todo)
    frames = sum(len(clip.frames) for clip in todo)
    pace = ""
    if todo:
        loaded = {"config": config, "image_size": image_size, "device": device}
        pace = f", {_run(todo, out, note, overwrite, model, loaded) / frames:.2f} s per frame"
    earlier = f"; {before} done before" if before else ""
    typer.echo(f"{out}: {len(todo)} video{'s' * (len(todo) != 1)}, {frames} frames{pace}{earlier}")


def _run(todo: list[Clip], out: Path, note: str, overwrite: bool, model: str, loaded: dict[str, Any]) -> float:
    """Do the videos one after the other, and say how many seconds it took; each appears when all of it is there."""
    from tqdm import tqdm

    from sam2_core.build import load_model
    from sam2_core.labelstore.formats.davis import save_ids
    from sam2_core.predict.image_frames import ImageFolderFrames
    from sam2_core.predict.video_predictor import SAM2VideoPredictor
    from sam2_core.predict.vos import first_frames, segment_clip
    from sam2_core.volume.files import remove, replacing

    predictor = SAM2VideoPredictor(load_model(model, **loaded))
    started = time.perf_counter()
    try:
        with tqdm(total=sum(len(clip.frames) for clip in todo), unit="frame") as bar:
            for clip in todo:
                bar.set_description(clip.name)
                first = first_frames(sorted(clip.annotations), clip.ids)
                most = max((i for ids in first.values() for i in ids), default=0)
                if most > MOST_OBJECTS:
                    raise InputError(
                        f"{clip.labels_folder} has the id {most}: a palette PNG holds up to {MOST_OBJECTS}"
                    )
                for left in out.glob(f".{clip.name}.*.partial"):  # of a run that was killed
                    remove(left)
                with replacing(out / clip.name, overwrite=overwrite) as folder:
                    folder.mkdir()
                    for frame, ids in segment_clip(predictor, ImageFolderFrames(clip.frames), first, clip.ids):
                        save_ids(folder / f"{clip.frames[frame].stem}.png", ids, note)
                        bar.update()
    except KeyboardInterrupt:
        again = "starts again" if overwrite else "goes on with the others"
        typer.echo(f"stopped: the videos that are done are in {out}, the same command {again}", err=True)
        raise typer.Exit(130) from None
    return time.perf_counter() - started


def _settings(model: str, config: Path | None, image_size: int | None) -> str:
    """What decides the masks; it is kept in each PNG, so that those of two models are not taken for one run."""
    from sam2_core.weights.checkpoints import resolve
    from sam2_core.weights.download import sha256_of

    found = resolve(model)
    settings = {
        "model": found.path.name,
        "sha256": sha256_of(found.path)[:16],
        "config": None if config is None else config.name,
        "image-size": image_size,
    }
    return f"sam2 predict-video {json.dumps(settings)}"


def _is_done(clip: Clip, target: Path, note: str, overwrite: bool) -> bool:
    """Whether the masks of a video are there, of the same settings; with `overwrite` they do not count."""
    from sam2_core.labelstore.formats.davis import read_note

    if not target.exists():
        return False
    if target.resolve() in (clip.frames_folder.resolve(), clip.labels_folder.resolve()):
        raise InputError(f"{target} belongs to the data: choose another folder for --out")
    if overwrite:
        return False
    if read_note(target / f"{clip.frames[0].stem}.png") != note:
        raise InputError(f"{target} is not of this model and size: choose another folder or give --overwrite")
    return True
