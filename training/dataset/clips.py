"""Training clips: short runs of planes or frames of the labelled sets, seen as a user would and augmented.

`ClipDataset` is indexable by any number and reproducible: the clip depends on the seed and the index alone,
so a training run that stops can go on at the index where it stopped.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import Dataset

from sam2_core.errors import InputError
from training.dataset import intensity, motion, views
from training.dataset.labelled_sets import Sequence

# How often each set is drawn, before normalisation; the single-image sets have T = 1 or a pseudo-video.
SET_WEIGHTS: dict[str, float] = {
    "dsb2018_nuclei2d": 4.5,
    "usiigaci_phase2d": 1.2,
    "t98g_phase_track": 1.2,
    "fibsem_medulla_neurites3d": 2.0,
    "arabidopsis_nuclei3d": 0.7,
    "arabidopsis_cells3d": 0.8,
    "mouse_embryo_nuclei3d": 0.5,
    "stardist_worm_nuclei3d": 0.5,
    "sunnybrook_cine4d": 1.0,
    "sct_spinal_cord3d": 0.4,
    "davis2016_480p": 1.5,
}


@dataclass
class Clip:
    """One training clip.

    Attributes
    ----------
    frames : torch.Tensor
        float32, (T, 3, S, S), normalised with ImageNet's mean and standard deviation.
    masks : torch.Tensor
        bool, (T, N, S, S), one to `max_objects` objects; every object is visible in frame 0.
    valid : torch.Tensor
        bool, (T,): frames whose masks are known; frame 0 always is. Where False, masks are empty and mean
        nothing.
    labels : torch.Tensor
        int64, (T, S / 4, S / 4): the labels of all objects at every fourth pixel; 0 is background, -1 unknown.
    set : str
        The labelled set it comes from.
    """

    frames: torch.Tensor
    masks: torch.Tensor
    valid: torch.Tensor
    labels: torch.Tensor
    set: str

    def __len__(self) -> int:
        return len(self.frames)


@dataclass(frozen=True)
class ClipOptions:
    """How clips are drawn; probabilities are in [0, 1].

    Attributes
    ----------
    size : int
        Side S of the square frames, in pixels.
    frames : int
        Number of frames T; with 1, single images.
    max_objects : int
        Most objects N of a clip.
    min_pixels : int
        Fewest pixels of an object in frame 0, at the size S.
    whole_view : float
        How often the whole image is shown, squashed to the square as the predictors do it.
    merge : float
        How often touching objects are joined into one, for one object of the clip.
    flow : float
        How often the pseudo-video of a single image is a flow of its parts rather than a motion of the whole.
    scatter : float
        How often, of the flows of bright objects on a dark ground, each object moves alone.
    intensity : float
        How often intensities are changed.
    augment : bool
        Whether to flip, rotate and change intensities at all.
    """

    size: int = 256
    frames: int = 1
    max_objects: int = 4
    min_pixels: int = 16
    whole_view: float = 0.5
    merge: float = 0.1
    flow: float = 0.9
    scatter: float = 0.85
    intensity: float = 1.0
    augment: bool = True


class ClipDataset(Dataset[Clip]):
    """Clips drawn at random from sequences.

    Parameters
    ----------
    sequences : sequence of Sequence
        From `splits.load_part`.
    options : ClipOptions
    length : int
        Number of clips; any non-negative index works, the length is what a sampler sees.
    seed : int
    weights : mapping, optional
        How often each set is drawn, `SET_WEIGHTS` by default (1 for a set that is not named there).
    """

    def __init__(
        self,
        sequences: SequenceOf[Sequence],
        options: ClipOptions | None = None,
        *,
        length: int = 1_000_000,
        seed: int = 0,
        weights: Mapping[str, float] | None = None,
    ) -> None:
        self.options = options or ClipOptions()
        self.length = length
        self.seed = seed
        by_set: dict[str, list[Sequence]] = defaultdict(list)
        for sequence in sequences:
            if sequence.may_have_objects:
                by_set[sequence.set].append(sequence)
        if not by_set:
            raise InputError("there are no labelled objects to train on: label some, or give other data")
        weights = SET_WEIGHTS if weights is None else weights
        chosen = {name: float(weights.get(name, 1.0)) for name in by_set}
        self._by_set = {name: by_set[name] for name, weight in chosen.items() if weight > 0}
        total = sum(chosen.values())
        self._probabilities = [chosen[name] / total for name in self._by_set]

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Clip:
        rng = np.random.default_rng([self.seed, index])
        for _ in range(100):
            name = list(self._by_set)[rng.choice(len(self._by_set), p=self._probabilities)]
            group = self._by_set[name]
            clip = draw_clip(group[rng.integers(len(group))], self.options, rng)
            if clip is not None:
                return clip
        raise InputError(
            f"no object of {self.options.min_pixels} pixels or more was found in 100 images of {name}: label more, or "
            f"larger ones, or train at a larger image size than {self.options.size}"
        )


def draw_clip(sequence: Sequence, options: ClipOptions, rng: np.random.Generator) -> Clip | None:
    """Draw one clip from a sequence; None where the draw shows no object."""
    axis = _draw_axis(sequence, options, rng)
    planes = _draw_planes(sequence, axis, options.frames, rng)
    if planes is None:
        return None
    frames = np.asarray(np.moveaxis(sequence.frames, axis, 0)[planes])
    labels = np.asarray(np.moveaxis(sequence.labels, axis, 0)[planes])
    valid = sequence.labelled[planes] if axis == 0 else np.full(len(planes), True)

    view = views.draw_view(labels[0], options.size, options.whole_view, options.augment, rng)
    if view is None:
        return None
    still = len(np.unique(planes)) == 1 and options.frames > 1
    flows = still and rng.random() < options.flow
    flow = motion.draw_flow(options.frames, rng) if flows else None
    drift = motion.draw_drift(options.frames, rng) if still and not flows else None
    shown = views.sample_labels(labels[0], view, options.size)
    ids = _draw_objects(shown, options, rng)
    if not ids:
        return None
    image, masks, all_labels = views.sample(frames, labels, ids, view, options.size, drift, flow)
    if flows and sequence.complete and rng.random() < options.scatter:
        scattered = _scatter(image[0].numpy(), shown, ids, options, rng)
        image, masks, all_labels = scattered or (image, masks, all_labels)
    masks &= torch.from_numpy(valid)[:, None, None, None]
    seen = masks[0].sum((-2, -1)) >= options.min_pixels
    if not seen.any():
        return None
    if options.augment and rng.random() < options.intensity:
        image = intensity.augment(image, rng)
    if not sequence.complete:
        all_labels[all_labels == 0] = views.UNKNOWN
    known = torch.from_numpy(valid.copy())
    all_labels[~known] = views.UNKNOWN
    return Clip(intensity.normalise(image), masks[:, seen], known, all_labels, sequence.set)


def _scatter(
    image: np.ndarray, labels: np.ndarray, objects: list[list[int]], options: ClipOptions, rng: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None:
    """Image, masks and coarse labels of a clip in which all objects wander; None for an image that cannot be one."""
    if not motion.can_scatter(image, labels):
        return None
    images, moved = motion.scatter(image, labels, options.frames, rng)
    masks = np.stack([np.isin(moved, ids) for ids in objects], axis=1)
    coarse = moved[:, views.STRIDE // 2 :: views.STRIDE, views.STRIDE // 2 :: views.STRIDE]
    return torch.from_numpy(images), torch.from_numpy(masks), torch.from_numpy(coarse.astype(np.int64))


def _draw_axis(sequence: Sequence, options: ClipOptions, rng: np.random.Generator) -> int:
    # The natural axis more often: planes along z are what a microscope or scanner records.
    others = [a for a in sequence.slice_axes if a != 0]
    if not others or not sequence.labelled.all() or rng.random() < 0.7:
        return 0
    return int(rng.choice(others))


def _draw_planes(sequence: Sequence, axis: int, count: int, rng: np.random.Generator) -> np.ndarray | None:
    """Indices of `count` planes along `axis`; the first is labelled. One index repeated is a pseudo-video."""
    length = sequence.frames.shape[axis]
    labelled = np.flatnonzero(sequence.labelled) if axis == 0 else np.arange(length)
    start = int(rng.choice(labelled))
    if count == 1 or length == 1 or len(labelled) == 1 or rng.random() < 0.08:
        return np.full(count, start)
    if axis == 0 and len(labelled) < length // 2:
        # Few labelled frames: run from one to another, so that the end is labelled too.
        end = int(rng.choice(labelled[labelled != start]))
        return np.rint(np.linspace(start, end, count)).astype(int)
    longest = (length - 1) // (count - 1)
    stride = int(rng.choice([1, 1, 1, 2, 2, 3]))
    stride = max(1, min(stride, longest))
    direction = 1 if rng.random() < 0.5 else -1
    planes = start + direction * stride * np.arange(count)
    # Shift into the range rather than repeat the last plane; short stacks bounce at their ends.
    if longest < 1:
        period = max(2 * (length - 1), 1)
        folded = np.mod(planes, period)
        return np.minimum(folded, period - folded)
    shift = max(0, -planes.min()) - max(0, planes.max() - (length - 1))
    planes = planes + shift
    return planes if axis != 0 or sequence.labelled[planes[0]] else None


def _draw_objects(labels: np.ndarray, options: ClipOptions, rng: np.random.Generator) -> list[list[int]]:
    """Objects of the first frame as lists of ids; one of them may be several touching ids joined."""
    counts = np.bincount(labels.ravel())
    counts[0] = 0
    ids = np.flatnonzero(counts >= options.min_pixels)
    if not len(ids):
        return []
    # Slivers at the border of a view and specks are shown, but less often than whole objects.
    weights = np.sqrt(np.minimum(counts[ids], 0.02 * labels.size))
    count = min(options.max_objects, len(ids))
    chosen = rng.choice(ids, count, replace=False, p=weights / weights.sum())
    objects = [[int(i)] for i in chosen]
    if options.augment and rng.random() < options.merge:
        objects[0] = _touching(labels, int(chosen[0]))
    return objects


def _touching(labels: np.ndarray, label: int) -> list[int]:
    """`label` and the labels within two pixels of it."""
    from scipy.ndimage import binary_dilation

    near = np.unique(labels[binary_dilation(labels == label, iterations=2)])
    return [int(i) for i in near if i != 0]
