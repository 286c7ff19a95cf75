"""From clips to the batch of a step: which step sees images, which clips, reproducible from the step's number alone."""

from collections.abc import Sequence

import dask
import torch
from torch.utils.data import DataLoader, Dataset

from sam2_core.errors import InputError
from training.dataset.clips import Clip, ClipDataset, ClipOptions
from training.dataset.labelled_sets import Sequence as LabelledSequence
from training.model.sam2_train import ClipBatch
from training.settings import Phase, TrainSettings

CLIPS_OF_A_STEP = 64  # clips are numbered from a multiple of it at each step; more would be those of the next


class StepBatches(Dataset[ClipBatch]):
    """The batches of every step of a run, `accumulate` of them each, or the part of them of one process.

    Parameters
    ----------
    sequences : sequence of Sequence
    settings : TrainSettings
    rank, world : int
        Number of the process and count of all; together they see what one process with batches `world` times as large
        would.
    """

    def __init__(
        self, sequences: Sequence[LabelledSequence], settings: TrainSettings, rank: int = 0, world: int = 1
    ) -> None:
        self.settings = settings
        self.rank, self.world = rank, world
        largest = max(max(phase.images, phase.clips) for phase in settings.phases) * settings.accumulate * world
        if largest > CLIPS_OF_A_STEP:
            raise InputError(f"a step of {largest} clips over all processes is too large: at most {CLIPS_OF_A_STEP}")
        self._sources: dict[tuple[Phase, bool], ClipDataset] = {}
        for phase in settings.phases:
            for is_clip in (False, True):
                options = ClipOptions(
                    size=phase.image_size,
                    frames=phase.frames if is_clip else 1,
                    max_objects=phase.objects,
                    whole_view=phase.whole_view,
                    min_pixels=phase.min_pixels,
                    intensity=phase.intensity,
                )
                self._sources[phase, is_clip] = ClipDataset(sequences, options, seed=settings.seed + is_clip)

    def __len__(self) -> int:
        return self.settings.total_steps * self.settings.accumulate

    def __getitem__(self, number: int) -> ClipBatch:
        step, part = divmod(number, self.settings.accumulate)
        phase, within = self.settings.phase_at(step)
        is_clip = phase.clip_every > 0 and within % phase.clip_every == phase.clip_every - 1
        count = phase.clips if is_clip else phase.images
        source = self._sources[phase, is_clip]
        first = step * CLIPS_OF_A_STEP + (part * self.world + self.rank) * count
        return collate([source[first + i] for i in range(count)])


def collate(clips: Sequence[Clip]) -> ClipBatch:
    """Clips of one length as a batch, their objects flattened."""
    counts = torch.tensor([clip.masks.shape[1] for clip in clips])
    return ClipBatch(
        frames=torch.stack([clip.frames for clip in clips]),
        masks=torch.cat([clip.masks.transpose(0, 1) for clip in clips]),
        clip=torch.arange(len(clips)).repeat_interleave(counts),
        valid=torch.stack([clip.valid for clip in clips]).repeat_interleave(counts, dim=0),
        labels=torch.stack([clip.labels for clip in clips]),
    )


def batch_loader(batches: StepBatches, first_step: int, workers: int) -> DataLoader[ClipBatch]:
    """Batches from step `first_step` on, made ahead by worker processes."""
    return DataLoader(
        batches,
        batch_size=None,
        sampler=range(first_step * batches.settings.accumulate, len(batches)),
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        worker_init_fn=_begin_worker,
    )


def _begin_worker(_: int) -> None:
    # a forked process has the thread pool of its parent, but none of its threads
    dask.config.set(scheduler="synchronous")
