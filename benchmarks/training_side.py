"""Training steps of one side, in a process of its own: `python -m benchmarks.training_side SIDE JOB`.

Either side has a package `training`, so the path it is found on decides which one is loaded; this module imports none
of them before it knows its side. It takes a step for each line `step` of its input and answers with a line of JSON;
`same` asks for the loss of a step without chance, and at the end of the input the memory is told.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor, nn

from benchmarks.sampling import MB, Sampler
from benchmarks.sides import CONFIG, NAMES, Name, set_up

LR, WEIGHT_DECAY, LAYER_DECAY, CLIP_NORM = 5e-6, 0.1, 0.9, 0.1
"""Those of fine-tuning SAM 2.1 (Ravi et al. 2024, app. D.2.2)."""
WEIGHTS = {"loss_mask": 20, "loss_dice": 1, "loss_iou": 1, "loss_class": 1}
COUNTED = ("image_encoder", "memory_attention", "memory_encoder", "sam_mask_decoder")


@dataclass(frozen=True)
class Job:
    """What both sides do; a file of it is what a process is given.

    Attributes
    ----------
    state : dict of str to Tensor
        The weights to start from.
    frames, masks : Tensor
        (T, 3, S, S) normalised images, and (M, T, S, S) bool.
    corrections : int
        Correcting clicks after the first one, all on frame 0.
    threads : int
    device : str
    config : str
        Name of the model's config, as both sides have it.
    """

    state: dict[str, Tensor]
    frames: Tensor
    masks: Tensor
    corrections: int
    threads: int = 1
    device: str = "cpu"
    config: str = CONFIG

    def save(self, path: Path) -> Path:
        """Write the file."""
        torch.save(vars(self), path)
        return path

    @classmethod
    def load(cls, path: Path) -> Job:
        """Read a file."""
        return cls(**torch.load(path, weights_only=True))


@dataclass(frozen=True)
class TrainingSide:
    """One side, ready to train.

    Attributes
    ----------
    model : nn.Module
        With the parts `COUNTED`.
    optimizers : list of Optimizer
    click_loss : callable
        Loss of a step that starts from a click on every object.
    mask_loss : callable
        Mean loss of the answers after frame 0, whose true masks are given: no click is drawn.
    """

    model: nn.Module
    optimizers: list[torch.optim.Optimizer]
    click_loss: Callable[[], Tensor]
    mask_loss: Callable[[], Tensor]

    @classmethod
    def build(cls, name: Name, job: Job) -> TrainingSide:
        """Build a side on the job's device."""
        return _build_ours(job) if name == "ours" else _build_theirs(job)

    def step(self, loss: Callable[[], Tensor], device: str) -> float:
        """Forward, loss, backward, clip, AdamW; gives the loss."""
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            total = loss()
        total.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), CLIP_NORM)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return total.item()

    def without_chance(self, device: str) -> dict[str, float]:
        """Loss and norm of the gradient from true masks, without dropout."""
        for module in self.model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
            elif hasattr(module, "dropout_p"):
                setattr(module, "dropout_p", 0.0)  # noqa: B010 - a module's attributes are tensors to the type checker
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            total = self.mask_loss()
        total.backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), CLIP_NORM)
        return {"loss": total.item(), "gradient": norm.item()}


