"""Low-rank adapters (Hu et al. 2022, "LoRA") on named linear layers, through peft; merged when the model is written."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from torch import Tensor, nn

from sam2_core.errors import InputError
from sam2_core.model.sam2 import SAM2Base

# the memory attention reads the weights of its projections directly, past any adapter
ADAPTABLE = ("image_encoder.*", "sam_mask_decoder.*")


@dataclass(frozen=True)
class LoraSettings:
    """Where adapters go and how large they are.

    Attributes
    ----------
    layers : list of str
        Patterns (as in a shell) of names of linear layers of the image encoder and the mask decoder.
    rank : int
        Inner width of an adapter.
    alpha : int
        What an adapter adds is multiplied by ``alpha / rank``.
    """

    layers: list[str] = field(default_factory=lambda: ["image_encoder.trunk.*.qkv", "image_encoder.trunk.*.attn.proj"])
    rank: int = 8
    alpha: int = 16


def add_adapters(model: SAM2Base, settings: LoraSettings) -> None:
    """Put adapters beside the linear layers that the patterns name; the model computes as before at first.

    Raises
    ------
    InputError
        A pattern fits no linear layer of the image encoder or the mask decoder.
    """
    from peft import LoraConfig, inject_adapter_in_model

    chosen = set()
    for pattern in settings.layers:
        fits = {
            name
            for name, module in model.named_modules()
            if isinstance(module, nn.Linear) and fnmatchcase(name, pattern) and _fits(name, ADAPTABLE)
        }
        if not fits:
            raise InputError(
                f"lora: no linear layer of the image encoder or the mask decoder is called {pattern}; "
                "for example image_encoder.trunk.*.qkv"
            )
        chosen |= fits
    config = LoraConfig(r=settings.rank, lora_alpha=settings.alpha, target_modules=sorted(chosen))
    inject_adapter_in_model(config, model)


def merged_state_dict(model: SAM2Base) -> dict[str, Tensor]:
    """The model's weights under the names of a model without adapters, what the adapters learnt added."""
    state = model.state_dict()
    if not any(".lora_" in name for name in state):
        return state  # without peft, which takes seconds to import
    from peft.tuners.lora import Linear

    state = {name.replace(".base_layer.", "."): value for name, value in state.items() if ".lora_" not in name}
    for name, module in model.named_modules():
        if isinstance(module, Linear):
            (adapter,) = module.active_adapters
            state[f"{name}.weight"] = state[f"{name}.weight"] + module.get_delta_weight(adapter)
    return state


def _fits(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
