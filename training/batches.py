"""From clips to the batch of a step: which step sees images, which clips, reproducible from the step's number alone."""

from collections.abc import Sequence

import dask
import torch
from torch.utils.data import DataLoader, Dataset

from training.dataset.clips import Clip, ClipDataset, ClipOptions
from training.dataset.labelled_sets import Sequence as LabelledSequence
from training.model.sam2_train import ClipBatch
from training.settings import Phase, TrainSettings


class StepBatches(Dataset[ClipBatch]):
    """The batch of every step of a run."""

    def __init__(self, sequences: Sequence[LabelledSequence], settings: TrainSettings) -> None:
        self.settings = settings
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
        return self.settings.total_steps

    def __getitem__(self, step: int) -> ClipBatch:
        phase, within = self.settings.phase_at(step)
        is_clip = phase.clip_every > 0 and within % phase.clip_every == phase.clip_every - 1
        count = phase.clips if is_clip else phase.images
        source = self._sources[phase, is_clip]
        return collate([source[step * 64 + i] for i in range(count)])


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
    """Batches from `first_step` on, made ahead by worker processes."""
    return DataLoader(
        batches,
        batch_size=None,
        sampler=range(first_step, len(batches)),
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        worker_init_fn=_begin_worker,
    )


def _begin_worker(_: int) -> None:
    # a forked process has the thread pool of its parent, but none of its threads
    dask.config.set(scheduler="synchronous")
