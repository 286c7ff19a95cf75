"""Segment and track objects through the frames of a video or the planes of a volume.

Frames are read lazily, and only what a later frame can attend to stays in memory (see `results`), so that a source
may be longer than memory. Objects that remember equally many frames are tracked as one batch.
"""

import tempfile
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from sam2_core.errors import InputError
from sam2_core.model.sam2 import LOGIT_LIMIT, ImageEmbedding
from sam2_core.predict.embedding_cache import SourceEmbeddings, model_key
from sam2_core.predict.frame_tracker import FrameTracker
from sam2_core.predict.frames import FrameSource, PrefetchedFrames, open_frames
from sam2_core.predict.patches import Patch, mask_confidence
from sam2_core.predict.precision import inference
from sam2_core.predict.transforms import resize_frame
from sam2_core.predict.video_state import VideoState


class SAM2VideoPredictor(FrameTracker):
    """Prompts on any frame, masks on all; methods and results are those of Meta's predictor.

    Parameters
    ----------
    model : SAM2Base
        From `sam2_core.load_model`.
    fill_hole_area : int
        Holes of up to so many pixels of the low-resolution mask are filled.
    non_overlap_masks : bool
        Each pixel belongs to one object at most; locked objects (`VideoState.locked`) win, then the higher logit.
    clear_non_cond_mem_around_input : bool
        Forget the propagated memories around a prompted frame, which may be out of date.
    add_all_frames_to_correct_as_cond : bool
        A correction on a tracked frame counts as a prompted frame, which propagation keeps and every frame attends to.
    precision : {"float32", "bfloat16"}
        Of the computation.
    batch_size : int
        Most objects computed at once.
    one_piece : bool
        On frames it is tracked to, an object keeps one connected piece, that with the largest sum of logits. For
        cells and nuclei in a plane; not for what may be cut or hidden in part, such as neurites.
    distinct : bool
        On frames they are tracked to, two objects do not lie in one place: of two masks that share more than half of
        the smaller one, the less sure is left out, until its object is found again. Prompted and locked objects stay.
    """

    @classmethod
    def from_pretrained(cls, model_id: str, **kwargs: Any) -> "SAM2VideoPredictor":
        """A predictor for a checkpoint of the Hugging Face hub, such as ``facebook/sam2.1-hiera-tiny``."""
        from sam2_core.build import build_sam2_video_predictor_hf

        return build_sam2_video_predictor_hf(model_id, **kwargs)

    def init_state(
        self,
        video_path: Any,
        offload_video_to_cpu: bool = False,
        offload_state_to_cpu: bool = False,
        async_loading_frames: bool = False,
        storage_dir: str | Path | None = None,
        embeddings: SourceEmbeddings | None = None,
    ) -> VideoState:
        """Begin to work on a video.

        Parameters
        ----------
        video_path : path, array or FrameSource
            Folder of images, video file, array (T, H, W) or (T, H, W, 3) of numpy, dask or zarr, or a `FrameSource`.
        offload_video_to_cpu, async_loading_frames : bool
            Of no effect: frames are always read when needed, a few ahead.
        offload_state_to_cpu : bool
            Keep results in main memory rather than on the device.
        storage_dir : str or Path, optional
            Folder for results; every one is written there at once. Without it those that do not fit in memory go to
            a temporary folder.
        embeddings : SourceEmbeddings, optional
            Of this source and `embedding_key`, from `EmbeddingCache.of`. Prompted frames are looked up there and kept
            there; propagation looks frames up and keeps none. Embeddings are rounded as the cache does then.

        Raises
        ------
        InputError
            The source cannot be read.
        """
        source = open_frames(video_path)
        side = self.image_size
        frames = PrefetchedFrames(
            source, ahead=2, keep=2, transform=lambda frame: torch.from_numpy(resize_frame(frame, side))
        )
        temporary = tempfile.TemporaryDirectory(prefix="sam2-") if storage_dir is None else None
        window = self.model.num_maskmem * self.model.memory_temporal_stride_for_eval
        return VideoState(
            frames=frames,
            size=source.size,
            storage_dir=Path(temporary.name if temporary else str(storage_dir)),
            keep=max(window, self.model.max_obj_ptrs_in_encoder) + 1,
            write_through=storage_dir is not None,
            result_device=torch.device("cpu") if offload_state_to_cpu else self.device,
            temporary=temporary,
            cached=embeddings,
        )

    @cached_property
    def embedding_key(self) -> str:
        """Tells this predictor's embeddings from those of others; see `EmbeddingCache.of`."""
        return f"video {self.precision} {model_key(self.model)}"

    def embed(self, source: FrameSource, frame_idx: int, embeddings: SourceEmbeddings) -> bool:
        """See to it that a cache has the embedding of a frame; may run beside other predictions, in another thread.

        Parameters
        ----------
        source : FrameSource
        frame_idx : int
        embeddings : SourceEmbeddings
            As in `init_state`.

        Returns
        -------
        bool
            Whether the embedding had to be computed.
        """

        def compute() -> ImageEmbedding:
            return self._embed(torch.from_numpy(resize_frame(source.frame(frame_idx), self.image_size)))

        return embeddings.find(frame_idx, compute, self.device)[1]

    def confidence(self, inference_state: VideoState, frame_idx: int, obj_id: int) -> float:
        """How sure the model is of an object's mask on a frame, prompted or tracked.

        Returns
        -------
        float
            In [0, 1]: the predicted IoU of the mask times the probability that the object is there at all; 0 where it
            was judged absent.

        Raises
        ------
        InputError
            There is no result of such an object on the frame.
        """
        track = inference_state.objects.get(obj_id)
        result = track and track.latest(frame_idx)
        if not result:
            raise InputError(f"object {obj_id} has no result on frame {frame_idx}: prompt it there, or propagate")
        return mask_confidence(1.0 if result.iou is None else float(result.iou), float(result.object_score_logits))

    def patches(self, inference_state: VideoState, frame_idx: int) -> dict[int, Patch]:
        """The masks on a frame, prompted or tracked, by object id; each only where it is not empty.

        On large frames this takes a fraction of the time and memory of the whole logits that other methods return.
        """
        return self._frame_patches(inference_state, frame_idx)

    def add_new_points_or_box(
        self,
        inference_state: VideoState,
        frame_idx: int,
        obj_id: int,
        points: Any = None,
        labels: Any = None,
        clear_old_points: bool = True,
        normalize_coords: bool = True,
        box: Any = None,
        need_output: bool = True,
    ) -> tuple[int, list[int], Tensor]:
        """Prompt an object on a frame, new or known, before or after tracking.

        Parameters
        ----------
        points, labels : array, optional
            (P, 2), (x, y) in pixels, and (P,), 1 foreground or 0 background.
        clear_old_points : bool
            Replace the frame's points of this object instead of adding to them.
        normalize_coords : bool
            Whether coordinates are in pixels; False if they already are in [0, 1].
        box : array, optional
            (4,), (x0, y0, x1, y1) in pixels.
        need_output : bool
            Return the masks; without them, prompting many objects one after the other is quicker.

        Returns
        -------
        frame_idx : int
        obj_ids : list of int
        masks : Tensor
            (N, 1, H, W) float32 logits of all objects on the frame; of none unless `need_output`.

        Raises
        ------
        ValueError
            Points without labels, neither points nor box, a box beside points that stay, or no such frame.
        """
        state = inference_state
        self._check_frame(state, frame_idx)
        coords, kinds = self._points(state, points, labels, box, clear_old_points, normalize_coords)
        embedding = self._embedding(state, frame_idx)  # first: where the frame cannot be read nothing is noted
        track = state.track(obj_id)
        old = None if clear_old_points else track.points.get(frame_idx)
        if old is not None:
            coords, kinds = torch.cat((old[0], coords), 1), torch.cat((old[1], kinds), 1)
        track.points[frame_idx] = (coords, kinds)
        track.mask_frames.discard(frame_idx)

        pending, first = self._pending(track, frame_idx)
        previous = track.result(frame_idx, pending)
        hint = None if previous is None else previous.masks.to(self.device).clamp(-LOGIT_LIMIT, LOGIT_LIMIT)
        with inference(self.device, self.precision):
            features = self._prompted_features(state, track, frame_idx, first)
            several = self.model.wants_multimask(first, kinds.shape[1])
            answer = self.model.segment(embedding, features, (coords, kinds), hint, several, state.size)
            pending[frame_idx] = self._result(state, answer, from_prompt=True)
        return self._output(state, frame_idx, need_output)

    def add_new_points(self, *args: Any, **kwargs: Any) -> tuple[int, list[int], Tensor]:
        """Old name of `add_new_points_or_box`."""
        return self.add_new_points_or_box(*args, **kwargs)

    def add_new_mask(
        self, inference_state: VideoState, frame_idx: int, obj_id: int, mask: Any, need_output: bool = True
    ) -> tuple[int, list[int], Tensor]:
        """Give an object's mask (H, W), bool, on a frame; returns what `add_new_points_or_box` does."""
        state = inference_state
        self._check_frame(state, frame_idx)
        given = torch.as_tensor(mask)
        if given.ndim != 2:
            raise ValueError(f"a mask must have the shape (H, W), got {tuple(given.shape)}")
        prompt = given.to(self.device).bool()[None, None].float()
        side = (self.image_size, self.image_size)
        if prompt.shape[-2:] != side:
            prompt = F.interpolate(prompt, side, mode="bilinear", align_corners=False, antialias=True)
            prompt = (prompt >= 0.5).float()
        embedding = self._embedding(state, frame_idx)
        track = state.track(obj_id)
        track.mask_frames.add(frame_idx)
        track.points.pop(frame_idx, None)
        pending, first = self._pending(track, frame_idx)
        with inference(self.device, self.precision):
            if self.model.use_mask_input_as_output_without_sam:
                answer, _ = self.model.mask_as_output(embedding, prompt)
            else:
                several = self.model.wants_multimask(first, 0)
                features = self._prompted_features(state, track, frame_idx, first)
                answer = self.model.segment(embedding, features, masks=prompt, multimask_output=several)
            pending[frame_idx] = self._result(state, answer, from_prompt=True)
        return self._output(state, frame_idx, need_output)

    def propagate_in_video(
        self,
        inference_state: VideoState,
        start_frame_idx: int | None = None,
        max_frame_num_to_track: int | None = None,
        reverse: bool = False,
        progress: bool = True,
        need_output: bool = True,
    ) -> Iterator[tuple[int, list[int], Tensor]]:
        """Carry all objects through the frames; yields each frame as it is done, and may be left at any time.

        Parameters
        ----------
        start_frame_idx : int, optional
            By default the earliest prompted frame.
        max_frame_num_to_track : int, optional
            Frames to go on from the start; by default to the end.
        reverse : bool
            Towards frame 0.
        progress : bool
            Show a progress bar.
        need_output : bool
            Yield masks; without them, see `patches`.

        Yields
        ------
        tuple
            As `add_new_points_or_box` returns.
        """
        state = inference_state
        self.propagate_in_video_preflight(state)
        if start_frame_idx is None:
            start_frame_idx = min(f for track in state.objects.values() for f in track.prompted)
        self._check_frame(state, start_frame_idx)
        span = state.num_frames if max_frame_num_to_track is None else max_frame_num_to_track
        if reverse:
            # there is nothing behind frame 0
            order = range(start_frame_idx, max(start_frame_idx - span, 0) - 1, -1) if start_frame_idx else range(0)
        else:
            order = range(start_frame_idx, min(start_frame_idx + span, state.num_frames - 1) + 1)
        for frame in tqdm(order, desc="propagate in video", disable=not progress):
            with inference(self.device, self.precision):
                self._track_frame(state, frame, reverse)
                output = self._output(state, frame, need_output)
            yield output

    def propagate_in_video_preflight(self, inference_state: VideoState) -> None:
        """Take up all pending prompts, as `propagate_in_video` does first."""
        state = inference_state
        if not state.objects:
            raise RuntimeError("there is nothing to propagate: add points, a box or a mask of an object first")
        with inference(self.device, self.precision):
            for obj_id, track in state.objects.items():
                self._take_up_pending(state, track)
                if not track.prompted:
                    raise RuntimeError(f"object {obj_id} has no prompt: add points, a box or a mask, or remove it")

    def clear_all_prompts_in_frame(
        self, inference_state: VideoState, frame_idx: int, obj_id: int, need_output: bool = True
    ) -> tuple[int, list[int], Tensor] | None:
        """Remove an object's prompts on a frame; what it showed there counts as tracked from now on."""
        state = inference_state
        track = state.track(obj_id)
        track.points.pop(frame_idx, None)
        track.mask_frames.discard(frame_idx)
        track.pending_prompted.pop(frame_idx, None)
        track.pending_tracked.pop(frame_idx, None)
        result = track.prompted.pop(frame_idx, None)
        if result is not None:
            track.tracked[frame_idx] = result
            track.directions.pop(frame_idx, None)
        if not need_output:
            return None
        return frame_idx, state.obj_ids, self._frame_masks(state, frame_idx)

    def remove_object(
        self, inference_state: VideoState, obj_id: int, strict: bool = False, need_output: bool = True
    ) -> tuple[list[int], list[tuple[int, Tensor]]]:
        """Forget an object.

        Returns
        -------
        obj_ids : list of int
            The objects that stay.
        updated_frames : list of (int, Tensor)
            The frames it was prompted on, with the masks of the others.

        Raises
        ------
        RuntimeError
            `strict`, and there is no such object.
        """
        state = inference_state
        if obj_id not in state.objects:
            if strict:
                raise RuntimeError(f"there is no object {obj_id}; there are {state.obj_ids}")
            return state.obj_ids, []
        track = state.objects.pop(obj_id)
        state.locked.discard(obj_id)
        track.tracked.clear()
        if not need_output or not state.objects:
            return state.obj_ids, []
        return state.obj_ids, [(frame, self._frame_masks(state, frame)) for frame in track.prompted_frames]

    def reset_state(self, inference_state: VideoState) -> None:
        """Forget all objects, prompts and results; the frames stay."""
        for track in inference_state.objects.values():
            track.tracked.clear()
        inference_state.objects.clear()
        inference_state.locked.clear()

    def _output(self, state: VideoState, frame: int, needed: bool) -> tuple[int, list[int], Tensor]:
        if not needed:
            return frame, [], torch.zeros(0, 1, *state.size, device=self.device)
        return frame, state.obj_ids, self._frame_masks(state, frame)

    def _points(
        self, state: VideoState, points: Any, labels: Any, box: Any, clear_old_points: bool, normalize_coords: bool
    ) -> tuple[Tensor, Tensor]:
        if (points is None) != (labels is None):
            raise ValueError("points and labels belong together: give both, one label a point")
        if points is None and box is None:
            raise ValueError("a prompt needs points with labels, or a box")
        if box is not None and not clear_old_points:
            raise ValueError("a box replaces earlier points: give it with clear_old_points=True")
        coords = torch.zeros(0, 2) if points is None else torch.as_tensor(np.asarray(points), dtype=torch.float32)
        kinds = torch.zeros(0, dtype=torch.int32) if labels is None else torch.as_tensor(np.asarray(labels)).int()
        coords, kinds = coords.reshape(1, -1, 2), kinds.reshape(1, -1)
        if coords.shape[1] != kinds.shape[1]:
            raise ValueError(f"{coords.shape[1]} points need as many labels, got {kinds.shape[1]}")
        if box is not None:
            corners = torch.as_tensor(np.asarray(box), dtype=torch.float32).reshape(1, 2, 2)
            coords = torch.cat((corners, coords), dim=1)
            kinds = torch.cat((torch.tensor([[2, 3]], dtype=torch.int32), kinds), dim=1)
        if normalize_coords:
            height, width = state.size
            coords = coords / torch.tensor([width, height])
        return (coords * self.image_size).to(self.device), kinds.to(self.device)

    def _check_frame(self, state: VideoState, frame: int) -> None:
        if not 0 <= frame < state.num_frames:
            raise InputError(f"there is no frame {frame}: the frames are 0 to {state.num_frames - 1}")
