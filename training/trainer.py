"""The training loop: steps, weight average, logs, checkpoints from which a run goes on exactly."""

import errno
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from lightning_fabric import Fabric
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.checkpoint import checkpoint
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from sam2_core.build import build_model
from sam2_core.configs import load_config
from sam2_core.errors import InputError
from sam2_core.model.sam2 import SAM2Base
from sam2_core.volume.files import disk_errors
from training.batches import StepBatches, batch_loader
from training.dataset.labelled_sets import Sequence as LabelledSequence
from training.lora import add_adapters, merged_state_dict
from training.model.sam2_train import ClipBatch, SAM2Train, mean_over_processes
from training.model.start import prepare_decoder
from training.optimizer import build_optimizers, half_cosine, set_learning_rate
from training.settings import TrainSettings

CHECKPOINT = "last.pt"
BEST = "best.pt"
METRIC = "mean"  # of the numbers that validation gives, the one by which the best weights are kept


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
        Gives numbers by name for a model in evaluation mode, among them `METRIC`, larger being better; called every
        `validate_every` steps and at the end. The weights with the best one are kept in `BEST`.

    Raises
    ------
    InputError
        `trainable` or `lora` name nothing that the model has.
    """

    def __init__(
        self,
        settings: TrainSettings,
        out: Path,
        fabric: Fabric,
        validate: Callable[[SAM2Base], dict[str, float]] | None = None,
    ) -> None:
        self.settings = settings
        self.out = out
        self.fabric = fabric
        self.validate = validate
        torch.manual_seed(settings.seed)
        base = build_model(load_config(settings.model))
        if settings.start_from is None:
            prepare_decoder(base)
        else:
            from sam2_core.weights.checkpoints import load_state_dict

            base.load_state_dict(load_state_dict(settings.start_from))
        if settings.lora is not None:
            add_adapters(base, settings.lora)
        set_trainable(base, settings.trainable)
        training_model = SAM2Train(base, settings.prompts, settings.losses)
        self.model, *self.optimizers = fabric.setup(
            training_model, *build_optimizers(training_model, settings.optimizer)
        )
        self.average = AveragedModel(base, multi_avg_fn=get_ema_multi_avg_fn(settings.ema))
        if settings.checkpoint_activations:
            recompute_activations(base)
        self.step = 0
        self.best_score = -math.inf
        self.worse_since = 0

    @property
    def best_model(self) -> SAM2Base:
        """The averaged model, or the model itself where none is averaged."""
        model = self.average.module if self.settings.ema else self.model.module.model
        assert isinstance(model, SAM2Base)
        return model

    def fit(self, sequences: Sequence[LabelledSequence], workers: int = 1) -> bool:
        """Train from where the run stands to its end.

        Returns
        -------
        bool
            Whether it came to its end: of the last phase, or because `patience` was. False after Ctrl-C.
        """
        if self.is_done:
            return True
        self.out.mkdir(parents=True, exist_ok=True)
        mine = StepBatches(sequences, self.settings, self.fabric.global_rank, self.fabric.world_size)
        batches = iter(batch_loader(mine, self.step, workers))
        writer = SummaryWriter(str(self.out / "tensorboard")) if self.fabric.is_global_zero else None
        started = time.monotonic()
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
        with progress, finish_step_on_interrupt() as interrupted:
            for _ in progress:
                result = self._train_step(batches)
                self.step += 1
                recent.append(result)
                if self.step % self.settings.log_every == 0:
                    # steps of another phase may lack some of the losses
                    means = {name: fmean(r[name] for r in recent if name in r) for name in result}
                    recent.clear()
                    if writer is not None:
                        self._log(writer, means, time.monotonic() - started)
                    shown = {name: f"{value:.3f}" for name, value in means.items() if name in ("total", "last_iou")}
                    progress.set_postfix(shown, refresh=False)
                if self.step % self.settings.validate_every == 0 or self.step == self.settings.total_steps:
                    self._validate(writer)
                if self.step % self.settings.save_every == 0:
                    self.save()
                if self.is_done or self._any_process(interrupted.is_set()):
                    break
        self.save()
        if writer is not None:
            writer.close()
        return self.is_done

    @property
    def is_done(self) -> bool:
        """Whether the run has come to its end."""
        out_of_patience = 0 < self.settings.patience <= self.worse_since
        return out_of_patience or self.step >= self.settings.total_steps

    def best_state(self) -> dict[str, torch.Tensor]:
        """The weights to keep, adapters merged: the best that validation saw, else the last."""
        path = self.out / BEST
        if self.validate is not None and path.is_file():
            return torch.load(path, map_location="cpu", weights_only=True)["weights"]
        return merged_state_dict(self.best_model)

    def save(self) -> None:
        """Write everything the run needs to go on."""
        if not self.fabric.is_global_zero:
            return
        state = {
            "step": self.step,
            "best_score": self.best_score,
            "worse_since": self.worse_since,
            "model": self.model.module.state_dict(),
            "average": self.average.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
        }
        save_beside(state, self.out / CHECKPOINT)

    def resume(self) -> bool:
        """Go on from the directory's checkpoint, if there is one."""
        path = self.out / CHECKPOINT
        if not path.is_file():
            return False
        state = torch.load(path, map_location="cpu", weights_only=True)
        self.model.module.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        for optimizer, kept in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(kept)
        self.step = state["step"]
        self.best_score, self.worse_since = state.get("best_score", -math.inf), state.get("worse_since", 0)
        return True

    def _train_step(self, batches: Iterator[ClipBatch]) -> dict[str, float]:
        self._begin_step()
        parts = []
        for part in range(self.settings.accumulate):
            waits = part < self.settings.accumulate - 1
            with self.fabric.no_backward_sync(self.model, enabled=waits and self.fabric.world_size > 1):
                parts.append(self.backward(next(batches)))
        for optimizer in self.optimizers:
            self.fabric.clip_gradients(self.model, optimizer, max_norm=self.settings.optimizer.clip_norm)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.average.update_parameters(self.model.module.model)
        return {name: fmean(part[name] for part in parts) for name in parts[0]}

    def backward(self, batch: ClipBatch) -> dict[str, float]:
        """Add the gradients of a batch's loss; gives the loss and its parts."""
        batch = batch.to(self.fabric.device)
        result = self.model(**{f.name: getattr(batch, f.name) for f in fields(batch)})
        self.fabric.backward(result["total"] / self.settings.accumulate)
        return {name: float(value.detach()) for name, value in result.items()}

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
        base = self.model.module.model
        set_input_size(base, phase.image_size)
        set_trainable(base, self.settings.trainable, trunk=phase.trunk_lr > 0)
        self.model.train()
        self.model.module.corrections = phase.corrections
        self.model.module.prompted = phase.prompted

    def _log(self, writer: SummaryWriter, result: dict[str, float], seconds: float) -> None:
        for name, value in result.items():
            writer.add_scalar(f"train/{name}", value, self.step)
        writer.add_scalar("train/lr", self.optimizers[0].param_groups[0]["lr"], self.step)
        writer.add_scalar("train/hours", seconds / 3600, self.step)

    def _validate(self, writer: SummaryWriter | None) -> None:
        if self.validate is None:
            return
        score = torch.zeros((), dtype=torch.float64)
        if self.fabric.is_global_zero:
            model = self.best_model
            set_input_size(model, self.settings.phases[-1].image_size)
            model.eval()
            values = self.validate(model)
            model.train()
            for name, value in values.items():
                if writer is not None:
                    writer.add_scalar(f"validation/{name}", value, self.step)
            tqdm.write(f"step {self.step}: " + ", ".join(f"{name} {value:.3f}" for name, value in values.items()))
            score.fill_(values[METRIC])
        self.best_score, self.worse_since = self._compare(float(self.fabric.broadcast(score)))

    def _compare(self, score: float) -> tuple[float, int]:
        """The best score and how many validations it is old; the weights are kept where it is new."""
        if score <= self.best_score:
            return self.best_score, self.worse_since + 1
        if self.fabric.is_global_zero:
            save_beside({"step": self.step, "weights": merged_state_dict(self.best_model)}, self.out / BEST)
        return score, 0


