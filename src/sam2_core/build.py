"""Build models and predictors: by name, from a checkpoint, or from a config in Meta's layout."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.overrides import TorchFunctionMode

from sam2_core.configs import load_config, own_settings
from sam2_core.errors import InputError
from sam2_core.model import hiera, image_encoder, memory_attention, memory_encoder, position_encoding, sam2
from sam2_core.model.attention import RoPEAttention

if TYPE_CHECKING:
    from sam2_core.predict.video_predictor import SAM2VideoPredictor

TARGETS: dict[str, type] = {
    "modeling.sam2_base.SAM2Base": sam2.SAM2Base,
    "sam2_video_predictor.SAM2VideoPredictor": sam2.SAM2Base,
    "sam2_video_predictor.SAM2VideoPredictorVOS": sam2.SAM2Base,
    "sam2_video_predictor_npz.SAM2VideoPredictorNPZ": sam2.SAM2Base,
    "modeling.backbones.image_encoder.ImageEncoder": image_encoder.ImageEncoder,
    "modeling.backbones.image_encoder.FpnNeck": image_encoder.FpnNeck,
    "modeling.backbones.hieradet.Hiera": hiera.Hiera,
    "modeling.position_encoding.PositionEmbeddingSine": position_encoding.PositionEmbeddingSine,
    "modeling.memory_attention.MemoryAttention": memory_attention.MemoryAttention,
    "modeling.memory_attention.MemoryAttentionLayer": memory_attention.MemoryAttentionLayer,
    "modeling.sam.transformer.RoPEAttention": RoPEAttention,
    "modeling.memory_encoder.MemoryEncoder": memory_encoder.MemoryEncoder,
    "modeling.memory_encoder.MaskDownSampler": memory_encoder.MaskDownSampler,
    "modeling.memory_encoder.Fuser": memory_encoder.Fuser,
    "modeling.memory_encoder.CXBlock": memory_encoder.CXBlock,
}
"""Targets of Meta's configs, after the package's name, and what builds them here."""

PREDICTOR_KEYS = (
    "fill_hole_area",
    "non_overlap_masks",
    "clear_non_cond_mem_around_input",
    "add_all_frames_to_correct_as_cond",
)
"""Keys of a config's part `model` that belong to the video predictor."""

STABLE_SINGLE_MASK = (
    "model.sam_mask_decoder_extra_args.dynamic_multimask_via_stability=true",
    "model.sam_mask_decoder_extra_args.dynamic_multimask_stability_delta=0.05",
    "model.sam_mask_decoder_extra_args.dynamic_multimask_stability_thresh=0.98",
)
VIDEO_POSTPROCESSING = ("model.binarize_mask_from_pts_for_mem_enc=true", "model.fill_hole_area=8")


def load_model(
    name_or_path: str | Path = "cells-nano",
    device: str | torch.device = "auto",
    config: str | Path | Mapping[str, Any] | None = None,
    image_size: int | None = None,
) -> sam2.SAM2Base:
    """Load a model, ready to predict.

    Parameters
    ----------
    name_or_path : str or Path
        A name of ``sam2 models list``, downloaded when it is not there yet, or a checkpoint file.
    device : str or torch.device
        ``auto`` (cuda, else mps, else cpu), or a device.
    config : str, Path or mapping, optional
        Model config; by default the checkpoint's own, or the one that its shapes tell.
    image_size : int, optional
        Side of the square input in pixels, a multiple of 32; by default the config's.

    Raises
    ------
    InputError
        No such model, device or config, or the checkpoint does not fit the config.
    """
    from sam2_core.weights.checkpoints import config_for, load_state_dict, resolve

    found = resolve(name_or_path)
    state = load_state_dict(found.path)
    chosen = config if config is not None else found.config or config_for(state)
    overrides = [*STABLE_SINGLE_MASK, *([] if image_size is None else [f"model.image_size={image_size}"])]
    model = _build_with(state, load_config(chosen, overrides))
    return model.to(resolve_device(device)).eval()


def build_model(config: Mapping[str, Any]) -> sam2.SAM2Base:
    """A model with random weights from a config's content (see `sam2_core.configs.load_config`).

    Raises
    ------
    InputError
        The config has a target or a key that SAM 2 does not know, or values that do not fit each other.
    """
    node = {key: value for key, value in config["model"].items() if key not in PREDICTOR_KEYS}
    model = _instantiate(node, "model")
    if not isinstance(model, sam2.SAM2Base):
        raise InputError("the config's model is not a SAM 2 model: its _target_ must name SAM2Base")
    own = own_settings(config)
    model.sam_prompt_encoder.boxes_as_masks = own.boxes_as_masks
    model.keep_to_prompts = own.keep_to_prompts
    if own.pred_iou_thresh is not None:
        model.pred_iou_thresh = own.pred_iou_thresh
    if own.stability_score_thresh is not None:
        model.stability_score_thresh = own.stability_score_thresh
    return model


