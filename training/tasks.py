"""The validation tasks: objects of the validation parts, sampled with a fixed seed, and how they are prompted.

An `ImageTask` is one object of one image or plane: click or box it, compare. A `PropagationTask` is one or several
objects whose masks are given on the first plane or frame and carried through those that follow.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from training.dataset.labelled_sets import Sequence

MIN_AREA = 30  # pixels; smaller objects are neither prompted nor propagated
PLANES_PER_SEQUENCE = 16
PLANES_FORWARD = 20
FEWEST_FORWARD = 5


@dataclass(frozen=True)
class ImageTask:
    """One object of one image.

    Attributes
    ----------
    set, image_name : str
        The labelled set, and a name that is the same for all objects of an image.
    image : numpy.ndarray
        uint8, (H, W) or (H, W, 3).
    mask : numpy.ndarray
        bool, (H, W): the truth.
    """

    set: str
    image_name: str
    image: np.ndarray
    mask: np.ndarray

    @property
    def box(self) -> tuple[int, int, int, int]:
        """x0, y0, x1, y1 of the object, all of its pixels included."""
        columns, rows = np.flatnonzero(self.mask.any(0)), np.flatnonzero(self.mask.any(1))
        return int(columns[0]), int(rows[0]), int(columns[-1]), int(rows[-1])


@dataclass(frozen=True)
class PropagationTask:
    """Objects to carry from the first plane or frame forward.

    Attributes
    ----------
    set : str
        The labelled set, with "(along z)" or "(along t)" where a set has both.
    name : str
    frames : numpy.ndarray
        uint8, (T, H, W) or (T, H, W, 3).
    masks : numpy.ndarray
        bool, (N, T, H, W): the truth of N objects.
    labelled : numpy.ndarray
        bool, (T,): where the truth is known.
    """

    set: str
    name: str
    frames: np.ndarray
    masks: np.ndarray
    labelled: np.ndarray


def image_tasks(sequences: Iterable[Sequence], limit: int = 100, seed: int = 0) -> list[ImageTask]:
    """At most `limit` objects of each set, spread evenly over its images or planes.

    Of volumes and videos, planes spread evenly along the first axis are taken.
    """
    rng = np.random.default_rng(seed)
    by_set: dict[str, list[list[_Candidate]]] = defaultdict(list)
    for sequence in sequences:
        labelled = np.flatnonzero(sequence.labelled)
        for t in labelled[spread(len(labelled), PLANES_PER_SEQUENCE)]:
            areas = np.bincount(np.asarray(sequence.labels[t]).ravel())
            areas[0] = 0
            ids = rng.permutation(np.flatnonzero(areas >= MIN_AREA))
            by_set[sequence.set].append([(sequence, int(t), int(i)) for i in ids])
    return [_image_task(*chosen) for images in by_set.values() for chosen in _round_robin(images, limit)]


def spread(length: int, most: int) -> np.ndarray:
    """At most `most` of the places 0 .. length - 1, evenly spread, the first and the last among them; int."""
    return np.rint(np.linspace(0, length - 1, min(length, most))).astype(int)


def propagation_tasks(
    sequences: Iterable[Sequence], objects: int = 12, starts: int = 4, videos: int = 4
) -> list[PropagationTask]:
    """Objects of volumes and videos, from the plane where each begins through at most `PLANES_FORWARD` more.

    An object begins on the first plane where it has `MIN_AREA` pixels and a quarter of its largest area, so that
    the prompt is no sliver. At most `starts` planes of a sequence are started from, those with most objects, at
    most `objects` objects from each (the largest), and `videos` sequences of a set and kind.
    """
    tasks: list[PropagationTask] = []
    taken: dict[tuple[str, str], int] = defaultdict(int)
    for sequence in sequences:
        if len(sequence) < 2 or taken[sequence.set, sequence.kind] >= videos:
            continue
        taken[sequence.set, sequence.kind] += 1
        title = sequence.set
        if sequence.set.startswith("sunnybrook"):
            title += " (along t)" if sequence.kind == "video" else " (along z)"
        beginnings = _beginnings(sequence)
        for start in sorted(beginnings, key=lambda s: (-len(beginnings[s]), s))[:starts]:
            span = slice(start, start + PLANES_FORWARD + 1)
            ids = beginnings[start][:objects]
            labels = np.asarray(sequence.labels[span])
            masks = np.stack([labels == i for i in ids])
            tasks.append(
                PropagationTask(
                    title, f"{sequence.name}:{start}", np.asarray(sequence.frames[span]), masks, sequence.labelled[span]
                )
            )
    return tasks


def next_click(truth: np.ndarray, prediction: np.ndarray | None = None) -> tuple[int, int, int]:
    """The next simulated click: the point of the error region farthest from the region's border.

    Parameters
    ----------
    truth : numpy.ndarray
        bool, (H, W), not empty.
    prediction : numpy.ndarray, optional
        bool, (H, W); without one, the click is at the centre of the object.

    Returns
    -------
    x, y : int
        In pixels.
    label : int
        1 where the object is missed, 0 where too much is covered.

    References
    ----------
    Ravi et al., "SAM 2: Segment Anything in Images and Videos", appendix on interactive evaluation.
    """
    if prediction is None:
        prediction = np.zeros_like(truth)
    missed, excess = truth & ~prediction, prediction & ~truth
    if not missed.any() and not excess.any():
        missed = truth
    (x, y, depth), (x0, y0, depth0) = _deepest(missed), _deepest(excess)
    return (x, y, 1) if depth >= depth0 else (x0, y0, 0)


def pooled_dice(truth: np.ndarray, prediction: np.ndarray, labelled: np.ndarray) -> float:
    """Dice of one object over all labelled planes but the first, pooled as one volume.

    Parameters
    ----------
    truth, prediction : numpy.ndarray
        bool, (T, H, W).
    labelled : numpy.ndarray
        bool, (T,).
    """
    from sam2_core.metrics import dice

    planes = labelled.copy()
    planes[0] = False
    return dice(prediction[planes], truth[planes])


_Candidate = tuple[Sequence, int, int]  # and the plane, and the object's label


def _image_task(sequence: Sequence, t: int, label: int) -> ImageTask:
    image, labels = np.asarray(sequence.frames[t]), np.asarray(sequence.labels[t])
    return ImageTask(sequence.set, f"{sequence.name}:{t}", image, labels == label)


def _round_robin(images: list[list[_Candidate]], limit: int) -> list[_Candidate]:
    """One object of each image in turn until there are `limit`, then sorted so that an image's objects follow on."""
    chosen: list[tuple[int, _Candidate]] = []
    depth = 0
    while len(chosen) < limit and any(len(objects) > depth for objects in images):
        chosen += [(i, objects[depth]) for i, objects in enumerate(images) if len(objects) > depth]
        depth += 1
    return [candidate for _, candidate in sorted(chosen[:limit], key=lambda pair: pair[0])]


