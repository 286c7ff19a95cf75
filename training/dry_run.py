"""Batches of a run tried before its first step: forward and backward, the weights stay as they are."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from itertools import count
from typing import cast

import torch
from lightning_fabric import Fabric
from torch.optim import Optimizer

from sam2_core.errors import InputError
from training import fit
from training.model.sam2_train import PromptSettings, SAM2Train
from training.settings import Phase, TrainSettings
from training.sharding import ShardedStrategy, bytes_here


@dataclass(frozen=True)
class DryRun:
    """Says what batches take of a device's memory.

    Every process of a run does the same at the same time; its devices count as the one with the least memory.

    Attributes
    ----------
    model : SAM2Train
    optimizers : sequence of Optimizer
    fabric : Fabric
    probe : Probe
    enter : callable
        Prepares the model for steps of a phase of a run.
    """

    model: SAM2Train
    optimizers: Sequence[Optimizer]
    fabric: Fabric
    probe: fit.Probe
    enter: Callable[[TrainSettings, Phase], None]

    def check(self, settings: TrainSettings) -> str:
        """What the largest batch of a run needs, for people.

        Raises
        ------
        InputError
            It does not fit; says which settings do.
        """
        device, needed = self.device(), self.need(settings)
        if needed is not None and fit.fits(needed, device):
            return f"largest batch needs {fit.gb(needed)} of {fit.gb(device)} GB"
        # a step in shards that was broken off leaves some of them whole
        can_try = needed is not None or not isinstance(self.fabric.strategy, ShardedStrategy)
        needs = "more" if needed is None else f"{fit.gb(needed)} GB, of which {fit.LIMIT:.0%} may be used"
        raise InputError(
            f"the largest batch does not fit: the device has {fit.gb(device)} GB, and it needs {needs}. "
            f"{self.advice(settings, can_try)}"
        )

    def advice(self, settings: TrainSettings, can_try: bool = True) -> str:
        """What to do where batches do not fit, for people."""
        device, processes = self.device(), self.fabric.world_size
        if can_try:
            return fit.advice(settings, fit.propose(settings, self.need, device, processes))
        return fit.advice(settings, next(fit.smaller(settings, device, processes), None))

    def device(self) -> int:
        """Bytes of memory of the device."""
        return int(-self._most(-self.probe.total()))

    def need(self, settings: TrainSettings) -> int | None:
        """Bytes that the largest batch of a run takes, None if there are not so many."""
        peak = fit.peak_of(partial(self._backward, settings), settings, self.probe)
        most = self._most(float("inf") if peak is None else peak + self._of_optimizers(settings))
        return None if most == float("inf") else int(most)

    def _backward(self, settings: TrainSettings, phase: Phase, is_clip: bool) -> None:
        prompts = self.model.prompts
        self.enter(settings, phase)
        try:
            # a clip that starts from clicks has more answers than one from a mask
            self.model.prompts = replace(prompts, mask=0.0)
            if settings.accumulate > 1:  # from the second batch on there are gradients
                for parameter in self.model.parameters():
                    parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None
            batch = fit.largest_batch(phase, is_clip).to(self.fabric.device)
            torch.manual_seed(_seed_of_most_corrections(prompts, batch.frames.shape[1]))
            with self.fabric.autocast():
                # past DDP, which would wait for the other processes
                result = self.model(**{f.name: getattr(batch, f.name) for f in fields(batch)})
            result["total"].backward()
        finally:
            self.model.prompts = prompts
            for parameter in self.model.parameters():
                parameter.grad = None

    def _of_optimizers(self, settings: TrainSettings) -> int:
        """Bytes that the optimizers will hold beside the weights, and do not yet."""
        trunk_learns = any(phase.trunk_lr > 0 for phase in settings.phases)
        missing = 0
        for optimizer in self.optimizers:
            moments = 1 if type(optimizer).__name__.endswith("Muon") else 2
            for group in optimizer.param_groups:
                if group["is_trunk"] and not trunk_learns:
                    continue
                missing += moments * sum(bytes_here(p) for p in group["params"] if p not in optimizer.state)
        return missing

    def _most(self, value: float) -> float:
        """The largest of all processes' values."""
        if self.fabric.world_size == 1:
            return value
        mine = torch.tensor(value, dtype=torch.float64, device=self.fabric.device)
        return cast(torch.Tensor, self.fabric.all_reduce(mine, reduce_op="max")).item()


def _seed_of_most_corrections(prompts: PromptSettings, frames: int) -> int:
    """A seed with which a clip is corrected on as many frames as any: how many is what is drawn first."""
    most = max(0, min(prompts.corrected_frames, frames - 1))
    draw = torch.Generator()
    return next(seed for seed in count() if int(torch.randint(most + 1, (), generator=draw.manual_seed(seed))) == most)