def build_sam2(
    config_file: str | Path,
    ckpt_path: str | Path | None = None,
    device: str | torch.device = "auto",
    mode: str = "eval",
    hydra_overrides_extra: Sequence[str] = (),
    apply_postprocessing: bool = True,
    **kwargs: Any,
) -> sam2.SAM2Base:
    """Build a model from a config and, if given, a checkpoint, with the signature of Meta's ``build_sam2``.

    Parameters
    ----------
    config_file : str or Path
        A config's name or path.
    ckpt_path : str or Path, optional
        Checkpoint file; random weights without one.
    mode : str
        ``eval``, or anything else to leave the model in training mode.
    hydra_overrides_extra : sequence of str
        Such as ``++model.image_size=256``.
    apply_postprocessing : bool
        Fall back to the best of several masks where the single one is unstable.
    """
    overrides = [*(STABLE_SINGLE_MASK if apply_postprocessing else ()), *hydra_overrides_extra]
    return _load(load_config(config_file, overrides), ckpt_path, device, mode)


def build_sam2_video_predictor(
    config_file: str | Path,
    ckpt_path: str | Path | None = None,
    device: str | torch.device = "auto",
    mode: str = "eval",
    hydra_overrides_extra: Sequence[str] = (),
    apply_postprocessing: bool = True,
    vos_optimized: bool = False,
    **kwargs: Any,
) -> "SAM2VideoPredictor":
    """Build a video predictor, with the signature of Meta's ``build_sam2_video_predictor``.

    Parameters are those of `build_sam2`; `apply_postprocessing` also binarises clicked masks for the memory and
    fills small holes, and `vos_optimized` compiles the image encoder.
    """
    from sam2_core.predict.video_predictor import SAM2VideoPredictor

    overrides = [*(STABLE_SINGLE_MASK + VIDEO_POSTPROCESSING if apply_postprocessing else ())]
    if vos_optimized:
        overrides.append("model.compile_image_encoder=true")
    config = load_config(config_file, [*overrides, *hydra_overrides_extra])
    options = {key: config["model"][key] for key in PREDICTOR_KEYS if key in config["model"]}
    return SAM2VideoPredictor(_load(config, ckpt_path, device, mode), **options)


def build_sam2_hf(model_id: str, **kwargs: Any) -> sam2.SAM2Base:
    """`build_sam2` for a checkpoint of the Hugging Face hub, such as ``facebook/sam2.1-hiera-tiny``."""
    config, path = _from_hub(model_id)
    return build_sam2(config, path, **kwargs)


def build_sam2_video_predictor_hf(model_id: str, **kwargs: Any) -> "SAM2VideoPredictor":
    """`build_sam2_video_predictor` for a checkpoint of the Hugging Face hub."""
    config, path = _from_hub(model_id)
    return build_sam2_video_predictor(config, path, **kwargs)


def resolve_device(device: str | torch.device = "auto") -> torch.device:
    """``auto`` becomes cuda, else mps, else cpu; any other name must be a device that is there.

    Raises
    ------
    InputError
        There is no such device on this machine.
    """
    if str(device) == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        resolved = torch.device(device)
    except RuntimeError as error:
        raise InputError(f"there is no device {str(device)!r}: choose auto, cpu, cuda or mps") from error
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there.get(resolved.type, False):
        raise InputError(f"the device {str(device)!r} is not available on this machine: choose auto or cpu")
    return resolved


class _NoInitialValues(TorchFunctionMode):
    """Leaves out `torch.nn.init`, whose random numbers take longer than to read the checkpoint that replaces them."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        if getattr(func, "__module__", None) == torch.nn.init.__name__:
            return given["tensor"] if "tensor" in given else args[0]
        return func(*args, **given)


def _build_with(state: Mapping[str, torch.Tensor], config: Mapping[str, Any]) -> sam2.SAM2Base:
    """A model with the weights of a checkpoint, which have to be all that the config's model has."""
    from sam2_core.weights.checkpoints import check_state_dict

    with _NoInitialValues():
        model = build_model(config)
    check_state_dict(model, state)
    model.load_state_dict(state)
    return model


def _load(
    config: Mapping[str, Any], ckpt_path: str | Path | None, device: str | torch.device, mode: str
) -> sam2.SAM2Base:
    from sam2_core.weights.checkpoints import load_state_dict

    model = build_model(config) if ckpt_path is None else _build_with(load_state_dict(ckpt_path), config)
    model = model.to(resolve_device(device))
    return model.eval() if mode == "eval" else model


def _from_hub(model_id: str) -> tuple[str, Path]:
    from sam2_core.weights.hub import download_from_hub
    from sam2_core.weights.table import find_checkpoint

    return find_checkpoint(model_id).config, download_from_hub(model_id)


def _instantiate(node: Any, place: str) -> Any:
    """Build what a config node describes, its parts first."""
    if not isinstance(node, Mapping):
        return node
    parts = {key: _instantiate(value, f"{place}.{key}") for key, value in node.items() if key != "_target_"}
    if "_target_" not in node:
        return parts
    target = str(node["_target_"])
    builder = TARGETS.get(target.partition(".")[2])
    if builder is None:
        raise InputError(f"the config's {place}._target_ names {target!r}, which is no part of SAM 2")
    known: Mapping[str, inspect.Parameter] = inspect.signature(builder).parameters
    if builder is RoPEAttention:
        known = {**inspect.signature(RoPEAttention.__bases__[0]).parameters, **known}
    for key in parts:
        if key not in known:
            raise InputError(f"the config has an unknown key {place}.{key}: {builder.__name__} does not take it")
    try:
        return builder(**parts)
    except (TypeError, ValueError) as error:
        raise InputError(f"the config's {place} does not build: {error}") from error