def _build_ours(job: Job) -> TrainingSide:
    from sam2_core.build import build_model
    from sam2_core.configs import load_config
    from training.loss_fns import LossWeights
    from training.model.sam2_train import ClipBatch, PromptSettings, SAM2Train
    from training.optimizer import OptimizerSettings, build_optimizers, set_learning_rate

    size = job.frames.shape[-1]
    base = build_model(load_config(job.config, [f"model.image_size={size}"]))
    base.load_state_dict(job.state)
    sides = {}
    for mask in (0.0, 1.0):
        prompts = PromptSettings(box=0.0, mask=mask, corrected_frames=0)
        sides[mask] = SAM2Train(base, prompts, LossWeights()).to(job.device).train()
        sides[mask].corrections = job.corrections
    settings = OptimizerSettings(weight_decay=WEIGHT_DECAY, layer_decay=LAYER_DECAY, clip_norm=CLIP_NORM)
    optimizers = build_optimizers(sides[0.0], settings)
    for optimizer in optimizers:
        set_learning_rate(optimizer, LR)
    objects, length = job.masks.shape[:2]
    batch = ClipBatch(
        frames=job.frames[None],
        masks=job.masks,
        clip=torch.zeros(objects, dtype=torch.int64),
        valid=torch.ones(objects, length, dtype=torch.bool),
        labels=torch.zeros(1, length, size // 4, size // 4, dtype=torch.int64),
    ).to(torch.device(job.device))

    def loss(mask: float) -> Tensor:
        return sides[mask](batch.frames, batch.masks, batch.clip, batch.valid, batch.labels)["total"]

    return TrainingSide(base, optimizers, lambda: loss(0.0), lambda: loss(1.0))


def _build_theirs(job: Job) -> TrainingSide:
    from hydra.utils import instantiate
    from omegaconf import OmegaConf

    data = import_module("training.utils.data_utils")
    criterion = import_module("training.loss_fns").MultiStepMultiMasksAndIous(
        WEIGHTS,
        supervise_all_iou=True,
        iou_use_l1_loss=True,
        pred_obj_scores=True,
        focal_gamma_obj_score=0.0,
        focal_alpha_obj_score=-1.0,
    )
    config = OmegaConf.load(Path(import_module("sam2").__path__[0]) / job.config).model
    config._target_ = "training.model.sam2.SAM2Train"
    model = instantiate(
        config,
        image_size=job.frames.shape[-1],
        prob_to_use_pt_input_for_train=1.0,
        prob_to_use_box_input_for_train=0.0,
        num_frames_to_correct_for_train=1,
        num_init_cond_frames_for_train=1,
        num_correction_pt_per_frame=job.corrections,
    )
    model.load_state_dict(job.state)
    model = model.to(job.device).train()
    frames = [
        data.Frame(image, [data.Object(number, t, job.masks[number, t]) for number in range(len(job.masks))])
        for t, image in enumerate(job.frames)
    ]
    batch = data.collate_fn([data.VideoDatapoint(frames, 0, tuple(job.frames.shape[-2:]))], "all").to(job.device)

    def click_loss() -> Tensor:
        return criterion(model(batch), batch.masks)["core_loss"]

    def mask_loss() -> Tensor:
        model.prob_to_use_pt_input_for_train = 0.0
        answers = model(batch)[1:]
        return criterion(answers, batch.masks[1:])["core_loss"] / len(answers)

    optimizer = torch.optim.AdamW(model.parameters(), LR, weight_decay=WEIGHT_DECAY)
    return TrainingSide(model, [optimizer], click_loss, mask_loss)


@contextlib.contextmanager
def counted(model: nn.Module) -> Iterator[dict[str, int]]:
    """How often each of the parts `COUNTED` is called, and how many images the encoder takes."""
    counts = {"images": 0, **dict.fromkeys(COUNTED, 0)}

    def count(name: str, args: tuple[Any, ...]) -> None:
        counts[name] += 1
        if name == "image_encoder":
            counts["images"] += len(args[0])

    hooks = [
        model.get_submodule(name).register_forward_pre_hook(lambda _, args, name=name: count(name, args))
        for name in COUNTED
    ]
    try:
        yield counts
    finally:
        for hook in hooks:
            hook.remove()


def serve(side: TrainingSide, job: Job, lines: Iterator[str], answer: Callable[[dict[str, Any]], None]) -> None:
    """Do what each line asks, and tell the memory at the end: MB at the peak, and before the first step."""
    if job.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated() / MB
    with Sampler() as trace:
        time.sleep(0.1)
        if job.device != "cuda":
            before = trace.peak
        for number, line in enumerate(lines):
            torch.manual_seed(number)
            if line.strip() == "same":
                answer(side.without_chance(job.device))
                continue
            with counted(side.model) as counts:
                wall, cpu = time.perf_counter(), time.process_time()
                loss = side.step(side.click_loss, job.device)
                if job.device == "cuda":
                    torch.cuda.synchronize()
                answer({"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu, "loss": loss, **counts})
    peak = torch.cuda.max_memory_allocated() / MB if job.device == "cuda" else trace.peak
    answer({"peak": peak, "before": before})


def main(name: Name, path: Path) -> None:
    """Serve the standard input."""
    # whatever the libraries print must not come between the answers
    out: IO[str] = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    job = Job.load(path)
    set_up(job.threads)

    def answer(content: dict[str, Any]) -> None:
        print(json.dumps(content), file=out, flush=True)

    serve(TrainingSide.build(name, job), job, iter(sys.stdin.readline, ""), answer)


if __name__ == "__main__":
    main(NAMES[NAMES.index(sys.argv[1])], Path(sys.argv[2]))  # type: ignore[arg-type]
