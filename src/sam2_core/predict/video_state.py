"""The state of tracking one video: its frames, its objects, what was prompted and what was found."""

import tempfile
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from sam2_core.model.sam2 import ImageEmbedding
from sam2_core.predict.embedding_cache import SourceEmbeddings
from sam2_core.predict.frames import PrefetchedFrames
from sam2_core.predict.results import FrameResult, TrackedResults


@dataclass
class ObjectTrack:
    """One object.

    Attributes
    ----------
    points : dict
        By frame, points (1, P, 2) in pixels of the model's input and their labels (1, P), boxes as their corners.
    mask_frames : set
        Frames with a mask prompt, whose result is the mask.
    prompted : dict
        By frame, results that answer prompts and that every frame may attend to.
    tracked : TrackedResults
        Propagated results, and corrections where they do not count as prompted frames.
    pending_prompted, pending_tracked : dict
        By frame, results that the next propagation takes up into `prompted` and `tracked`.
    directions : dict
        By frame that propagation has passed, whether it ran backwards.
    """

    tracked: TrackedResults
    points: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)
    mask_frames: set[int] = field(default_factory=set)
    prompted: dict[int, FrameResult] = field(default_factory=dict)
    pending_prompted: dict[int, FrameResult] = field(default_factory=dict)
    pending_tracked: dict[int, FrameResult] = field(default_factory=dict)
    directions: dict[int, bool] = field(default_factory=dict)

    @property
    def prompted_frames(self) -> set[int]:
        """Frames with a prompt of the user."""
        return {*self.points, *self.mask_frames}

    def result(self, frame: int, pending_first: dict[int, FrameResult] | None = None) -> FrameResult | None:
        """What is known of the object on a frame."""
        for results in (pending_first or {}, self.prompted):
            if frame in results:
                return results[frame]
        return self.tracked[frame] if frame in self.tracked else None  # noqa: SIM401

    def latest(self, frame: int) -> FrameResult | None:
        """What is known of the object on a frame, with what waits to be taken up."""
        return self.result(frame, {**self.pending_tracked, **self.pending_prompted})


@dataclass
class VideoState:
    """A video in work; made by `SAM2VideoPredictor.init_state`.

    Attributes
    ----------
    frames : PrefetchedFrames
        Gives model inputs (3, image_size, image_size), read ahead in a thread.
    size : (int, int)
        Height and width of the video in pixels.
    storage_dir : Path
        Holds what memory does not.
    objects : dict
        By object id.
    locked : set of int
        Objects that keep their pixels where masks would overlap.
    embeddings : dict
        By frame, those of the frames in work.
    cached : SourceEmbeddings, optional
        More of them, which outlive the state.
    """

    frames: PrefetchedFrames
    size: tuple[int, int]
    storage_dir: Path
    keep: int
    write_through: bool
    result_device: torch.device
    temporary: tempfile.TemporaryDirectory | None = None
    objects: OrderedDict[int, ObjectTrack] = field(default_factory=OrderedDict)
    locked: set[int] = field(default_factory=set)
    embeddings: OrderedDict[int, ImageEmbedding] = field(default_factory=OrderedDict)
    cached: SourceEmbeddings | None = None

    @property
    def num_frames(self) -> int:
        """Frames of the video."""
        return len(self.frames)

    @property
    def obj_ids(self) -> list[int]:
        """Object ids in the order they came."""
        return list(self.objects)

    def track(self, obj_id: int) -> ObjectTrack:
        """The object's track, new if there is none."""
        if obj_id not in self.objects:
            results = TrackedResults(self.storage_dir / f"object-{obj_id}", self.keep, self.write_through)
            self.objects[obj_id] = ObjectTrack(results)
        return self.objects[obj_id]

    def restore(self) -> dict[int, list[int]]:
        """Take up results that an earlier process left in `storage_dir`, for objects prompted again as they were.

        Returns
        -------
        dict
            By object id, the frames found.
        """
        return {obj_id: track.tracked.find_stored() for obj_id, track in self.objects.items()}

    def close(self) -> None:
        """End the reading thread and remove the temporary storage."""
        self.frames.close()
        if self.temporary is not None:
            self.temporary.cleanup()
