"""The settings of a training run, read from YAML."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError

from sam2_core.errors import InputError
from training.lora import LoraSettings
from training.loss_fns import LossWeights
from training.model.sam2_train import PromptSettings
from training.optimizer import OptimizerSettings

StrategyName = Literal["auto", "ddp", "fsdp"]


@dataclass(frozen=True)
class Phase:
    """A part of a run with one image size; its learning rate runs along its own half cosine.

    Attributes
    ----------
    steps : int
        Optimiser steps.
    image_size : int
        Side of the square frames in pixels.
    lr, final_lr : float
        Learning rate at the beginning and at the end.
    images, clips : int
        Batch size of a step on single images and of a step on clips.
    frames : int
        Frames of a clip.
    objects : int
        Objects of each image or clip, at most.
    clip_every : int
        Every n-th step is one on clips; 0 for none.
    corrections : int
        Correcting clicks after the first prompt of a frame.
    whole_view : float
        How often the whole image is shown, squashed to the square, rather than a part of it.
    prompted : bool
        Whether objects are prompted. Where not, the image encoder alone learns, from the labels of all objects at once
        (`training.model.neighbours`): four times as many images in the same time.
    intensity : float
        How often intensities are changed at random.
    trunk_lr : float
        Part of the learning rate that the image encoder learns at; at 0 it is frozen.
    min_pixels : int
        Smallest object, in pixels of the square.
    """

    steps: int
    image_size: int
    lr: float
    final_lr: float
    images: int = 4
    clips: int = 1
    frames: int = 4
    objects: int = 8
    clip_every: int = 3
    corrections: int = 2
    whole_view: float = 0.5
    min_pixels: int = 16
    prompted: bool = True
    intensity: float = 1.0
    trunk_lr: float = 1.0


@dataclass(frozen=True)
class TrainSettings:
    """All of a run: the model, its phases, and how it learns.

    Attributes
    ----------
    model : str
        Config of the model (see `sam2_core.configs.find_config`).
    start_from : str, optional
        Checkpoint whose weights the run starts from; random weights without one.
    trainable : list of str
        Patterns (as in a shell) of the names of the parameters that learn, as the checkpoint has them; all by default.
    ema : float
        Decay of the average of the weights, which is what is kept; 0 for none.
    precision : str
        As Lightning Fabric names it, or auto (`training.device`).
    save_every, log_every, validate_every : int
        In steps.
    patience : int
        Validations in a row without a better one after which the run ends; 0 for never.
    accumulate : int
        Batches whose gradients a step adds up, where one of that size does not fit.
    checkpoint_activations : bool
        Compute the image encoder's inner values again in the backward pass rather than keep them.
    strategy : str
        How several processes share the work, see `training.device.make_fabric`.
    lora : LoraSettings, optional
        Low-rank adapters; what is `trainable` beside them is named there.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")  # and so of all parts

    model: str
    phases: list[Phase]
    seed: int = 0
    start_from: str | None = None
    trainable: list[str] = field(default_factory=lambda: ["*"])
    ema: float = 0.999
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"] = "auto"
    save_every: int = 250
    log_every: int = 25
    validate_every: int = 1000
    patience: int = 0
    accumulate: int = 1
    checkpoint_activations: bool = False
    strategy: StrategyName = "auto"
    lora: LoraSettings | None = None
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    prompts: PromptSettings = field(default_factory=PromptSettings)
    losses: LossWeights = field(default_factory=LossWeights)

    def __post_init__(self) -> None:
        if not self.losses.neighbours and any(not phase.prompted for phase in self.phases):
            raise ValueError("a phase with prompted: false learns nothing while losses: neighbours is 0")

    @property
    def total_steps(self) -> int:
        """Steps of all phases."""
        return sum(phase.steps for phase in self.phases)

    def phase_at(self, step: int) -> tuple[Phase, int]:
        """The phase a step belongs to, and the step's number within it."""
        for phase in self.phases:
            if step < phase.steps:
                return phase, step
            step -= phase.steps
        return self.phases[-1], self.phases[-1].steps


def load_settings(path: str | Path) -> TrainSettings:
    """Read a run's YAML file.

    Raises
    ------
    InputError
        The file is missing, or a setting is unknown or of the wrong kind.
    """
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        return TypeAdapter(TrainSettings).validate_python(content)
    except OSError as error:
        raise InputError(f"cannot read the training config {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"the training config {path} is not a YAML file: {reason}") from error
    except ValidationError as error:
        raise config_error(path, error) from None


def config_error(config: str | Path, error: ValidationError) -> InputError:
    """What is wrong with a training config, for people: the first of pydantic's findings."""
    first = error.errors()[0]
    place = ".".join(map(str, first["loc"]))
    if first["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        return InputError(f"the training config {config} has an unknown key {place}: remove it")
    return InputError(f"the training config {config} has a wrong value, {place or 'all'}: {first['msg']}")
