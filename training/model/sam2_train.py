"""SAM 2 on a clip with a simulated user: prompts, corrections, memory in between (Ravi et al. 2024, app. D.2)."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields

import torch
from torch import Tensor, distributed, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from sam2_core.model.sam2 import LOGIT_LIMIT, ImageEmbedding, MemoryBank, SAM2Base, Segmentation
from sam2_core.predict.memory import plan_memory
from training.loss_fns import Losses, LossWeights, actual_iou, segmentation_loss
from training.model.neighbours import NeighbourHead, PairHead, neighbour_loss, pair_loss
from training.model.prompts import sample_box, sample_click, sample_correction


@dataclass(frozen=True)
class PromptSettings:
    """How the simulated user prompts.

    Attributes
    ----------
    box : float
        Probability that the first prompt is a box rather than a click.
    mask : float
        Probability that a clip (not a single image) starts from the true mask.
    corrected_frames : int
        How many later frames of a clip may be corrected, at most.
    central : float
        Probability of a click in the middle of a region.
    box_noise : float
        How far the corners of a box may be from the object's, as a part of its sides.
    """

    box: float = 0.4
    mask: float = 0.5
    corrected_frames: int = 1
    central: float = 0.5
    box_noise: float = 0.1


@dataclass(frozen=True)
class Step:
    """One answer of the model: a frame, and the masks of all M objects on it after one more prompt."""

    frame: int
    segmentation: Segmentation


@dataclass(frozen=True)
class ClipBatch:
    """Clips of equal length and their objects, flattened.

    Attributes
    ----------
    frames : Tensor
        (B, T, 3, S, S) normalised images.
    masks : Tensor
        (M, T, S, S) bool, the objects of all clips.
    clip : Tensor
        (M,) int64, the clip each object belongs to.
    valid : Tensor
        (M, T) bool, whether the object's mask on a frame is known.
    labels : Tensor
        (B, T, S / 4, S / 4) int64, the labels of all objects at every fourth pixel; 0 is background, -1 unknown.
    """

    frames: Tensor
    masks: Tensor
    clip: Tensor
    valid: Tensor
    labels: Tensor

    def to(self, device: torch.device) -> "ClipBatch":
        """The same batch on a device."""
        return ClipBatch(*(getattr(self, f.name).to(device, non_blocking=True) for f in fields(self)))


class SAM2Train(nn.Module):
    """Runs a model over a batch of clips as a user and the predictors would, and scores its answers.

    `corrections` is how many correcting clicks follow the first prompt of a frame; if not `prompted`, there are no
    prompts at all, and only the dense losses of the image encoder.
    """

    def __init__(self, model: SAM2Base, prompts: PromptSettings, weights: LossWeights) -> None:
        super().__init__()
        self.model = model
        self.prompts = prompts
        self.weights = weights
        self.corrections = 2
        self.prompted = True
        self.neighbours = NeighbourHead(model.hidden_dim) if weights.neighbours else None
        self.pairs = PairHead(model.hidden_dim) if weights.neighbours else None

    def forward(self, frames: Tensor, masks: Tensor, clip: Tensor, valid: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """The loss of a batch (the fields of `ClipBatch`): `total`, its parts, and `last_iou`, the IoU at the end.

        Tensors in and out, so that any of Fabric's strategies can wrap it.
        """
        batch = ClipBatch(frames, masks, clip, valid, labels)
        embedding = self.model.forward_image(frames.flatten(0, 1))
        result = self._prompted_losses(batch, embedding) if self.prompted else {"total": frames.new_zeros(())}
        if self.neighbours is not None and self.pairs is not None:
            every = labels.flatten(0, 1)
            position = self.model.sam_prompt_encoder.get_dense_pe()
            result["neighbours"] = neighbour_loss(self.neighbours(embedding), every)
            result["pairs"] = pair_loss(self.pairs(embedding.features, position), every)
            result["total"] = result["total"] + self.weights.neighbours * (result["neighbours"] + result["pairs"])
        return result

    def run(self, batch: ClipBatch, embedding: ImageEmbedding) -> list[Step]:
        """Every answer given along the clips, in order; `embedding` is of all frames."""
        length = batch.frames.shape[1]
        steps: list[Step] = []
        prompted: list[int] = [0]
        tracked: list[int] = []
        corrected = self._frames_to_correct(length)
        features: dict[int, Tensor] = {}
        pointers: dict[int, Tensor] = {}
        for frame in range(length):
            own = _per_object(embedding, batch.clip * length + frame)
            truth = batch.masks[:, frame]
            given_mask = None
            if frame == 0:
                answers, given_mask = self._first_frame(own, truth, is_clip=length > 1)
                by_points = given_mask is None
            else:
                context = self._remember(own, frame, prompted, tracked, features, pointers, length)
                answers = [self._answer(own, context, None, None, first=False)]
                by_points = frame in corrected
                if by_points:
                    answers += self._correct(own, context, truth, answers[-1], None, first=False)
                    prompted.append(frame)
                else:
                    tracked.append(frame)
            steps += [Step(frame, answer) for answer in answers]
            if length > 1:
                last = answers[-1]
                high_res = self.model.upsample(last.masks) if given_mask is None else given_mask
                features[frame] = self.model.encode_memory(own, high_res, last.object_score_logits, by_points)
                pointers[frame] = last.pointer
        return steps

    def _prompted_losses(self, batch: ClipBatch, embedding: ImageEmbedding) -> dict[str, Tensor]:
        steps = self.run(batch, embedding)
        counts = mean_over_processes(batch.valid.float().sum(dim=0))
        each = [
            segmentation_loss(
                step.segmentation,
                batch.masks[:, step.frame],
                batch.valid[:, step.frame],
                self.weights,
                counts[step.frame],
            )
            for step in steps
            if step.segmentation.masks.requires_grad
        ]
        result = {f.name: torch.stack([getattr(loss, f.name) for loss in each]).mean() for f in fields(Losses)}
        result["last_iou"] = self._last_iou(steps[-1], batch)
        return result

    def _first_frame(
        self, own: ImageEmbedding, truth: Tensor, is_clip: bool
    ) -> tuple[list[Segmentation], Tensor | None]:
        """The answers, and where the true mask was given its logits at full resolution, as they are remembered."""
        model, prompts = self.model, self.prompts
        if is_clip and torch.rand(()) < prompts.mask:
            answer, high_res = model.mask_as_output(own, truth[:, None])
            return [answer], high_res
        if torch.rand(()) < prompts.box:
            points = sample_box(truth, prompts.box_noise)
            labels = torch.tensor([[2, 3]], dtype=torch.int32, device=truth.device).expand(len(truth), -1)
        else:
            points = sample_click(truth, prompts.central)
            labels = torch.ones(len(truth), 1, dtype=torch.int32, device=truth.device)
        context = model.without_memory(own)
        first = self._answer(own, context, (points, labels), None, first=True)
        return [first, *self._correct(own, context, truth, first, (points, labels), first=True)], None

    def _correct(
        self,
        own: ImageEmbedding,
        context: Tensor,
        truth: Tensor,
        answer: Segmentation,
        given: tuple[Tensor, Tensor] | None,
        first: bool,
    ) -> list[Segmentation]:
        answers = []
        for _ in range(self.corrections):
            prediction = self.model.upsample(answer.masks.detach())[:, 0] > 0
            click, label = sample_correction(prediction, truth, self.prompts.central)
            if given is not None:
                click, label = torch.cat((given[0], click), 1), torch.cat((given[1], label), 1)
            given = (click, label)
            answer = self._answer(own, context, given, answer.masks.detach().clamp(-LOGIT_LIMIT, LOGIT_LIMIT), first)
            answers.append(answer)
        return answers

    def _answer(
        self,
        own: ImageEmbedding,
        context: Tensor,
        points: tuple[Tensor, Tensor] | None,
        previous: Tensor | None,
        first: bool,
    ) -> Segmentation:
        count = 0 if points is None else points[1].shape[1]
        several = self.model.wants_multimask(first, count)
        with cheap_attention(context.device):
            return self.model.segment(own, context, points, previous, several)

    def _remember(
        self,
        own: ImageEmbedding,
        frame: int,
        prompted: list[int],
        tracked: list[int],
        features: dict[int, Tensor],
        pointers: dict[int, Tensor],
        length: int,
    ) -> Tensor:
        plan = plan_memory(self.model, frame, prompted, tracked, length)
        objects = own.features.shape[0]
        device = own.features.device
        bank = MemoryBank(
            features=torch.stack([features[f] for f, _ in plan.frames], dim=1),
            ages=torch.tensor([[age for _, age in plan.frames]], device=device).expand(objects, -1),
            pointers=torch.stack([pointers[f] for f, _ in plan.pointers], dim=1),
            distances=torch.tensor([[d for _, d in plan.pointers]], device=device).expand(objects, -1),
        )
        return self.model.condition_on_memory(own, bank)

    @torch.no_grad()
    def _last_iou(self, step: Step, batch: ClipBatch) -> Tensor:
        truth = batch.masks[:, step.frame]
        keep = batch.valid[:, step.frame] & truth.flatten(1).any(dim=1)
        logits = self.model.upsample(step.segmentation.masks.float())[:, 0]
        return actual_iou(logits, truth)[keep].mean() if keep.any() else logits.new_zeros(())

    def _frames_to_correct(self, length: int) -> set[int]:
        limit = min(self.prompts.corrected_frames, length - 1)
        if limit < 1:
            return set()
        count = int(torch.randint(limit + 1, ()))
        return set((torch.randperm(length - 1)[:count] + 1).tolist())


def mean_over_processes(value: Tensor) -> Tensor:
    """The mean of a tensor over all processes of the run; the tensor itself where there is one."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return value
    total = value.clone()
    distributed.all_reduce(total)
    return total / distributed.get_world_size()


def cheap_attention(device: torch.device) -> AbstractContextManager[None]:
    """For the mask decoder, whose few tokens make the flash kernel's backward pass on a CPU half of its time."""
    return sdpa_kernel([SDPBackend.MATH]) if device.type == "cpu" else nullcontext()


def _per_object(embedding: ImageEmbedding, index: Tensor) -> ImageEmbedding:
    high_res = embedding.high_res
    picked = None if high_res is None else (high_res[0][index], high_res[1][index])
    return ImageEmbedding(embedding.features[index], picked)