def _beginnings(sequence: Sequence) -> dict[int, list[int]]:
    """The plane each object begins on, with the objects that begin there, largest first."""
    n = int(sequence.labels.max())
    areas = np.stack([np.bincount(np.asarray(plane).ravel(), minlength=n + 1) for plane in sequence.labels])
    beginnings: dict[int, list[int]] = defaultdict(list)
    for i in np.argsort(-areas.sum(0)):
        area = areas[:, i]
        enough = np.flatnonzero(area >= max(MIN_AREA, area.max() / 4))
        # There must be planes, and something on them, after the first.
        if i == 0 or not len(enough) or enough[0] + FEWEST_FORWARD >= len(area):
            continue
        if not area[enough[0] + 1 : enough[0] + 1 + PLANES_FORWARD].any():
            continue
        beginnings[int(enough[0])].append(int(i))
    return beginnings


def _deepest(region: np.ndarray) -> tuple[int, int, float]:
    """The pixel of a region farthest from its border (the image border counts), and its distance.

    Regions of more than 128 pixels a side are looked at on a coarser grid of their pixels.
    """
    from scipy.ndimage import distance_transform_edt

    rows, columns = np.flatnonzero(region.any(1)), np.flatnonzero(region.any(0))
    if not len(rows):
        return 0, 0, 0.0
    crop = region[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    step = -(-max(crop.shape) // 128)
    if not crop[::step, ::step].any():
        step = 1
    distance = distance_transform_edt(np.pad(crop[::step, ::step], 1))[1:-1, 1:-1]
    y, x = np.unravel_index(np.argmax(distance), distance.shape)
    return int(x * step + columns[0]), int(y * step + rows[0]), float(distance[y, x]) * step
