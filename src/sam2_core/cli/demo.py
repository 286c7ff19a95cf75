"""`sam2 demo`: a real time-lapse of a scratch assay, its nuclei clicked once and tracked, scored and drawn."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from sam2_core.cli import options
from sam2_core.errors import InputError, MissingDependencyError

if TYPE_CHECKING:
    from sam2_core.volume.prompts import PromptFile
    from sam2_core.volume.volume import Volume

PACKAGE, SAMPLE = "ndev_sampledata", "samples/scratch-assay-labeled-10T-2Ch.tiff"
NUCLEI, LIGHT, NUCLEUS_LABELS = 0, 1, 2
"""Channels of the sample: Hoechst stain, transmitted light, labels of the nuclei (numbered anew on each frame)."""

IMAGE, PROMPTS, LABELS, PICTURE, MOVIE = "timelapse.zarr", "prompts.json", "labels.zarr", "overlay.png", "overlay.gif"


def demo(
    out: Annotated[Path, typer.Option(help="Folder to write.")] = Path("demo_output"),
    model: options.Model = "cells-nano",
    image_size: options.ImageSize = None,
    device: options.Device = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what an earlier demo wrote.")] = False,
) -> None:
    """Track the nuclei of a real time-lapse from one click each, and draw the result.

    Needs the extra "demo"; nothing is downloaded.
    """
    from sam2_core.cli.demo_picture import draw_movie, draw_picture
    from sam2_core.volume.files import replacing
    from sam2_core.volume.labels import LabelVolume
    from sam2_core.volume.open import open_volume
    from sam2_core.volume.window import default_window

    sample = find_sample()
    check_output(out, overwrite)
    with replacing(out, overwrite=overwrite) as folder:
        file = open_volume(sample)
        truth = file.read({"c": NUCLEUS_LABELS})
        write_timelapse(file, folder / IMAGE)
        image = open_volume(folder / IMAGE)
        frames, height, width = truth.shape
        say(f"A scratch assay, {frames} frames of {width} x {height} pixels of {image.scale['x']:g} um: {sample.name}")
        prompts = click_centres(truth[0])
        count = len(prompts.objects)
        (folder / PROMPTS).write_text(prompts.model_dump_json(by_alias=True, exclude_none=True, indent=1))
        say(f"One click at the centre of each of the {count} nuclei of frame 0; now tracking them with {model}.")
        seconds = track(folder, prompts, model, image_size, device)
        labels = LabelVolume.open(folder / LABELS).volume.read()
        say(f"Tracked {count} nuclei through {frames} frames: {seconds:.1f} s, {seconds / frames:.2f} s per frame.")
        scores = [score(*pair) for pair in zip(labels, truth)]
        report(scores, count)
        shown = default_window(image, NUCLEI).apply(image.read({"c": NUCLEI}))
        title = f"{count} nuclei, one click each on frame 0, tracked with {Path(model).name}"
        draw_picture(folder / PICTURE, shown, labels, title, pixel_size=image.scale["x"])
        draw_movie(folder / MOVIE, shown, labels, pixel_size=image.scale["x"])
    say(
        f"""
Written to {out}:
  {PICTURE}     outlines, numbers and paths on four frames
  {MOVIE}     the same on all frames, as a movie
  {LABELS}     the nuclei, numbered alike on all frames (OME-Zarr)
  {IMAGE}  the time-lapse (OME-Zarr: t, c, y, x)
  {PROMPTS}    the clicks

