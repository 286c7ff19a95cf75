"""Measure a model, or masks that were written, on any labelled data: what `sam2 evaluate` does.

`training.evaluate` compares models with classical methods on the sets they were trained beside; this takes whatever
a user has: a label store, or a folder laid out as DAVIS and MOSE or the Cell Tracking Challenge are.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from collections.abc import Sequence as Names
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sam2_core.errors import InputError
from sam2_core.labelstore import LabelStore
from sam2_core.labelstore.formats.ctc import find_sequences
from sam2_core.labelstore.formats.davis import Clip, clips
from sam2_core.metrics import average_precision, iou
from training.clip_scores import ObjectScore, clip_report, score_clip
from training.ctc_scores import choose_sequences, score_model, score_results
from training.dataset.folders import clip_sequence
from training.dataset.label_store import load_store, stored_sequences
from training.dataset.labelled_sets import Sequence
from training.evaluate import CLICK_GOALS, IMAGE_PROMPTS, Scores, score_images, score_propagation
from training.pictures import Case
from training.tasks import PLANES_PER_SEQUENCE, image_tasks, propagation_tasks, spread

if TYPE_CHECKING:
    from sam2_core.model.sam2 import SAM2Base

MOST_CLICKS = 20
AP_THRESHOLD = 0.5

ROWS = {
    **{key: f"IoU, {title}" for key, title in IMAGE_PROMPTS.items()},
    **{key: f"NoC@{round(100 * goal)} (of {MOST_CLICKS} clicks)" for key, goal in CLICK_GOALS.items()},
    "J": "J, clips",
    "F": "F, clips",
    "J&F": "J&F, clips",
    "propagation": "Dice, volumes",
    "ap50": "AP@50, automatic masks",
    "SEG": "SEG, Cell Tracking Challenge",
    "TRA": "TRA, Cell Tracking Challenge",
    "DET": "DET, Cell Tracking Challenge",
    "LNK": "LNK, Cell Tracking Challenge",
}


def load_data(path: Path, part: str | None = None, videos: Names[str] | None = None) -> list[Sequence]:
    """The labelled images, volumes and clips at a path.

    Parameters
    ----------
    path : Path
        A label store, also as STORE@SNAPSHOT, or a folder with JPEGImages/ and Annotations/.
    part : {"train", "validation", "test", "all"}, optional
        Of a store, by default its validation part; a folder has no parts.
    videos : sequence of str, optional
        Of a folder, all by default; a store has none.

    Raises
    ------
    InputError
        There is nothing of the kind, or nothing in the part.
    """
    if is_clip_folder(path):
        if part not in (None, "all"):
            raise InputError(f"{path} has no part {part}: leave out --part, or put the data into a label store")
        chosen = sorted(clips(path, videos), key=lambda clip: clip.name)
        return [clip_sequence(clip, path.resolve().name) for clip in chosen]
    name, _, snapshot = (str(path), "", "") if path.exists() else str(path).rpartition("@")
    if not (Path(name or path) / "store.json").is_file():
        raise InputError(
            f"{path} is neither a label store nor a folder with JPEGImages/ and Annotations/, or 01/ and 01_GT/"
        )
    if videos is not None:
        raise InputError(f"{path} is a label store: --videos is for folders of videos")
    store = LabelStore(name)
    if part is None:
        try:
            return load_store(store, "validation", snapshot or None)
        except InputError as error:
            raise InputError(f"{error}, or measure on everything with --part all") from None
    if part != "all":
        return load_store(store, part, snapshot or None)
    items = [v for v, _ in store.open_snapshot(snapshot)] if snapshot else store.items()
    if not items:
        raise InputError(f"{path} holds no items: add some with sam2 labels add")
    return list(stored_sequences(items))


def is_clip_folder(path: Path) -> bool:
    """Whether a folder is laid out as DAVIS and MOSE are."""
    return (path / "Annotations").is_dir()


def measure_model(
    model: SAM2Base,
    sequences: list[Sequence],
    limit: int = 100,
    automatic: int = 10,
    progress: bool = True,
    clicks: int = MOST_CLICKS,
    look: Callable[[Case], None] | None = None,
    **found: Any,
) -> dict[str, Any]:
    """Everything that can be measured on the sequences.

    Parameters
    ----------
    model : SAM2Base
    sequences : list of Sequence
    limit : int
        Most objects that are clicked on and boxed; clips and volumes are taken until they hold so many.
    automatic : int
        Most images for automatic masks, 0 for none; only those count whose labels are complete.
    progress : bool
        Show progress bars.
    clicks : int
        Most clicks on an object; with five the number of clicks to a goal (NoC) is not measured.
    look : callable, optional
        Called with what the first click found, and with each object on each frame or plane it was carried to.
    **found
        Settings of `SAM2AutomaticMaskGenerator`.

    Returns
    -------
    dict
        ``measures``: by name ``score`` and ``objects`` (or ``images``). ``clips``: J, F and J&F of each clip.

    Raises
    ------
    InputError
        There is no object to measure on.
    """
    scores: Scores = defaultdict(lambda: defaultdict(list))
    tasks = image_tasks(sequences, limit)
    score_images(model, _shown(tasks, "clicks and boxes", "object", progress), scores, clicks, look)
    score_volumes(model, [s for s in sequences if s.kind == "volume"], limit, scores, progress, look)
    followed = clip_report(_score_clips(model, [s for s in sequences if s.kind == "video"], limit, progress, look))
    planes = complete_planes(sequences, automatic)
    precisions = list(score_automatic(model, _shown(planes, "automatic masks", "image", progress), **found))

    together: dict[str, list[float]] = defaultdict(list)
    for prompts in scores.values():
        for prompt, values in prompts.items():
            together[prompt] += values
    measures: dict[str, Any] = {
        key: {"score": round(float(np.mean(values)), 4), "objects": len(values)} for key, values in together.items()
    }
    measures |= _clip_measures(followed)
    if precisions:
        measures["ap50"] = {"score": round(float(np.mean(precisions)), 4), "images": len(precisions)}
    if not measures:
        raise InputError("there is no object to measure on: the labels are empty, or too small")
    return {"measures": measures, "clips": followed.get("clips", {})}


def is_ctc_folder(path: Path) -> bool:
    """Whether a folder is laid out as data sets of the Cell Tracking Challenge are, and no label store."""
    return not is_clip_folder(path) and not (path / "store.json").exists() and bool(find_sequences(path))


def measure_tracking(
    model: SAM2Base, data: Path, sequences: Names[str] | None = None, progress: bool = True
) -> dict[str, Any]:
    """SEG, TRA, DET and LNK of the objects that a model follows from their first masks; see `training.ctc_scores`.

    Raises
    ------
    InputError
        A sequence does not exist, or cannot be read.
    """
    return score_model(model, choose_sequences(data, sequences), progress) | {"clips": {}}


def measure_predictions(data: Path, predictions: Path, videos: Names[str] | None = None) -> dict[str, Any]:
    """J, F and J&F of masks in PREDICTIONS/VIDEO/00000.png, as `sam2 predict-video` and others write them.

    Ids are those of the annotations; what has another id is no object, and costs nothing. For a data set of the Cell
    Tracking Challenge, SEG, TRA, DET and LNK of PREDICTIONS/01_RES and so on.

    Raises
    ------
    InputError
        A mask of an annotated frame is missing, or has another size than its frame.
    """
    if is_ctc_folder(data):
        return score_results(choose_sequences(data, videos), predictions) | {"clips": {}}
    if not is_clip_folder(data):
        raise InputError(
            f"{data} has no Annotations/: masks are measured on a folder as DAVIS, MOSE or the Cell Tracking Challenge "
            "have it"
        )
    report = clip_report(score for clip in clips(data, videos) for score in _score_written(clip, predictions))
    if not report:
        raise InputError(
            f"{data} has nothing to measure on: it takes three annotated frames, and an object before them"
        )
    return {"measures": _clip_measures(report), "clips": report["clips"]}


def score_volumes(
    model: SAM2Base,
    volumes: list[Sequence],
    limit: int,
    scores: Scores,
    progress: bool = False,
    look: Callable[[Case], None] | None = None,
) -> None:
    """Add the Dice of objects carried through volumes, until there are `limit` objects."""
    count = 0
    for volume in _shown(volumes, "volumes", "volume", progress):
        for task in propagation_tasks([volume]):
            if count >= limit:
                return
            score_propagation(model, [task], scores, progress=False, look=look)
            count += len(task.masks)


def score_automatic(model: SAM2Base, planes: Iterable[tuple[Sequence, int]], **found: Any) -> Iterator[float]:
    """AP of automatic masks at an IoU of 0.5, TP / (TP + FP + FN), of each image; `found` as in `measure_model`."""
    from sam2_core.predict.automatic import SAM2AutomaticMaskGenerator

    generator = SAM2AutomaticMaskGenerator(model, **found)
    for sequence, t in planes:
        labels = generator.generate_labels(np.asarray(sequence.frames[t]))
        (precision,) = average_precision(labels, np.asarray(sequence.labels[t]), [AP_THRESHOLD])
        yield precision


def complete_planes(sequences: Iterable[Sequence], count: int) -> list[tuple[Sequence, int]]:
    """At most `count` labelled planes, spread evenly, of the sequences whose labels are complete."""
    every: list[tuple[Sequence, int]] = []
    for sequence in sequences:
        labelled = np.flatnonzero(sequence.labelled)
        if sequence.complete and len(labelled):
            every += [(sequence, int(t)) for t in labelled[spread(len(labelled), PLANES_PER_SEQUENCE)]]
    return [every[i] for i in spread(len(every), count)]


def table(report: dict[str, Any]) -> str:
    """The report as Markdown: the measures, then those of each clip or sequence."""
    lines = ["| measure | score | on |", "|---|--:|--:|"]
    for key, title in ROWS.items():
        if entry := report["measures"].get(key):
            number = f"{entry['score']:.2f}" if key in CLICK_GOALS else f"{entry['score']:.3f}"
            thing = next(name for name in ("object", "image", "sequence") if f"{name}s" in entry)
            count = entry[f"{thing}s"]
            lines.append(f"| {title} | {number} | {count} {thing}{'s' * (count != 1)} |")
    if report["clips"]:
        lines += ["", "| clip | objects | J | F | J&F |", "|---|--:|--:|--:|--:|"]
    for name, entry in report["clips"].items():
        lines.append(f"| {name} | {entry['objects']} | {entry['J']:.3f} | {entry['F']:.3f} | {entry['J&F']:.3f} |")
    if of_each := report.get("sequences"):
        names = list(next(iter(of_each.values())))
        lines += ["", f"| sequence | {' | '.join(names)} |", "|---|" + "--:|" * len(names)]
        for name, entry in of_each.items():
            lines.append(f"| {name} | {' | '.join(f'{entry[key]:.3f}' if key in entry else '' for key in names)} |")
    return "\n".join(lines)


def _score_clips(
    model: SAM2Base,
    videos: list[Sequence],
    limit: int,
    progress: bool,
    look: Callable[[Case], None] | None = None,
) -> list[ObjectScore]:
    """Follow the objects of clips from their first masks, until there are `limit` of them."""
    from sam2_core.predict.video_predictor import SAM2VideoPredictor
    from sam2_core.predict.vos import first_frames, segment_clip

    predictor = SAM2VideoPredictor(model)
    scores: list[ObjectScore] = []
    for video in videos:
        if len(scores) >= limit:
            break
        annotated = np.flatnonzero(video.labelled).tolist()
        ids_at = _labels_of(video)
        first = first_frames(annotated, ids_at)
        predicted = segment_clip(predictor, video.frames, first, ids_at)
        if look is not None:
            predicted = _looked_at(look, video, first, predicted)
        shown = _shown(predicted, video.name, "frame", progress, len(video))
        scores += score_clip(video.name, annotated, ids_at, first, shown)
    return scores


def _looked_at(
    look: Callable[[Case], None],
    video: Sequence,
    first: Mapping[int, list[int]],
    predicted: Iterable[tuple[int, np.ndarray]],
) -> Iterator[tuple[int, np.ndarray]]:
    """The same frames, after `look` was called with the objects that are carried to each labelled one."""
    for t, ids in predicted:
        carried = [i for start, given in first.items() if start < t for i in given]
        if carried and video.labelled[t]:
            image, truth = np.asarray(video.frames[t]), np.asarray(video.labels[t])
            for i in carried:
                masks = ids == i, truth == i
                look(Case(f"{video.name}+{t}", image, masks[1], masks[0], iou(*masks)))
        yield t, ids


def _score_written(clip: Clip, predictions: Path) -> list[ObjectScore]:
    from sam2_core.predict.vos import first_frames

    def written() -> Iterator[tuple[int, np.ndarray]]:
        for i in annotated[1:-1]:  # the frames that count
            file = predictions / clip.name / f"{clip.frames[i].stem}.png"
            if not file.is_file():
                raise InputError(f"{file} is missing: every annotated frame but the first and last needs its mask")
            yield i, clip.ids_in(file)

    annotated = sorted(clip.annotations)
    return score_clip(clip.name, annotated, clip.ids, first_frames(annotated, clip.ids), written())


def _labels_of(sequence: Sequence) -> Callable[[int], np.ndarray]:
    return lambda t: np.asarray(sequence.labels[t])


def _clip_measures(report: dict[str, Any]) -> dict[str, Any]:
    return {key: {"score": report[key], "objects": report["objects"]} for key in ("J", "F", "J&F") if key in report}


def _shown(things: Any, title: str, unit: str, progress: bool, total: int | None = None) -> Any:
    """The things, with a progress bar on standard error."""
    from tqdm import tqdm

    return tqdm(things, desc=title, unit=unit, total=total, disable=not progress, leave=False)
