"""Whether the largest batch of a run fits the device's memory, and which settings fit if it does not."""

import gc
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import torch

from training.batches import CLIPS_OF_A_STEP
from training.model.sam2_train import ClipBatch
from training.settings import Phase, TrainSettings

LIMIT = 0.92  # part of the memory that a batch may take; what is left is for fragments and kernels' work space

GIB = 2**30

OF_A_PHASE = ("images", "clips", "frames", "objects")
OF_A_RUN = ("accumulate", "checkpoint_activations")

# what a setting is called in `sam2 finetune`, and in a training config under Meta's names
OPTIONS = {
    "images": "--images",
    "frames": "--frames",
    "objects": "--objects",
    "accumulate": "--accumulate",
    "checkpoint_activations": "--checkpoint-activations",
}
KEYS = {
    "clips": "scratch.train_batch_size",
    "frames": "scratch.num_frames",
    "objects": "scratch.max_num_objects",
    "accumulate": "++trainer.accumulate",
    "checkpoint_activations": "++trainer.checkpoint_activations",
}


class Probe(Protocol):
    """Measures the memory of a device."""

    def reset(self) -> None:
        """Begin anew: forget the peak, give back what is not in use."""

    def peak(self) -> int:
        """Most bytes in use since then."""

    def total(self) -> int:
        """Bytes that this process may use."""


class CudaProbe:
    """A CUDA device; what other processes hold of it is not this one's."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def reset(self) -> None:
        """See `Probe`."""
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(self.device)

    def peak(self) -> int:
        """See `Probe`."""
        return torch.cuda.max_memory_allocated(self.device)

    def total(self) -> int:
        """See `Probe`."""
        free, _ = torch.cuda.mem_get_info(self.device)
        return free + torch.cuda.memory_reserved(self.device)


def probe_of(device: torch.device) -> Probe | None:
    """What measures a device; None for a CPU or MPS, which share their memory with everything else."""
    return CudaProbe(device) if device.type == "cuda" else None


@dataclass(frozen=True)
class Proposal:
    """Settings of a run that its device has the memory for.

    Attributes
    ----------
    images, clips, frames, objects : int
        The most that a phase may have of each.
    accumulate : int
    checkpoint_activations : bool
    measured : int, optional
        Bytes that the largest batch took with them; None if it was not tried.
    device : int
        Bytes that the device has.
    """

    images: int
    clips: int
    frames: int
    objects: int
    accumulate: int
    checkpoint_activations: bool
    measured: int | None
    device: int

    def apply(self, settings: TrainSettings) -> TrainSettings:
        """A run's settings with no more than is proposed."""
        phases = [
            replace(phase, **{name: min(getattr(phase, name), getattr(self, name)) for name in OF_A_PHASE})
            for phase in settings.phases
        ]
        return replace(
            settings,
            phases=phases,
            accumulate=self.accumulate,
            checkpoint_activations=self.checkpoint_activations,
        )

    def message(self, settings: TrainSettings) -> str:
        """What to change in a run's settings, for people."""
        before = limits(settings, self.device)
        changes = {n: getattr(self, n) for n in (*OF_A_PHASE, *OF_A_RUN) if getattr(self, n) != getattr(before, n)}
        # of the options, a switch has no value
        options = [OPTIONS[n] + ("" if v is True else f" {v}") for n, v in changes.items() if n in OPTIONS]
        at_most = "at most " if len(settings.phases) > 1 else ""
        phases = [f"{n}: {at_most}{v}" for n, v in changes.items() if n in OF_A_PHASE]
        run = [f"{n}: {str(v).lower()}" for n, v in changes.items() if n in OF_A_RUN]
        keys = [f"{KEYS[n]}={str(v).lower()}" for n, v in changes.items() if n in KEYS]
        tried = "not tried" if self.measured is None else f"the largest takes {gb(self.measured)} GB"
        in_phases = f" and, in its phases, {', '.join(phases)}" if phases else ""
        return (
            f"Smaller batches need less ({tried}): give sam2 finetune {' '.join(options)}; or write {', '.join(run)}"
            f"{in_phases} into the run's YAML file; or give a config under Meta's names {' '.join(keys)}."
        )


