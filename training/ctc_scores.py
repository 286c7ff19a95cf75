"""SEG, TRA, DET and LNK of the Cell Tracking Challenge, as the package py-ctcmetrics computes them."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterable
from contextlib import redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from sam2_core.errors import InputError, MissingDependencyError
from sam2_core.labelstore.formats.ctc import CtcSequence, find_sequences, frame_files
from sam2_core.labelstore.formats.incoming import read_ids

if TYPE_CHECKING:
    from sam2_core.model.sam2 import SAM2Base

MEASURES = ("SEG", "TRA", "DET", "LNK")
TABLE = "res_track.txt"

# where the objects to follow come from, the best first: those of GT/TRA may be marks and no outlines
_TRACKS = ("GT/TRA", "ST/SEG", "GT/SEG")
_OUTLINES = ("GT/SEG", "ST/SEG")


def choose_sequences(data: Path, names: Iterable[str] | None = None) -> list[CtcSequence]:
    """The sequences of a data set that have truth, or some of them.

    Raises
    ------
    InputError
        A name is not among them.
    """
    there = {sequence.name: sequence for sequence in find_sequences(data)}
    for name in names or ():
        if name not in there:
            raise InputError(f"{data} has no sequence {name} with truth: it has {', '.join(there)}")
    return [there[name] for name in (there if names is None else names)]


def score_results(sequences: Iterable[CtcSequence], results: Path) -> dict[str, Any]:
    """The measures of results in RESULTS/01_RES, which holds mask000.tif and so on, and res_track.txt.

    Parameters
    ----------
    sequences : iterable of CtcSequence
    results : Path

    Returns
    -------
    dict
        ``measures``: by name ``score``, the mean over sequences, and ``sequences``. ``sequences``: of each its own.

    Raises
    ------
    InputError
        A result is missing, is not valid, or does not fit the truth.
    """
    scores = {s.name: _score(s, results / f"{s.name}_RES") for s in sequences}
    measures = {}
    for name in MEASURES:
        found = [score[name] for score in scores.values() if name in score]
        if found:
            measures[name] = {"score": round(float(np.mean(found)), 4), "sequences": len(found)}
    return {"measures": measures, "sequences": scores}


def score_model(model: SAM2Base, sequences: Iterable[CtcSequence], progress: bool = True) -> dict[str, Any]:
    """As `score_results`, of the objects that a model follows from their first masks; see `follow`."""
    sequences = list(sequences)
    with TemporaryDirectory() as folder:
        for sequence in sequences:
            follow(model, sequence, Path(folder), progress)
        return score_results(sequences, Path(folder))


def follow(model: SAM2Base, sequence: CtcSequence, out: Path, progress: bool = True) -> None:
    """Carry every object from the first frame that the truth has it on to the end, and write OUT/01_RES.

    A daughter cell is given as a new object, without a parent, and its mother is followed on.

    Raises
    ------
    InputError
        The frames cannot be read, are volumes, or are fewer than the truth has.
    """
    from tqdm import tqdm

    from sam2_core.predict.video_predictor import SAM2VideoPredictor
    from sam2_core.predict.vos import first_frames, segment_clip
    from sam2_core.volume.export import export_ctc
    from sam2_core.volume.labels import LabelVolume
    from sam2_core.volume.open import open_volume
    from sam2_core.volume.planes import PlaneSource

    volume = open_volume(sequence.images, axes="tyx")
    frames = PlaneSource(volume, "t")
    tracks = frame_files(next(folder for kind in _TRACKS if (folder := sequence.truth(kind))))
    outlines = [frame_files(folder) for kind in _OUTLINES if (folder := sequence.truth(kind))]
    numbers = sorted(frame_files(sequence.images))
    annotated = [t for t, number in enumerate(numbers) if number in tracks]

    def ids_at(t: int) -> np.ndarray:
        return read_ids(tracks[numbers[t]])

    def given_at(t: int) -> np.ndarray:
        drawn = [read_ids(files[numbers[t]]) for files in outlines if numbers[t] in files]
        return whole_objects(ids_at(t), drawn)

    with TemporaryDirectory() as work:
        labels = LabelVolume.create(Path(work) / "labels.zarr", volume, axis="t")
        steps = segment_clip(SAM2VideoPredictor(model), frames, first_frames(annotated, ids_at), given_at)
        shown = tqdm(steps, desc=sequence.name, unit="frame", total=len(numbers), disable=not progress, leave=False)
        for t, ids in shown:
            labels.write_plane("t", t, ids)
        export_ctc(labels, out / f"{sequence.name}_RES")


def whole_objects(marks: np.ndarray, outlines: Iterable[np.ndarray]) -> np.ndarray:
    """The marks (H, W), each as the object of the first of the outlines (H, W) that has more than half of it."""
    outlines = list(outlines)
    found = marks.copy()
    for i in np.unique(marks[marks > 0]):
        mark = marks == i
        for drawn in outlines:
            label = np.bincount(drawn[mark]).argmax()
            covered = drawn == label
            if label and 2 * np.count_nonzero(covered & mark) > np.count_nonzero(mark):
                found[mark] = 0
                found[covered] = i
                break
    return found


def _score(sequence: CtcSequence, result: Path) -> dict[str, float]:
    """The measures for which there is truth."""
    masks = frame_files(result)
    if not (result / TABLE).is_file():
        raise InputError(f"{result / TABLE} is missing: it has a line 'id first last parent' for each track")
    tracks, outlines = sequence.truth("GT/TRA"), next((f for kind in _OUTLINES if (f := sequence.truth(kind))), None)
    if not (result / TABLE).read_text().strip():
        return dict.fromkeys(MEASURES if outlines and tracks else ("SEG",) if outlines else MEASURES[1:], 0.0)
    scores: dict[str, float] = {}
    if outlines is not None:
        scores["SEG"] = _seg(frame_files(outlines), masks, result)
    if tracks is not None:
        if len(masks) != (count := len(frame_files(tracks))):
            raise InputError(f"{result} has {len(masks)} masks and {tracks} has {count}: write one for each frame")
        scores |= _tracking(tracks.parent, result)
    return scores


def _seg(truth: dict[int, Path], masks: dict[int, Path], result: Path) -> float:
    try:
        from ctc_metrics.metrics import seg
        from ctc_metrics.utils.representations import match
    except ImportError as error:
        raise MissingDependencyError("py-ctcmetrics", "train", "measure SEG and TRA") from error
    if missing := set(truth) - set(masks):
        raise InputError(f"{result} has no mask of frame {min(missing)}, of which there is truth")
    try:
        matches = [match(str(file), str(masks[number])) for number, file in truth.items()]
    except ValueError as error:
        raise InputError(f"the masks in {result} do not fit the truth: {error}") from None
    return round(seg([labels for labels, *_ in matches], [ious for *_, ious in matches]), 4)


def _tracking(truth: Path, result: Path) -> dict[str, float]:
    try:
        from ctc_metrics import evaluate_sequence
    except ImportError as error:
        raise MissingDependencyError("py-ctcmetrics", "train", "measure SEG and TRA") from error
    wanted = ["Valid", *MEASURES[1:]]
    try:
        with (
            redirect_stdout(io.StringIO()),
            np.errstate(invalid="ignore"),
            warnings.catch_warnings(record=True) as caught,
        ):
            warnings.simplefilter("always", UserWarning)
            found = evaluate_sequence(str(result), str(truth), wanted, threads=1)
    except ValueError as error:
        raise InputError(f"the masks in {result} do not fit the truth: {error}") from None
    if not found["Valid"]:
        reasons = [str(w.message) for w in caught if issubclass(w.category, UserWarning)]
        raise InputError(f"{result} is no valid result: {(reasons or ['its tracks are wrong'])[0]}")
    # without a link in the truth LNK is no number
    return {name: round(float(found[name]), 4) for name in MEASURES[1:] if np.isfinite(found[name])}
