"""The reference implementation (PyPI sam2 1.1.0) beside ours, with the same weights, on the same calls."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from sam2_core.build import build_sam2_video_predictor
from sam2_core.configs import FOLDER
from sam2_core.errors import InputError
from sam2_core.model.sam2 import NO_OBJECT_LOGIT, SAM2Base
from sam2_core.predict.image_predictor import SAM2ImagePredictor
from sam2_core.predict.video_predictor import SAM2VideoPredictor

TOLERANCE = 1e-3  # of the standard deviation of the reference's logits

MODELS = {
    "sam2.1-tiny": ("configs/sam2.1/sam2.1_hiera_t.yaml", 128),
    "sam2.1-large": ("configs/sam2.1/sam2.1_hiera_l.yaml", 128),
    "sam2-tiny": ("configs/sam2/sam2_hiera_t.yaml", 128),
    "cells-nano": ("configs/nano/cells-nano.yaml", 160),
}


@pytest.fixture(scope="session")
def peer() -> ModuleType:
    """The reference package; tests that need it are skipped without it."""
    return pytest.importorskip("sam2", reason="the reference implementation is not installed")


@dataclass
class Deviations:
    """The largest deviation of each kind, in standard deviations of the reference."""

    largest: dict[str, float] = field(default_factory=dict)

    def note(self, kind: str, deviation: float) -> None:
        self.largest[kind] = max(deviation, self.largest.get(kind, 0.0))


DEVIATIONS = Deviations()


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if DEVIATIONS.largest:
        terminalreporter.section("largest deviations from the reference, in its standard deviations")
        for kind, deviation in sorted(DEVIATIONS.largest.items()):
            terminalreporter.write_line(f"{deviation:.1e}  {kind}")


@pytest.fixture(scope="session")
def agree() -> Callable[[str, Any, Any], int]:
    """Compares maps (N, ..., H, W) one by one; returns how many of them have both foreground and background.

    Within the tolerance, masks can differ only where the reference's logit is within it of 0.
    """

    def compare(kind: str, theirs: Any, ours: Any) -> int:
        a, b = torch.as_tensor(theirs).float(), torch.as_tensor(ours).float()
        assert a.shape == b.shape
        mixed = 0
        for one, other in zip(a.flatten(0, -3), b.flatten(0, -3)):
            if (one == NO_OBJECT_LOGIT).all():
                assert torch.equal(one, other), "only the reference says that the object is not there"
                continue
            spread = one.std().item()
            assert spread > 0.01, "the reference's map is constant: it tells nothing"
            deviation = (one - other).abs().max().item() / spread
            DEVIATIONS.note(kind, deviation)
            assert deviation < TOLERANCE
            mixed += bool((one > 0).any() and (one < 0).any())
        return mixed

    return compare


@dataclass
class Pair:
    """The same model twice, each as a video predictor."""

    name: str
    theirs: Any
    ours: SAM2VideoPredictor

    @property
    def model(self) -> SAM2Base:
        return self.ours.model

    @contextlib.contextmanager
    def settings(self, **values: Any) -> Iterator[None]:
        """Change attributes of both for a while."""
        changed = []
        for key, value in values.items():
            for owner in (self.theirs, self.ours if hasattr(self.ours, key) else self.model):
                changed.append((owner, key, getattr(owner, key)))
                setattr(owner, key, value)
        try:
            yield
        finally:
            for owner, key, value in changed:
                setattr(owner, key, value)

    def image_predictors(self) -> tuple[Any, SAM2ImagePredictor]:
        from sam2.sam2_image_predictor import SAM2ImagePredictor as TheirImagePredictor

        theirs = TheirImagePredictor(self.theirs)
        # the reference assumes 1024 pixels
        theirs._bb_feat_sizes = [(self.theirs.image_size // s,) * 2 for s in (4, 8, 16)]
        return theirs, SAM2ImagePredictor(self.model)


@pytest.fixture(scope="session", params=list(MODELS))
def pair(request: pytest.FixtureRequest, peer: ModuleType, well_scaled: Callable) -> Pair:
    """Each of the models; pytest runs all tests of one before it builds the next."""
    return _build(request.param, well_scaled)


@pytest.fixture(scope="session")
def tiny(peer: ModuleType, well_scaled: Callable) -> Pair:
    """The model on which settings and sequences of calls are tried."""
    return _build("sam2.1-tiny", well_scaled)


@pytest.fixture(scope="session")
def nano(peer: ModuleType, well_scaled: Callable) -> Pair:
    return _build("cells-nano", well_scaled)


def _build(name: str, well_scaled: Callable[[nn.Module], dict[str, Tensor]]) -> Pair:
    config, image_size = MODELS[name]
    overrides = [f"++model.image_size={image_size}"]
    theirs = _build_theirs(config, overrides)
    ours = build_sam2_video_predictor(config, None, device="cpu", hydra_overrides_extra=overrides)
    state = _trained(name) or well_scaled(theirs)
    theirs.load_state_dict(state)
    ours.model.load_state_dict(state, assign=True)
    ours.model.sam_prompt_encoder.boxes_as_masks = ours.model.keep_to_prompts = False  # ours alone has them
    # the reference fills holes on a GPU only
    theirs.fill_hole_area = ours.fill_hole_area = 0
    return Pair(name, theirs, ours)


def _build_theirs(config: str, overrides: list[str]) -> Any:
    """The reference, from its own config or, for a model that it does not have, from ours."""
    from hydra import initialize_config_dir, initialize_config_module
    from hydra.core.global_hydra import GlobalHydra
    from sam2.build_sam import build_sam2_video_predictor as build

    if "nano" not in config:
        return build(config, None, device="cpu", hydra_overrides_extra=overrides)
    path = FOLDER / config.removeprefix("configs/")
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(path.parent), version_base="1.2"):
            return build(path.name, None, device="cpu", hydra_overrides_extra=overrides)
    finally:
        GlobalHydra.instance().clear()
        initialize_config_module("sam2", version_base="1.2")


def _trained(name: str) -> dict[str, Tensor] | None:
    """The weights that ship with the package, if this model has some."""
    from sam2_core.weights.checkpoints import load_state_dict
    from sam2_core.weights.table import find_checkpoint

    try:
        path = find_checkpoint(name).path
    except InputError:
        return None
    if name != "cells-nano" or not path.exists():
        return None
    return {key: value.float() for key, value in load_state_dict(path).items()}


@pytest.fixture(scope="session")
def picture() -> np.ndarray:
    """A smooth coloured image (96, 120, 3), uint8."""
    return _picture(0)


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 8 JPEG frames of 96 x 120, whose content moves."""
    folder = tmp_path_factory.mktemp("clip")
    for i in range(8):
        Image.fromarray(_picture(i)).save(folder / f"{i:05d}.jpg", quality=95)
    return folder