def limits(settings: TrainSettings, device: int) -> Proposal:
    """The largest values that a run has, 1 where it has no steps on images or on clips."""
    phases = settings.phases
    moving = [phase for phase in phases if phase.clip_every > 0]
    return Proposal(
        images=max((phase.images for phase in phases if phase.clip_every != 1), default=1),
        clips=max((phase.clips for phase in moving), default=1),
        frames=max((phase.frames for phase in moving), default=1),
        objects=max(phase.objects for phase in phases),
        accumulate=settings.accumulate,
        checkpoint_activations=settings.checkpoint_activations,
        measured=None,
        device=device,
    )


def smaller(settings: TrainSettings, device: int, processes: int = 1) -> Iterator[Proposal]:
    """Ever smaller settings: what changes the result least goes first, half a batch added up twice."""
    now = limits(settings, device)
    while max(now.images, now.clips) > 1:
        images, clips = (now.images + 1) // 2, (now.clips + 1) // 2
        most = CLIPS_OF_A_STEP // (max(images, clips) * processes)
        now = replace(now, images=images, clips=clips, accumulate=min(2 * now.accumulate, most))
        yield now
    if not now.checkpoint_activations:
        now = replace(now, checkpoint_activations=True)
        yield now
    while now.frames > 2:  # with one there is no memory to learn
        now = replace(now, frames=now.frames - 1)
        yield now
    while now.objects > 1:
        now = replace(now, objects=(now.objects + 1) // 2)
        yield now


def propose(
    settings: TrainSettings, need: Callable[[TrainSettings], int | None], device: int, processes: int = 1
) -> Proposal | None:
    """The largest settings that fit, of those in `smaller`; None if not even the smallest do.

    Parameters
    ----------
    settings : TrainSettings
        That do not fit.
    need : callable
        Gives the bytes that the largest batch of a run takes, None if there are not so many.
    device : int
        Bytes that the device has.
    processes : int
        Of the run.
    """
    for candidate in smaller(settings, device, processes):
        needed = need(candidate.apply(settings))
        if fits(needed, device):
            return replace(candidate, measured=needed)
    return None


def advice(settings: TrainSettings, found: Proposal | None) -> str:
    """What to do about a lack of memory, for people."""
    if found is None:
        return "Smaller batches do not help: take a smaller model or image size, or a device with more memory."
    return found.message(settings)


def gb(size: int) -> str:
    """Bytes as people read them, in the units in which devices are sold."""
    return f"{size / GIB:.1f}"


def fits(needed: int | None, device: int) -> bool:
    """Whether so many bytes, None for too many, leave the device some air."""
    return needed is not None and needed <= LIMIT * device


def kinds(settings: TrainSettings) -> list[tuple[Phase, bool]]:
    """The kinds of steps of a run: a phase, and whether the step is on clips."""
    found = []
    for phase in settings.phases:
        if phase.clip_every != 1:
            found.append((phase, False))
        if phase.clip_every > 0:
            found.append((phase, True))
    return found


def largest_batch(phase: Phase, is_clip: bool) -> ClipBatch:
    """A batch of noise with as many objects as any of the phase may have."""
    clips, frames = (phase.clips, phase.frames) if is_clip else (phase.images, 1)
    size, objects = phase.image_size, phase.objects
    masks = torch.zeros(clips * objects, frames, size, size, dtype=torch.bool)
    masks[..., size // 4 : size // 2, size // 4 : size // 2] = True
    return ClipBatch(
        frames=torch.randn(clips, frames, 3, size, size),
        masks=masks,
        clip=torch.arange(clips).repeat_interleave(objects),
        valid=torch.ones(clips * objects, frames, dtype=torch.bool),
        labels=torch.randint(objects + 1, (clips, frames, size // 4, size // 4)),
    )


def peak_of(run: Callable[[Phase, bool], None], settings: TrainSettings, probe: Probe) -> int | None:
    """Most bytes in use while steps of each kind run; None if there are not enough."""
    most = 0
    for phase, is_clip in kinds(settings):
        probe.reset()
        if not _has_room(run, phase, is_clip):
            probe.reset()
            return None
        most = max(most, probe.peak())
    probe.reset()
    return most


def _has_room(run: Callable[[Phase, bool], None], phase: Phase, is_clip: bool) -> bool:
    # the error holds the step's tensors, and is gone when this returns
    try:
        run(phase, is_clip)
    except torch.OutOfMemoryError:
        return False
    return True
