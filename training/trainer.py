"""The training loop: steps, weight average, logs, checkpoints from which a run goes on exactly."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from statistics import fmean
from typing import NoReturn, cast

import numpy as np
import torch
from lightning_fabric import Fabric
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from sam2_core.build import build_model
from sam2_core.configs import load_config
from sam2_core.errors import InputError
from sam2_core.model.sam2 import SAM2Base
from sam2_core.volume.files import disk_errors
from training import fit
from training.batches import StepBatches, stream_batches
from training.checkpoints import gathered, load_optimizer, load_weights, of_this_run, read_checkpoint, save_beside
from training.dataset.labelled_sets import Sequence as LabelledSequence
from training.dry_run import DryRun
from training.interrupt import finish_step_on_interrupt
from training.lora import add_adapters, merged_state_dict
from training.model.phase import recompute_activations, set_input_size, set_trainable
from training.model.sam2_train import ClipBatch, SAM2Train, mean_over_processes
from training.model.start import prepare_decoder
from training.optimizer import build_optimizers, half_cosine, set_learning_rate
from training.run_log import RunLog
from training.settings import Phase, TrainSettings
from training.sharding import ShardedStrategy, shard

CHECKPOINT = "last.pt"
BEST = "best.pt"
METRIC = "mean"  # of the numbers that validation gives, the one by which the best weights are kept


@dataclass(frozen=True)
class Validation:
    """What a look at the model gives.

    Attributes
    ----------
    numbers : dict of str to float
        Among them `METRIC`, larger being better.
    pictures : dict of str to ndarray
        uint8 (H, W, 3), for TensorBoard.
    """

    numbers: dict[str, float] = field(default_factory=dict)
    pictures: dict[str, np.ndarray] = field(default_factory=dict)


class Trainer:
    """One run in a directory of its own.

    Parameters
    ----------
    settings : TrainSettings
    out : Path
        Where logs and checkpoints go.
    fabric : Fabric
        Device, precision and processes, launched where there are several.
    validate : callable, optional
        Measures a model in evaluation mode; called every `validate_every` steps and at the end. The weights with the
        best `METRIC` are kept in `BEST`.
    probe : Probe, optional
        Measures the device's memory, by default where it is CUDA; without, no batch is tried before the first step.

    Raises
    ------
    InputError
        `trainable` or `lora` name nothing that the model has, or `start_from` is of another model.
    """

    def __init__(
        self,
        settings: TrainSettings,
        out: Path,
        fabric: Fabric,
        validate: Callable[[SAM2Base], Validation] | None = None,
        probe: fit.Probe | None = None,
    ) -> None:
        self.settings = settings
        self.out = out
        self.fabric = fabric
        self.validate = validate
        self.is_sharded = isinstance(fabric.strategy, ShardedStrategy)
        torch.manual_seed(settings.seed)
        base = self._build()
        if settings.start_from is None:
            prepare_decoder(base)
        else:
            from sam2_core.weights.checkpoints import check_state_dict, load_state_dict

            weights = load_state_dict(settings.start_from)
            check_state_dict(base, weights)
            base.load_state_dict(weights)
        if settings.lora is not None:
            add_adapters(base, settings.lora)
        set_trainable(base, settings.trainable)
        self.average = AveragedModel(base, fabric.device, multi_avg_fn=get_ema_multi_avg_fn(settings.ema))
        self.inner = SAM2Train(base, settings.prompts, settings.losses)
        if isinstance(fabric.strategy, ShardedStrategy):
            average = cast(SAM2Base, self.average.module)
            shard(average, average, fabric.strategy.device_mesh["data_parallel"])
        # shards are parameters of their own, which are there only now
        self.model = fabric.setup_module(self.inner)
        optimizers = build_optimizers(self.inner, settings.optimizer)
        self.optimizers = [cast(torch.optim.Optimizer, fabric.setup_optimizers(each)) for each in optimizers]
        probe = probe or fit.probe_of(fabric.device)
        self.dry_run = None if probe is None else DryRun(self.inner, self.optimizers, fabric, probe, self._enter)
        self.step = 0
        self.best_score = -math.inf
        self.worse_since = 0

    @property
    def best_model(self) -> SAM2Base:
        """The averaged model, or the model itself where none is averaged; in shards where these are."""
        model = self.average.module if self.settings.ema else self.inner.model
        assert isinstance(model, SAM2Base)
        return model

    def fit(self, sequences: Sequence[LabelledSequence], workers: int = 1) -> bool:
        """Train from where the run stands to its end.

        Returns
        -------
        bool
            Whether it came to its end: of the last phase, or because `patience` was. False after Ctrl-C.

        Raises
        ------
        InputError
            The largest batch does not fit the device's memory, or the data are damaged.
        """
        if self.is_done:
            return True
        if self.step == 0 and self.dry_run is not None:
            line = self.dry_run.check(self.settings)
            if self.fabric.is_global_zero:
                tqdm.write(line)
        self.out.mkdir(parents=True, exist_ok=True)
        mine = StepBatches(sequences, self.settings, self.fabric.global_rank, self.fabric.world_size)
        # where a process has a shard alone, it cannot save alone
        batches = stream_batches(mine, self.step, workers, None if self.is_sharded else self.save)
        log = RunLog(self.out, self.step, self.settings.total_steps) if self.fabric.is_global_zero else None
        recent: list[dict[str, float]] = []
        steps = range(self.step, self.settings.total_steps)
        progress = tqdm(
            steps,
            initial=self.step,
            total=self.settings.total_steps,
            unit="step",
            mininterval=5,
            disable=not self.fabric.is_global_zero,
        )
        # the logs are written in a thread, whose error comes up at any later entry
        with progress, finish_step_on_interrupt() as interrupted, disk_errors(self.out):
            for _ in progress:
                result = self._train_step(batches)
                self.step += 1
                recent.append(result)
                if self.step % self.settings.log_every == 0:
                    # steps of another phase may lack some of the losses
                    means = {name: fmean(r[name] for r in recent if name in r) for name in result}
                    recent.clear()
                    if log is not None:
                        log.losses(self.step, means, self.optimizers[0].param_groups[0]["lr"])
                    shown = {name: f"{value:.3f}" for name, value in means.items() if name in ("total", "last_iou")}
                    progress.set_postfix(shown, refresh=False)
                every = self.settings.validate_every
                if every and (self.step % every == 0 or self.step == self.settings.total_steps):
                    self._validate(log)
                if self.step % self.settings.save_every == 0:
                    self.save()
                if self.is_done or self._any_process(interrupted.is_set()):
                    break
        self.save()
        if log is not None:
            log.close()
        return self.is_done

    @property
    def is_done(self) -> bool:
        """Whether the run has come to its end."""
        out_of_patience = 0 < self.settings.patience <= self.worse_since
        return out_of_patience or self.step >= self.settings.total_steps

    def best_state(self) -> dict[str, torch.Tensor]:
        """The weights to keep, adapters merged: the best that validation saw, else the last.

        All processes call it; where the model is in shards, those but the first get nothing.
        """
        path = self.out / BEST
        if self.validate is not None and path.is_file():
            return read_checkpoint(path)["weights"]
        model = self._whole_model()
        return {} if model is None else merged_state_dict(model)

    def save(self) -> None:
        """Write everything the run needs to go on, with as many processes as may be; all of them call it."""
        if not (self.fabric.is_global_zero or self.is_sharded):
            return
        state = {
            "step": self.step,
            "best_score": self.best_score,
            "worse_since": self.worse_since,
            "model": self.inner.state_dict(),
            "average": self.average.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
        }
        if self.is_sharded:
            state = gathered(state, self.fabric.is_global_zero)
        if self.fabric.is_global_zero:
            save_beside(state, self.out / CHECKPOINT)

    def resume(self) -> bool:
        """Go on from the directory's checkpoint, if there is one."""
        path = self.out / CHECKPOINT
        if not path.is_file():
            return False
        state = read_checkpoint(path)
        with of_this_run(path):
            load_weights(self.inner, state["model"])
            load_weights(self.average, state["average"])
            for optimizer, kept in zip(self.optimizers, state["optimizers"], strict=True):
                load_optimizer(optimizer, kept)
        self.step = state["step"]
        self.best_score, self.worse_since = state.get("best_score", -math.inf), state.get("worse_since", 0)
        return True

    def _build(self) -> SAM2Base:
        return build_model(load_config(self.settings.model))

    def _whole_model(self) -> SAM2Base | None:
        """`best_model`, put together where it is in shards, which gives it to the first process alone."""
        if not self.is_sharded:
            return self.best_model
        state = gathered(self.best_model.state_dict(), self.fabric.is_global_zero)
        if not self.fabric.is_global_zero:
            return None
        model = self._build()
        if self.settings.lora is not None:
            add_adapters(model, self.settings.lora)
        model.load_state_dict(state)
        return model.to(self.fabric.device)

    def _train_step(self, batches: Iterator[ClipBatch]) -> dict[str, float]:
        given = [next(batches) for _ in range(self.settings.accumulate)]
        self._begin_step()  # after the first batch, whose loader draws a random number
        parts = self._gradients(given)
        if not parts:
            self._zero_grad()
            self._end_for_memory(can_save=True)
        if not self._update():
            self._end_for_memory(can_save=False)
        return {name: fmean(part[name] for part in parts) for name in parts[0]}

    def _gradients(self, batches: list[ClipBatch]) -> list[dict[str, float]]:
        """Add up the gradients of a step; the losses of its batches, none if there was not enough memory."""
        parts = []
        try:
            for number, batch in enumerate(batches, start=1):
                # with shards, what waits would be gradients of the whole model
                waits = number < len(batches) and self.fabric.world_size > 1 and not self.is_sharded
                with self.fabric.no_backward_sync(self.model, enabled=waits):
                    parts.append(self.backward(batch))
        except torch.OutOfMemoryError:
            return []
        return parts

    def backward(self, batch: ClipBatch) -> dict[str, float]:
        """Add the gradients of a batch's loss; gives the loss and its parts."""
        batch = batch.to(self.fabric.device)
        result = self.model(**{f.name: getattr(batch, f.name) for f in fields(batch)})
        self.fabric.backward(result["total"] / self.settings.accumulate)
        return {name: float(value.detach()) for name, value in result.items()}

    def _update(self) -> bool:
        """Change the weights; whether there was enough memory for it."""
        try:
            for optimizer in self.optimizers:
                self.fabric.clip_gradients(self.model, optimizer, max_norm=self.settings.optimizer.clip_norm)
                optimizer.step()
            self._zero_grad()
            self.average.update_parameters(self.inner.model)
        except torch.OutOfMemoryError:
            return False
        return True

    def _zero_grad(self) -> None:
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)

    def _end_for_memory(self, can_save: bool) -> NoReturn:
        """Say which settings need less memory; processes that go on have no answer from this one."""
        saves = can_save and not self.is_sharded
        if saves:
            self.save()
        if self.dry_run is not None and self.fabric.world_size == 1:
            advice = self.dry_run.advice(self.settings)
        else:
            advice = fit.advice(self.settings, next(fit.smaller(self.settings, 0, self.fabric.world_size), None))
        kept = "what was before that step" if saves else "what was saved before"
        raise InputError(f"step {self.step + 1} ran out of memory; {CHECKPOINT} has {kept}. {advice}")

    def _any_process(self, flag: bool) -> bool:
        # processes that stopped at different steps would wait for each other for ever
        return bool(mean_over_processes(torch.tensor(float(flag), device=self.fabric.device)) > 0)

    def _begin_step(self) -> None:
        phase, within = self.settings.phase_at(self.step)
        warmup = min(1.0, (self.step + 1) / max(self.settings.optimizer.warmup_steps, 1))
        lr = warmup * half_cosine(phase.lr, phase.final_lr, within / phase.steps)
        for optimizer in self.optimizers:
            set_learning_rate(optimizer, lr, phase.trunk_lr)
        # a step's clicks depend on its number alone, so that a resumed run repeats an unbroken one
        torch.manual_seed(self.settings.seed * 1_000_003 + self.step)
        self._enter(self.settings, phase)

    def _enter(self, settings: TrainSettings, phase: Phase) -> None:
        """Prepare the model for steps of a phase."""
        base = self.inner.model
        recompute_activations(base, settings.checkpoint_activations)
        set_input_size(base, phase.image_size)
        set_trainable(base, settings.trainable, trunk=phase.trunk_lr > 0)
        self.model.train()
        self.inner.corrections = phase.corrections
        self.inner.prompted = phase.prompted

    def _validate(self, log: RunLog | None) -> None:
        if self.validate is None:
            return
        score = torch.zeros((), dtype=torch.float64)
        model = self._whole_model()
        if model is not None and self.fabric.is_global_zero:
            set_input_size(model, self.settings.phases[-1].image_size)
            model.eval()
            seen = self.validate(model)
            model.train()
            if log is not None:
                log.validation(self.step, seen)
            shown = ", ".join(f"{name} {value:.3f}" for name, value in seen.numbers.items())
            tqdm.write(f"step {self.step}: {shown}")
            score.fill_(seen.numbers[METRIC])
        self.best_score, self.worse_since = self._compare(float(self.fabric.broadcast(score)), model)

    def _compare(self, score: float, model: SAM2Base | None) -> tuple[float, int]:
        """The best score and how many validations it is old; the weights of its model are kept where it is new."""
        if score <= self.best_score:
            return self.best_score, self.worse_since + 1
        if model is not None and self.fabric.is_global_zero:
            save_beside({"step": self.step, "weights": merged_state_dict(model)}, self.out / BEST)
        return score, 0
