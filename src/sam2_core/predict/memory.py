"""Which frames a frame remembers: the policy of SAM 2's memory bank (Ravi et al. 2024, sec. 4)."""

from collections.abc import Collection
from dataclasses import dataclass

from sam2_core.model.sam2 import SAM2Base


@dataclass(frozen=True)
class MemoryPlan:
    """Frames to attend to.

    Attributes
    ----------
    frames : tuple of (int, int)
        Frame and age of each spatial memory; age 0 is a prompted frame, else `num_maskmem` less the distance.
    pointers : tuple of (int, float)
        Frame of each object pointer and its distance, as a part of the longest one.
    """

    frames: tuple[tuple[int, int], ...]
    pointers: tuple[tuple[int, float], ...]


def plan_memory(
    model: SAM2Base,
    frame: int,
    prompted: Collection[int],
    tracked: Collection[int],
    num_frames: int,
    reverse: bool = False,
) -> MemoryPlan:
    """Choose what to remember on a frame.

    Parameters
    ----------
    model : SAM2Base
        Its settings decide (`num_maskmem`, `max_cond_frames_in_attn`, `max_obj_ptrs_in_encoder`, ...).
    frame, num_frames : int
        The current frame, and how many the source has.
    prompted, tracked : collection of int
        Frames whose result answers a prompt, and frames whose result was propagated.
    reverse : bool
        Whether tracking runs towards frame 0, so that the past lies ahead.
    """
    near = closest_frames(frame, prompted, model.max_cond_frames_in_attn)

    def is_recent(f: int) -> bool:
        # a prompted frame that is one too many to attend to as such still counts as a recent one
        return f in tracked or (f in prompted and f not in near)

    sign = -1 if reverse else 1
    frames = [(f, 0) for f in near]
    for age in range(1, model.num_maskmem):
        candidate = _recent_frame(model, frame, model.num_maskmem - age, sign)
        if is_recent(candidate):
            frames.append((candidate, age))

    longest = min(num_frames, model.max_obj_ptrs_in_encoder)
    pointers = []
    for f in near:
        past = sign * (frame - f)
        if past < 0 and model.only_obj_ptrs_in_the_past_for_eval and not model.training:
            continue
        pointers.append((f, past if model.use_signed_tpos_enc_to_obj_ptrs else abs(past)))
    pointers += [(frame - sign * d, d) for d in range(1, longest) if is_recent(frame - sign * d)]
    scale = max(longest - 1, 1)
    return MemoryPlan(tuple(frames), tuple((f, d / scale) for f, d in pointers))


def closest_frames(frame: int, prompted: Collection[int], limit: int) -> list[int]:
    """At most `limit` (-1 for all) prompted frames nearest to `frame`, one on either side first."""
    if limit == -1 or len(prompted) <= limit:
        return list(prompted)
    before = max((f for f in prompted if f < frame), default=None)
    after = min((f for f in prompted if f >= frame), default=None)
    chosen = [f for f in (before, after) if f is not None]
    others = sorted((f for f in prompted if f not in chosen), key=lambda f: abs(f - frame))
    return chosen + others[: limit - len(chosen)]


def _recent_frame(model: SAM2Base, frame: int, distance: int, sign: int) -> int:
    """The frame `distance` steps back, on the coarser grid of `memory_temporal_stride_for_eval` from 2 steps on."""
    stride = 1 if model.training else model.memory_temporal_stride_for_eval
    if distance == 1:
        return frame - sign
    nearest = sign * (sign * (frame - 2 * sign) // stride) * stride
    return nearest - sign * (distance - 2) * stride
