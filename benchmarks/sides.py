"""The two sides of a comparison: ours, and the reference implementation (PyPI sam2), with the same weights.

Both have the same public methods, so that most of a benchmark is one function run on either.
"""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import torch

from benchmarks.weights import randomize

Name = Literal["ours", "theirs"]
NAMES: tuple[Name, Name] = ("ours", "theirs")
CONFIG = "configs/sam2.1/sam2.1_hiera_t.yaml"
REFERENCE_VERSION = "1.1.0"


class MissingReferenceError(RuntimeError):
    """The package sam2 is not installed."""

    def __init__(self) -> None:
        super().__init__(
            f"the reference implementation is not installed: "
            f"SAM2_BUILD_CUDA=0 pip install --no-build-isolation --no-deps sam2=={REFERENCE_VERSION}"
        )


def reference_version() -> str:
    """Version of the package sam2; raises MissingReferenceError."""
    try:
        import sam2  # noqa: F401

        return importlib.metadata.version("sam2")
    except ImportError:
        raise MissingReferenceError from None


@dataclass
class Side:
    """One implementation with random weights of SAM 2.1 tiny, at one input size."""

    name: Name
    image: Any
    video: Any
    automatic: Any

    @classmethod
    def build(cls, name: Name, image_size: int, points_per_side: int = 8) -> Side:
        """Build a side; raises MissingReferenceError."""
        overrides = [f"++model.image_size={image_size}"]
        common: dict[str, Any] = {"hydra_overrides_extra": overrides, "apply_postprocessing": False, "device": "cpu"}
        # the grid's masks are not filtered by scores, which mean nothing here: all are brought to full size
        grid: dict[str, Any] = {
            "points_per_side": points_per_side,
            "pred_iou_thresh": 0.0,
            "stability_score_thresh": 0.0,
            "box_nms_thresh": 1.0,
        }
        if name == "ours":
            video, model = _build_ours(common)
            image_class = import_module("sam2_core.predict.image_predictor").SAM2ImagePredictor
            automatic_class = import_module("sam2_core.predict.automatic").SAM2AutomaticMaskGenerator
        else:
            video, model = _build_theirs(common)
            image_class = import_module("sam2.sam2_image_predictor").SAM2ImagePredictor
            automatic_class = import_module("sam2.automatic_mask_generator").SAM2AutomaticMaskGenerator
        image = image_class(model)
        if name == "theirs" and image_size != 1024:
            # theirs takes the sizes of the feature maps to be those of 1024 pixels
            image._bb_feat_sizes = [(image_size // s, image_size // s) for s in (4, 8, 16)]
        automatic = automatic_class(model, **grid)
        if name == "theirs":
            automatic.predictor = image
        return cls(name, image, video, automatic)

    def propagate_one(self, state: Any, frame: int) -> torch.Tensor:
        """Logits (N, 1, H, W) of one more frame."""
        run = self.video.propagate_in_video(state, start_frame_idx=frame, max_frame_num_to_track=0)
        return next(iter(run))[2]

    def full_bank(self, folder: Path, clicks: list[tuple[float, float]], last: int) -> Any:
        """A state that has tracked an object per click up to frame `last`.

        Only frame 1 is computed; the frames after it are given its results, which cost a later frame the same.
        """
        state = self.video.init_state(str(folder))
        for number, click in enumerate(clicks, 1):
            self.video.add_new_points_or_box(state, 0, number, points=[click], labels=[1])
        for _ in self.video.propagate_in_video(state, start_frame_idx=0, max_frame_num_to_track=1):
            pass
        if self.name == "ours":
            for track in state.objects.values():
                for frame in range(2, last + 1):
                    track.tracked[frame] = track.tracked[1]
        else:
            for number in state["output_dict_per_obj"]:
                outputs = state["output_dict_per_obj"][number]["non_cond_frame_outputs"]
                for frame in range(2, last + 1):
                    outputs[frame] = outputs[1]
        return state


def _build_ours(options: dict[str, Any]) -> tuple[Any, Any]:
    video = import_module("sam2_core.build").build_sam2_video_predictor(CONFIG, **options)
    randomize(video.model)
    return video, video.model


def _build_theirs(options: dict[str, Any]) -> tuple[Any, Any]:
    reference_version()
    builders = import_module("sam2.build_sam")
    video, model = builders.build_sam2_video_predictor(CONFIG, **options), builders.build_sam2(CONFIG, **options)
    model.load_state_dict(randomize(video))
    return video, model


def set_up(threads: int) -> None:
    """Settings that both sides share."""
    import warnings

    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", message="cannot import name '_C'")
