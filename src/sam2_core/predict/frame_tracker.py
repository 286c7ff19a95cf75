"""One frame of a video at a time: embed it, remember what came before, segment all objects on it.

What users call stands in `video_predictor`.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from sam2_core.masks import fill_holes, find_duplicates, keep_one_piece, suppress_overlap
from sam2_core.model.sam2 import NO_OBJECT_LOGIT, ImageEmbedding, MemoryBank, SAM2Base, Segmentation
from sam2_core.predict.memory import MemoryPlan, plan_memory
from sam2_core.predict.patches import Patch, resized_patch
from sam2_core.predict.precision import Precision, inference
from sam2_core.predict.results import FrameResult
from sam2_core.predict.video_state import ObjectTrack, VideoState

EMBEDDINGS_KEPT = 4
"""Embedded frames that stay in memory, for clicks on a frame one has just seen."""

ABSENT_SCORE = -10.0
"""Object score (logit) of an object that gave way to another one."""


class FrameTracker:
    """Tracks the objects of a `VideoState` on single frames; for the parameters see `SAM2VideoPredictor`."""

    def __init__(
        self,
        model: SAM2Base,
        fill_hole_area: int = 0,
        non_overlap_masks: bool = False,
        clear_non_cond_mem_around_input: bool = False,
        add_all_frames_to_correct_as_cond: bool = False,
        precision: Precision = "float32",
        batch_size: int = 16,
        one_piece: bool = False,
        distinct: bool = False,
    ) -> None:
        self.model = model
        self.fill_hole_area = fill_hole_area
        self.non_overlap_masks = non_overlap_masks
        self.clear_non_cond_mem_around_input = clear_non_cond_mem_around_input
        self.add_all_frames_to_correct_as_cond = add_all_frames_to_correct_as_cond
        self.precision = precision
        self.batch_size = batch_size
        self.one_piece = one_piece
        self.distinct = distinct

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.model.device

    @property
    def image_size(self) -> int:
        """Side of the model's square input in pixels."""
        return self.model.image_size

    def _track_frame(self, state: VideoState, frame: int, reverse: bool) -> None:
        groups: dict[tuple[int, int], list[tuple[ObjectTrack, MemoryPlan]]] = defaultdict(list)
        for track in state.objects.values():
            if frame in track.prompted:
                if self.clear_non_cond_mem_around_input:
                    self._clear_around(track, frame)
            else:
                plan = self._plan(state, track, frame, reverse)
                # only objects with equally much to remember fit in one batch
                groups[len(plan.frames), len(plan.pointers)].append((track, plan))
            track.directions[frame] = reverse
        size = self.batch_size
        batches = [group[i : i + size] for group in groups.values() for i in range(0, len(group), size)]
        # lazily: unless objects are compared, the answers of one batch at a time are in memory
        answers: Iterable[Segmentation] = (self._segment_batch(state, frame, batch) for batch in batches)
        tracks = [[track for track, _ in batch] for batch in batches]
        if self.distinct:
            answers = self._without_duplicates(state, frame, tracks, list(answers))
        for batch, answer in zip(tracks, answers):
            self._keep_batch(state, frame, batch, answer)

    def _segment_batch(
        self, state: VideoState, frame: int, batch: list[tuple[ObjectTrack, MemoryPlan]]
    ) -> Segmentation:
        tracks, plans = [track for track, _ in batch], [plan for _, plan in batch]
        embedding = self._embedding(state, frame, keep=False)
        features = self.model.condition_on_memory(embedding, self._bank(state, tracks, plans))
        several = self.model.wants_multimask(False, 0)
        answer = self.model.segment(embedding, features, multimask_output=several)
        masks = keep_one_piece(answer.masks.float()) if self.one_piece else answer.masks
        return replace(answer, masks=masks, multimasks=masks)  # candidates that were not chosen need no memory

    def _without_duplicates(
        self, state: VideoState, frame: int, tracks: list[list[ObjectTrack]], answers: list[Segmentation]
    ) -> list[Segmentation]:
        """The answers; those of objects that lie where a surer, prompted or locked one does say that there is none."""
        given = [
            track.prompted[frame].masks.to(self.device) for track in state.objects.values() if frame in track.prompted
        ]
        masks = torch.cat([*given, *(answer.masks.float() for answer in answers)])
        locked = {id(state.objects[obj_id]) for obj_id in state.locked if obj_id in state.objects}
        first = [True] * len(given) + [id(track) in locked for batch in tracks for track in batch]
        absent = torch.from_numpy(find_duplicates(masks, first=first)[len(given) :]).to(self.device)
        result = []
        for answer, gone in zip(answers, absent.split([len(batch) for batch in tracks])):
            # the pointer stays, so that the object is found again
            masks = answer.masks.masked_fill(gone[:, None, None, None], NO_OBJECT_LOGIT)
            score = answer.object_score_logits.masked_fill(gone[:, None], ABSENT_SCORE)
            result.append(replace(answer, masks=masks, object_score_logits=score))
        return result

    def _keep_batch(self, state: VideoState, frame: int, tracks: list[ObjectTrack], answer: Segmentation) -> None:
        embedding = self._embedding(state, frame, keep=False)
        high_res = self.model.upsample(answer.masks)
        memory = self.model.encode_memory(embedding, high_res, answer.object_score_logits, from_points=False)
        memory = memory.to(torch.bfloat16)
        for i, track in enumerate(tracks):
            track.tracked[frame] = self._result(state, answer, from_prompt=False, index=i, memory=memory[i : i + 1])

    def _prompted_features(self, state: VideoState, track: ObjectTrack, frame: int, first: bool) -> Tensor:
        """Features of a frame that is prompted: afresh, or as a correction of what was tracked."""
        embedding = self._embedding(state, frame)
        if first:
            return self.model.without_memory(embedding)
        plan = self._plan(state, track, frame, track.directions[frame])
        return self.model.condition_on_memory(embedding, self._bank(state, [track], [plan]))

    def _plan(self, state: VideoState, track: ObjectTrack, frame: int, reverse: bool) -> MemoryPlan:
        return plan_memory(self.model, frame, track.prompted, track.tracked, state.num_frames, reverse)

    def _bank(self, state: VideoState, tracks: list[ObjectTrack], plans: list[MemoryPlan]) -> MemoryBank:
        device = self.device
        features, pointers = [], []
        for track, plan in zip(tracks, plans):
            memories = [self._memory(state, track, frame).to(device) for frame, _ in plan.frames]
            features.append(torch.cat(memories))
            found = [self._known(track, frame).pointer.to(device) for frame, _ in plan.pointers]
            pointers.append(torch.cat(found) if found else torch.zeros(0, self.model.hidden_dim, device=device))
        return MemoryBank(
            features=torch.stack(features),
            ages=torch.tensor([[age for _, age in plan.frames] for plan in plans], device=device),
            pointers=torch.stack(pointers),
            distances=torch.tensor([[d for _, d in plan.pointers] for plan in plans], device=device),
        )

    def _memory(self, state: VideoState, track: ObjectTrack, frame: int) -> Tensor:
        result = self._known(track, frame)
        if result.memory is None:
            memory = self._encode(state, frame, result)
            result = track.tracked.add_memory(frame, memory.to(state.result_device))
        assert result.memory is not None
        return result.memory

    def _encode(self, state: VideoState, frame: int, result: FrameResult) -> Tensor:
        embedding = self._embedding(state, frame)
        high_res = self.model.upsample(result.masks.to(self.device))
        score = result.object_score_logits.to(self.device)
        return self.model.encode_memory(embedding, high_res, score, result.from_prompt).to(torch.bfloat16)

    def _known(self, track: ObjectTrack, frame: int) -> FrameResult:
        return track.prompted[frame] if frame in track.prompted else track.tracked[frame]

    def _take_up_pending(self, state: VideoState, track: ObjectTrack) -> None:
        for pending, is_prompted in ((track.pending_tracked, False), (track.pending_prompted, True)):
            for frame, result in pending.items():
                memory = self._encode(state, frame, result).to(state.result_device)
                complete = replace(result, memory=memory, from_prompt=True)
                if is_prompted:
                    track.prompted[frame] = complete
                else:
                    track.tracked[frame] = complete
                if self.clear_non_cond_mem_around_input:
                    self._clear_around(track, frame)
            pending.clear()
        for frame in track.prompted:
            track.tracked.pop(frame)

    def _clear_around(self, track: ObjectTrack, frame: int) -> None:
        reach = self.model.memory_temporal_stride_for_eval * self.model.num_maskmem
        for near in range(frame - reach, frame + reach + 1):
            track.tracked.pop(near)

    def _pending(self, track: ObjectTrack, frame: int) -> tuple[dict[int, FrameResult], bool]:
        """Where a prompt's result waits, and whether the frame is prompted afresh rather than corrected."""
        first = frame not in track.directions or not track.prompted
        prompted = first or self.add_all_frames_to_correct_as_cond
        return (track.pending_prompted if prompted else track.pending_tracked), first

    def _result(
        self, state: VideoState, answer: Segmentation, from_prompt: bool, index: int = 0, memory: Tensor | None = None
    ) -> FrameResult:
        """What a segmentation says of one of its objects."""
        one = slice(index, index + 1)
        masks = answer.masks[one].float()
        if self.fill_hole_area > 0:
            masks = fill_holes(masks, self.fill_hole_area)
        iou = answer.ious[one].amax(dim=-1, keepdim=True).float()  # that of the candidate that became the masks
        score = answer.object_score_logits[one].float()
        result = FrameResult(masks, answer.pointer[one].float(), score, memory, from_prompt, iou)
        return result.to(state.result_device)

    def _frame_masks(self, state: VideoState, frame: int) -> Tensor:
        """Logits (N, 1, H, W) of all objects on a frame at the video's size."""
        rows = []
        for track in state.objects.values():
            result = track.latest(frame)
            if result is None:
                rows.append(torch.full((1, 1, *state.size), NO_OBJECT_LOGIT, device=self.device))
            else:
                masks = result.masks.to(self.device)
                rows.append(F.interpolate(masks, state.size, mode="bilinear", align_corners=False))
        masks = torch.cat(rows)
        if self.non_overlap_masks:
            masks = suppress_overlap(masks, [obj_id in state.locked for obj_id in state.objects])
        return masks

    def _frame_patches(self, state: VideoState, frame: int) -> dict[int, Patch]:
        """As `_frame_masks`, by object id, of each object only the part that it lies in."""
        if self.non_overlap_masks:
            whole = self._frame_masks(state, frame)[:, 0].cpu().numpy()
            return {obj_id: Patch.of_logits(logits) for obj_id, logits in zip(state.objects, whole)}
        found = {}
        for obj_id, track in state.objects.items():
            result = track.latest(frame)
            found[obj_id] = Patch.nothing() if result is None else resized_patch(result.masks[0, 0].float(), state.size)
        return found

    def _embedding(self, state: VideoState, frame: int, keep: bool = True) -> ImageEmbedding:
        """The embedding of a frame; unless `keep`, as on the way through a video, the cache stays as it is."""
        kept = state.embeddings
        if frame not in kept:

            def compute() -> ImageEmbedding:
                return self._embed(state.frames.frame(frame))

            if state.cached is None:
                kept[frame] = compute()
            else:
                kept[frame], _ = state.cached.find(frame, compute, self.device, keep)
            while len(kept) > EMBEDDINGS_KEPT:
                kept.popitem(last=False)
        kept.move_to_end(frame)
        return kept[frame]

    def _embed(self, image: Tensor) -> ImageEmbedding:
        """The embedding of one input of the model (3, image_size, image_size)."""
        with inference(self.device, self.precision):
            return self.model.forward_image(image[None].to(self.device))