def save_beside(state: dict[str, Any], path: Path) -> None:
    """Write a checkpoint so that the one that is there stays until the new one is whole.

    Raises
    ------
    InputError
        The disk is full or read-only.
    """
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        with disk_errors(path):
            try:
                torch.save(state, temporary)
            except RuntimeError as error:  # torch's writer says so of a full disk
                raise OSError(errno.ENOSPC, str(error).splitlines()[0]) from error
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def recompute_activations(model: SAM2Base) -> None:
    """Let the image encoder's blocks keep no inner values for the backward pass (Chen et al. 2016)."""
    for block in model.image_encoder.trunk.get_submodule("blocks").children():
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)  # type: ignore[method-assign]


def set_trainable(model: SAM2Base, patterns: Sequence[str], trunk: bool = True) -> None:
    """Let the parameters whose names fit one of the patterns learn; those of the image encoder only with `trunk`.

    Raises
    ------
    InputError
        No name fits.
    """
    chosen = 0
    for name, parameter in model.named_parameters():
        fits = any(fnmatchcase(name, pattern) for pattern in patterns)
        chosen += fits
        parameter.requires_grad_(fits and (trunk or not name.startswith("image_encoder.")))
    if not chosen:
        raise InputError(f"trainable: no parameter of the model is called {' or '.join(patterns)}")


@contextmanager
def finish_step_on_interrupt() -> Iterator[threading.Event]:
    """An event that the first Ctrl-C sets; a second one interrupts as usual."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    before = signal.getsignal(signal.SIGINT)

    def first(*_: object) -> None:
        tqdm.write("finishing the step; press Ctrl-C again to stop at once")
        event.set()
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, first)
    try:
        yield event
    finally:
        signal.signal(signal.SIGINT, before)


def set_input_size(model: SAM2Base, image_size: int) -> None:
    """Let a model work at another input size; no parameter depends on it."""
    grid = image_size // model.backbone_stride
    model.image_size = image_size
    model.sam_prompt_encoder.input_image_size = (image_size, image_size)
    model.sam_prompt_encoder.image_embedding_size = (grid, grid)