def _picture(shift: int) -> np.ndarray:
    coarse = np.random.default_rng(0).integers(0, 255, (14, 17, 3), dtype=np.uint8)
    return np.array(Image.fromarray(np.roll(coarse, shift, 0)).resize((120, 96), Image.Resampling.BICUBIC))


@dataclass
class Duel:
    """The same calls to both video predictors; every answer is compared."""

    pair: Pair
    clip: Path
    agree: Callable[[str, Any, Any], int]
    name: str
    maps: int = 0
    mixed: int = 0
    states: tuple[Any, Any] | None = None

    def __enter__(self) -> Duel:
        self.states = self.pair.theirs.init_state(str(self.clip)), self.pair.ours.init_state(str(self.clip))
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        assert self.states is not None
        self.states[1].close()
        if kind is None:
            assert self.mixed > self.maps / 2, "most maps have one sign only: the comparison of masks tells nothing"

    def click(self, frame: int, obj: int, x: float, y: float, label: int = 1, **more: Any) -> None:
        self.prompt(frame, obj, points=np.array([[x, y]], np.float32), labels=np.array([label], np.int32), **more)

    def prompt(self, frame: int, obj: int, **prompt: Any) -> None:
        self._compare("prompt", *self._both("add_new_points_or_box", frame_idx=frame, obj_id=obj, **prompt))

    def mask(self, frame: int, obj: int, mask: np.ndarray) -> None:
        self._compare("mask prompt", *self._both("add_new_mask", frame_idx=frame, obj_id=obj, mask=mask))

    def clear(self, frame: int, obj: int) -> None:
        self._compare("cleared", *self._both("clear_all_prompts_in_frame", frame_idx=frame, obj_id=obj))

    def remove(self, obj: int) -> None:
        (their_ids, their_frames), (our_ids, our_frames) = self._both("remove_object", obj_id=obj)
        assert list(their_ids) == our_ids
        their_masks, our_masks = dict(their_frames), dict(our_frames)
        assert their_masks.keys() == our_masks.keys()
        for frame, masks in their_masks.items():
            self._count(masks, self.agree(f"{self.name}: others after removal", masks, our_masks[frame]))

    def reset(self) -> None:
        self._both("reset_state")

    def propagate(self, **options: Any) -> None:
        assert self.states is not None
        theirs = self.pair.theirs.propagate_in_video(self.states[0], **options)
        ours = self.pair.ours.propagate_in_video(self.states[1], progress=False, **options)
        for their_frame, our_frame in zip(theirs, ours, strict=True):
            self._compare("tracked", their_frame, our_frame)

    def _both(self, method: str, **arguments: Any) -> tuple[Any, Any]:
        assert self.states is not None
        theirs = getattr(self.pair.theirs, method)(self.states[0], **arguments)
        return theirs, getattr(self.pair.ours, method)(self.states[1], **arguments)

    def _compare(self, kind: str, theirs: tuple, ours: tuple) -> None:
        assert theirs[0] == ours[0]
        assert list(theirs[1]) == ours[1]
        a, b = theirs[2], ours[2]
        if self.pair.ours.non_overlap_masks and len(a) > 1:
            # where two objects are nearly equal, the last digit decides which of them keeps the pixel
            assert (a.argmax(0) != b.argmax(0)).float().mean() < 1e-3
            a, b = a.amax(0, keepdim=True), b.amax(0, keepdim=True)
        self._count(a, self.agree(f"{self.name}: {kind}", a, b))

    def _count(self, maps: Tensor, mixed: int) -> None:
        self.maps += int((maps.flatten(1) != NO_OBJECT_LOGIT).any(1).sum())
        self.mixed += mixed


@pytest.fixture
def duel(request: pytest.FixtureRequest, clip: Path, agree: Callable[[str, Any, Any], int]) -> Callable[[Pair], Duel]:
    """Starts a `Duel` on the clip."""
    return lambda pair: Duel(pair, clip, agree, f"{pair.name} {request.node.originalname}")
