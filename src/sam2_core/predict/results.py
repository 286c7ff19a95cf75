"""What a video predictor knows of one object on one frame, kept in memory near the frames in work, on disk beyond."""

import os
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor


@dataclass(frozen=True)
class FrameResult:
    """One object on one frame.

    Attributes
    ----------
    masks : Tensor
        (1, 1, h, w) float32 logits, h = w = image_size / 4.
    pointer : Tensor
        (1, C) object pointer.
    object_score_logits : Tensor
        (1, 1), above 0 where the object is in the frame.
    memory : Tensor, optional
        (1, C_mem, h / 4, w / 4) bfloat16; None until a later frame needs it.
    from_prompt : bool
        The masks answer a prompt (the memory encoder may treat them differently).
    iou : Tensor, optional
        (1, 1) predicted IoU of the masks; None in files of earlier versions.
    """

    masks: Tensor
    pointer: Tensor
    object_score_logits: Tensor
    memory: Tensor | None
    from_prompt: bool
    iou: Tensor | None = None

    def to(self, device: torch.device) -> "FrameResult":
        """The same result on a device."""
        memory = None if self.memory is None else self.memory.to(device)
        iou = None if self.iou is None else self.iou.to(device)
        return FrameResult(
            self.masks.to(device),
            self.pointer.to(device),
            self.object_score_logits.to(device),
            memory,
            self.from_prompt,
            iou,
        )


class TrackedResults:
    """Propagated results of one object by frame, at most `keep` of them in memory.

    Parameters
    ----------
    directory : Path
        Where results go that memory does not keep; made when the first one is written.
    keep : int
        Results in memory, the last ones written or read.
    write_through : bool
        Write every result at once, so that a killed process finds it again.
    """

    def __init__(self, directory: Path, keep: int, write_through: bool = False) -> None:
        self.directory = directory
        self.keep = keep
        self.write_through = write_through
        self._recent: OrderedDict[int, FrameResult] = OrderedDict()
        self._stored: set[int] = set()

    def __len__(self) -> int:
        return len(self._stored | self._recent.keys())

    def __iter__(self) -> Iterator[int]:
        return iter(self._stored | self._recent.keys())

    def __contains__(self, frame: object) -> bool:
        return frame in self._recent or frame in self._stored

    def __getitem__(self, frame: int) -> FrameResult:
        if frame in self._recent:
            self._recent.move_to_end(frame)
            return self._recent[frame]
        if frame not in self._stored:
            raise KeyError(frame)
        result = self._read(frame)
        self._remember(frame, result)
        return result

    def __setitem__(self, frame: int, result: FrameResult) -> None:
        self._stored.discard(frame)
        self._recent.pop(frame, None)
        if self.write_through:
            self._write(frame, result)
        self._remember(frame, result)

    def add_memory(self, frame: int, memory: Tensor) -> FrameResult:
        """Complete a result by its memory, which was not kept."""
        result = replace(self[frame], memory=memory)
        self._recent[frame] = result
        return result

    def pop(self, frame: int) -> None:
        """Forget a frame, if it is there."""
        self._recent.pop(frame, None)
        self._stored.discard(frame)
        # also the file of a result that was replaced in memory since
        self._path(frame).unlink(missing_ok=True)

    def clear(self) -> None:
        """Forget all frames."""
        for frame in list(self):
            self.pop(frame)

    def find_stored(self) -> list[int]:
        """Take up what an earlier process wrote to the directory; returns the frames."""
        if self.directory.is_dir():
            self._stored |= {int(path.stem) for path in self.directory.glob("*.safetensors") if path.stem.isdecimal()}
        return sorted(self._stored)

    def _remember(self, frame: int, result: FrameResult) -> None:
        self._recent[frame] = result
        while len(self._recent) > self.keep:
            oldest, evicted = self._recent.popitem(last=False)
            if oldest not in self._stored:
                # far from the frames in work a memory is rarely needed, and can be made again from the masks
                self._write(oldest, evicted if self.write_through else replace(evicted, memory=None))

    def _path(self, frame: int) -> Path:
        return self.directory / f"{frame:07d}.safetensors"

    def _write(self, frame: int, result: FrameResult) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        tensors = {
            "masks": result.masks,
            "pointer": result.pointer,
            "object_score_logits": result.object_score_logits,
            "from_prompt": torch.tensor(result.from_prompt),
        }
        if result.memory is not None:
            tensors["memory"] = result.memory
        if result.iou is not None:
            tensors["iou"] = result.iou
        path = self._path(frame)
        temporary = path.with_suffix(".tmp")
        save_file({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, temporary)
        os.replace(temporary, path)
        self._stored.add(frame)

    def _read(self, frame: int) -> FrameResult:
        tensors = load_file(self._path(frame))
        return FrameResult(
            tensors["masks"],
            tensors["pointer"],
            tensors["object_score_logits"],
            tensors.get("memory"),
            bool(tensors["from_prompt"]),
            tensors.get("iou"),
        )