The same by hand:
  sam2 segment {out / IMAGE} --channel {NUCLEI} --prompts {out / PROMPTS} --one-piece --distinct --out my-labels.zarr"""
    )


def say(text: str) -> None:
    """Print at once, also into a pipe."""
    print(text, flush=True)


def find_sample() -> Path:
    """The time-lapse in the package of the extra ``demo``.

    Raises
    ------
    MissingDependencyError
        The package, or matplotlib, is not installed.
    """
    from importlib.util import find_spec

    for package in (PACKAGE, "matplotlib"):
        spec = find_spec(package)  # its import would want napari's readers
        if spec is None or spec.origin is None:
            raise MissingDependencyError(package, "demo", "run the demo")
        folder = Path(spec.origin).parent
        if package == PACKAGE:
            sample = folder / SAMPLE
    if not sample.is_file():
        raise InputError(f"{sample} is missing: install ndev-sampledata 0.0.3 or later again")
    return sample


def check_output(out: Path, overwrite: bool) -> None:
    """Let only what a demo wrote be replaced.

    Raises
    ------
    InputError
        `out` exists, and is not to be overwritten or holds other files.
    """
    if not out.exists():
        return
    if not overwrite:
        raise InputError(f"{out} exists: choose another folder with --out, or give --overwrite")
    known = {IMAGE, PROMPTS, LABELS, PICTURE, MOVIE}
    if not out.is_dir() or {entry.name for entry in out.iterdir()} - known:
        raise InputError(f"{out} holds other things than a demo and is not overwritten: choose another folder")


def write_timelapse(file: Volume, path: Path) -> None:
    """Write the two image channels of the sample as OME-Zarr (t, c, y, x)."""
    import zarr

    pixels = file.read({"c": slice(NUCLEI, LIGHT + 1)})
    kinds = {"t": {"type": "time"}, "c": {"type": "channel"}}
    space = {"type": "space", "unit": "micrometer"}
    scale = {"type": "scale", "scale": [file.scale.get(a, 1.0) for a in file.axes]}
    multiscale = {
        "name": "scratch assay",
        "axes": [{"name": a, **kinds.get(a, space)} for a in file.axes],
        "datasets": [{"path": "0", "coordinateTransformations": [scale]}],
    }
    channels = [_channel(pixels[:, c], name) for c, name in enumerate(("nuclei", "transmitted light"))]
    ome = {"version": "0.5", "multiscales": [multiscale], "omero": {"channels": channels}}
    group = zarr.create_group(str(path), attributes={"ome": ome})
    group.create_array("0", data=pixels, chunks=(1, 1, *pixels.shape[2:]), dimension_names=list(file.axes))


def click_centres(labels: np.ndarray) -> PromptFile:
    """One click on each label, at the pixel that is farthest from its edge.

    Parameters
    ----------
    labels : ndarray, (height, width) integer

    Returns
    -------
    PromptFile
        Objects are numbered from 1 in the order of the labels.
    """
    from scipy.ndimage import distance_transform_edt

    from sam2_core.volume.prompts import parse_prompts

    objects: list[dict[str, Any]] = []
    for label in np.unique(labels[labels > 0]):
        depth = distance_transform_edt(np.pad(labels == label, 1))[1:-1, 1:-1]
        y, x = np.unravel_index(depth.argmax(), depth.shape)
        prompt = {"frame": 0, "points": [[float(x), float(y)]], "labels": [1]}
        objects.append({"id": len(objects) + 1, "prompts": [prompt]})
    return parse_prompts({"objects": objects})


def track(folder: Path, prompts: PromptFile, model: str, image_size: int | None, device: str) -> float:
    """Carry the objects through the time-lapse, into the label volume; seconds without loading the model."""
    from tqdm import tqdm

    from sam2_core.build import load_model
    from sam2_core.predict.video_predictor import SAM2VideoPredictor
    from sam2_core.volume.session import Session

    network = load_model(model, device=device, image_size=image_size)
    predictor = SAM2VideoPredictor(network, one_piece=True, distinct=True)
    with TemporaryDirectory() as journal:
        image, labels = folder / IMAGE, folder / LABELS
        with Session.create(journal, image, channel=NUCLEI, labels=labels, predictor=predictor) as session:
            started = time.perf_counter()
            session.add_prompts(prompts.objects)
            run = session.propagate()
            for _ in tqdm(run, total=run.length, desc="track", unit="frame"):
                pass
            return time.perf_counter() - started


@dataclass(frozen=True)
class Score:
    """How well the nuclei that were tracked to one frame fit those that are labelled there.

    Attributes
    ----------
    found : int
        Objects that have pixels on the frame.
    total : float
        Sum of their IoU.
    """

    found: int
    total: float

    @property
    def mean(self) -> float:
        """Mean IoU of the objects found."""
        return self.total / self.found if self.found else 0.0


def score(tracked: np.ndarray, labelled: np.ndarray) -> Score:
    """Pair tracked and labelled objects one to one for the largest sum of IoU; what has no partner scores 0."""
    from scipy.optimize import linear_sum_assignment

    from sam2_core.metrics import label_ious

    ious = label_ious(tracked, labelled)
    return Score(ious.shape[1], float(ious[linear_sum_assignment(ious, maximize=True)].sum()))


def report(scores: list[Score], prompted: int) -> None:
    """Print the scores of all frames, and what they mean."""
    found = [s for s in scores if s.found]
    mean = sum(s.mean for s in found) / len(found) if found else 0.0
    strict = sum(s.total for s in scores) / (prompted * len(scores))
    say(f"\nframe     {' '.join(f'{i:4d}' for i in range(len(scores)))}")
    say(f"followed  {' '.join(f'{s.found:4d}' for s in scores)}   of {prompted} nuclei")
    say(f"IoU       {' '.join(f'{s.mean:4.2f}' for s in scores)}")
    say(
        f"""
mean IoU {mean:.3f} with the labels of the file; frame 0: {scores[0].mean:.3f}, last frame: {scores[-1].mean:.3f}
  On each frame, nuclei followed and nuclei labelled are paired one to one; one without a partner scores 0. The mean is
  over the nuclei followed, then over the frames; if those no longer followed scored 0 too, it would be {strict:.3f}.
  The file numbers its nuclei anew on each frame: this scores outlines, not whether the same nucleus was followed."""
    )


def _channel(pixels: np.ndarray, name: str) -> dict[str, Any]:
    """How a viewer may show one channel (OMERO metadata)."""
    start, end = (float(v) for v in np.percentile(pixels, (0.5, 99.8)))
    limits = {"min": float(pixels.min()), "max": float(pixels.max()), "start": start, "end": end}
    return {"label": name, "color": "FFFFFF", "active": name == "nuclei", "window": limits}
