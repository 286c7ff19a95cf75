"""From clips to the batch of a step: which step sees images, which clips, reproducible from the step's number alone.

What goes wrong with the data while a batch is made, here or in a worker process, becomes one sentence.
"""

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

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


class _Reporting(Dataset["ClipBatch | InputError"]):
    """Batches, and in the place of one that cannot be made what the user has to mend.

    Of an exception that is raised in a worker process, torch makes another one whose message is a traceback.
    """

    def __init__(self, batches: StepBatches) -> None:
        self._batches = batches

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, number: int) -> "ClipBatch | InputError":
        try:
            return self._batches[number]
        except InputError as error:
            return InputError(str(error))
        except OSError as error:  # a file that went away, a drive that does not answer
            place = "the data" if error.filename is None else error.filename
            return InputError(f"{place} cannot be read: {error.strerror or error}")


def stream_batches(
    batches: StepBatches, first_step: int, workers: int, save: Callable[[], object] | None = None
) -> Iterator[ClipBatch]:
    """Batches from step `first_step` on, made ahead by worker processes.

    Parameters
    ----------
    batches : StepBatches
    first_step, workers : int
        Without workers, batches are made in this process.
    save : callable, optional
        Saves the run; called before an error is raised, when no step is half done.

    Raises
    ------
    InputError
        An image or its labels are damaged or gone, or a worker was killed.
    """
    loader = DataLoader(
        _Reporting(batches),
        batch_size=None,
        sampler=range(first_step * batches.settings.accumulate, len(batches)),
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        worker_init_fn=_begin_worker,
    )
    try:
        with _worker_errors():
            for batch in _begin(loader):
                if isinstance(batch, InputError):
                    raise batch
                yield batch
    except InputError as error:
        if save is None:
            raise
        try:
            save()
        except InputError:  # what is wrong with the data is said, rather than that the disk is full, too
            raise error from None
        raise InputError(f"{error} (what was trained until then is saved)") from None


def _begin(loader: "DataLoader[ClipBatch | InputError]") -> "Iterator[ClipBatch | InputError]":
    """Start the workers without torch's signal handler, which raises wherever the training step happens to be.

    Who waits for the next batch notices a dead worker, too, some seconds later but between two steps. The handler may
    be there already, from another loader of this process.
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "SIGCHLD"):
        return iter(loader)
    before = signal.getsignal(signal.SIGCHLD)
    started = iter(loader)
    is_torchs = getattr(before, "__module__", "").startswith("torch.")
    signal.signal(signal.SIGCHLD, before if before and not is_torchs else signal.SIG_DFL)
    return started


@contextmanager
def _worker_errors() -> Iterator[None]:
    """Say in one sentence what torch says of workers in several."""
    try:
        yield
    except (RuntimeError, OSError, EOFError) as error:  # of the connection to a worker: the data's are told apart
        text = str(error)
        if text.startswith("Too many open files"):
            raise InputError("too many files are open: raise the limit (ulimit -n), or use fewer workers") from None
        if isinstance(error, RuntimeError) and not text.startswith("DataLoader worker (pid"):
            raise
        raise InputError(
            "a worker that prepares clips was killed, perhaps because memory ran out: go on with the same command "
            "(sam2 finetune: and --resume) and fewer workers, as --workers 0, or fewer or smaller images a step"
        ) from None


def _begin_worker(_: int) -> None:
    # a forked process has the thread pool of its parent, but none of its threads
    dask.config.set(scheduler="synchronous")
    # Ctrl-C reaches the whole group, and the step that is under way still wants its batches
    signal.signal(signal.SIGINT, signal.SIG_IGN)
