"""What `sam2 finetune` trains: named choices of parameters and learning rates."""

from dataclasses import dataclass

from sam2_core.finetuning import PRESETS as SUMMARIES
from training.lora import LoraSettings

_HEADS = (
    "sam_mask_decoder.output_hypernetworks_mlps.*",
    "sam_mask_decoder.output_upscaling.*",
    "sam_mask_decoder.conv_s?.*",
    "sam_mask_decoder.iou_prediction_head.*",
    "sam_mask_decoder.pred_obj_score_head.*",
    "sam_mask_decoder.*token*.weight",
)


@dataclass(frozen=True)
class Preset:
    """A way to fine-tune.

    Attributes
    ----------
    summary : str
        One line for people.
    trainable : tuple of str
        Patterns of parameter names.
    lr : float
        Highest learning rate.
    trunk_lr : float
        Part of it for the image encoder.
    lora : LoraSettings, optional
        Adapters of the image encoder.
    """

    summary: str
    trainable: tuple[str, ...]
    lr: float
    trunk_lr: float
    lora: LoraSettings | None = None


PRESETS = {
    "head": Preset(SUMMARIES["head"], _HEADS, 3e-4, 0.0),
    "decoder": Preset(SUMMARIES["decoder"], ("sam_mask_decoder.*", "sam_prompt_encoder.*"), 2e-4, 0.0),
    "lora": Preset(
        SUMMARIES["lora"],
        ("*.lora_*", "sam_mask_decoder.*", "sam_prompt_encoder.*"),
        3e-4,
        1.0,
        LoraSettings(),
    ),
    "full": Preset(SUMMARIES["full"], ("*",), 1e-4, 0.3),
}
