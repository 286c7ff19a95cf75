"""Training configs under the names of Meta's: composed by Hydra, checked, and translated into the settings of a run.

An epoch is `multiplier` looks at each video, as in Meta's training; here it is a number of steps, whose clips are
drawn at random.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
)

from sam2_core.configs import load_config
from sam2_core.errors import InputError, MissingDependencyError
from sam2_core.weights.checkpoints import resolve
from training.loss_fns import LossWeights
from training.model.sam2_train import PromptSettings
from training.optimizer import OptimizerSettings
from training.settings import Phase, StrategyName, TrainSettings, config_error

TRAINING = Path(__file__).resolve().parent


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Scratch(_Part):
    """What is changed most; `network` is the model's config."""

    network: str = Field(alias="model_config")
    resolution: PositiveInt = Field(multiple_of=32)
    train_batch_size: PositiveInt
    num_train_workers: NonNegativeInt
    num_frames: PositiveInt
    max_num_objects: PositiveInt
    base_lr: PositiveFloat
    vision_lr: NonNegativeFloat
    num_epochs: PositiveInt


class Dataset(_Part):
    """Folders and lists as `training.dataset.folders.load_davis` takes them."""

    img_folder: Path | None
    gt_folder: Path | None
    file_list_txt: Path | None = None
    excluded_videos_list_txt: Path | None = None
    multiplier: PositiveInt = 1

    def folders(self) -> dict[str, Path | None]:
        """The arguments of `load_davis`, absolute: a job may run elsewhere."""
        return {name: path and path.expanduser().absolute() for name, path in self if name != "multiplier"}


class ValidationData(_Part):
    """Other videos, of which the model follows the first objects every so many epochs; none without folders."""

    img_folder: Path | None = None
    gt_folder: Path | None = None
    file_list_txt: Path | None = None
    excluded_videos_list_txt: Path | None = None
    objects: PositiveInt = 20
    epochs: PositiveInt = 1

    def folders(self) -> dict[str, Path | None]:
        """The arguments of `load_davis`, absolute: a job may run elsewhere; empty without a folder."""
        names = ("img_folder", "gt_folder", "file_list_txt", "excluded_videos_list_txt")
        given = {name: path.expanduser().absolute() for name in names if (path := getattr(self, name))}
        return {**dict.fromkeys(names), **given} if given else {}


class SimulatedUser(BaseModel):
    """How objects are prompted; further keys are parts of the model."""

    model_config = ConfigDict(extra="allow", frozen=True)

    pt_input: float = Field(0.5, alias="prob_to_use_pt_input_for_train", ge=0, le=1)
    box_input: float = Field(0.5, alias="prob_to_use_box_input_for_train", ge=0, le=1)
    frames_to_correct: PositiveInt = Field(2, alias="num_frames_to_correct_for_train")
    correction_points: NonNegativeInt = Field(7, alias="num_correction_pt_per_frame")


class Amp(_Part):
    """Mixed precision."""

    enabled: bool
    amp_dtype: Literal["bfloat16", "float16"]


class GradientClip(_Part):
    """Largest norm of the gradient."""

    max_norm: PositiveFloat


class Optim(_Part):
    """Optimisation."""

    amp: Amp
    gradient_clip: GradientClip
    layer_decay: float = Field(gt=0, le=1)
    weight_decay: NonNegativeFloat


class WeightDict(_Part):
    """Weights of the losses."""

    loss_mask: NonNegativeFloat
    loss_dice: NonNegativeFloat
    loss_iou: NonNegativeFloat
    loss_class: NonNegativeFloat


class AllLosses(_Part):
    """Of the one data set."""

    weight_dict: WeightDict


class Loss(_Part):
    """By data set."""

    all: AllLosses


class Logging(_Part):
    """Steps between two entries in TensorBoard."""

    log_freq: PositiveInt


class StateDict(_Part):
    """Weights to start from: a file or a name; random ones without."""

    checkpoint_path: str | None


class Initializer(_Part):
    """Where weights come from."""

    state_dict: StateDict


class CheckpointPart(_Part):
    """Without an initializer, weights are random."""

    model_weight_initializer: Initializer | None


class Distributed(_Part):
    """How several processes share the work, as `training.device.make_fabric` takes it."""

    strategy: StrategyName = "auto"


class TrainerPart(_Part):
    """How the model learns."""

    max_epochs: PositiveInt
    accelerator: Literal["cuda", "cpu", "mps", "auto"]
    seed_value: int
    model: SimulatedUser
    optim: Optim
    loss: Loss
    logging: Logging
    checkpoint: CheckpointPart
    distributed: Distributed = Distributed()
    accumulate: PositiveInt = 1
    checkpoint_activations: bool = False


class Launcher(_Part):
    """How many processes there are, one a device, and where they write."""

    num_nodes: PositiveInt
    gpus_per_node: PositiveInt
    experiment_log_dir: Path


class Submitit(_Part):
    """What SLURM is asked for."""

    use_cluster: bool
    partition: str | None
    account: str | None
    qos: str | None
    cpus_per_task: PositiveInt
    timeout_hour: PositiveFloat
    name: str
    port_range: tuple[PositiveInt, PositiveInt]
    mem_gb: PositiveFloat | None = None
    constraints: str | None = None


class TrainConfig(_Part):
    """A whole config, every value known and checked."""

    scratch: Scratch
    dataset: Dataset
    validation: ValidationData = ValidationData()
    trainer: TrainerPart
    launcher: Launcher
    submitit: Submitit

    def as_yaml(self) -> str:
        """The text of a config that composes to this one."""
        return yaml.safe_dump(self.model_dump(mode="json", by_alias=True), sort_keys=False)

    def settings(self, videos: int) -> TrainSettings:
        """The settings of a run on so many videos.

        Raises
        ------
        InputError
            The videos are too few for a step, or a checkpoint or model config does not exist.
        """
        scratch, trainer, user = self.scratch, self.trainer, self.trainer.model
        per_epoch = self._steps_of_an_epoch(videos)
        phase = Phase(
            steps=trainer.max_epochs * per_epoch,
            image_size=scratch.resolution,
            lr=scratch.base_lr,
            final_lr=scratch.base_lr / 10,
            images=scratch.train_batch_size,
            clips=scratch.train_batch_size,
            frames=scratch.num_frames,
            objects=scratch.max_num_objects,
            clip_every=1,
            corrections=user.correction_points,
            whole_view=1.0,
            trunk_lr=scratch.vision_lr / scratch.base_lr,
        )
        weights = trainer.loss.all.weight_dict
        return TrainSettings(
            model=self._model_text(),
            phases=[phase],
            seed=trainer.seed_value,
            start_from=self._start(),
            ema=0.0,
            precision=self._precision(),
            save_every=per_epoch,
            log_every=trainer.logging.log_freq,
            validate_every=self.validation.epochs * per_epoch if self.validation.folders() else 0,
            accumulate=trainer.accumulate,
            checkpoint_activations=trainer.checkpoint_activations,
            strategy=trainer.distributed.strategy,
            optimizer=OptimizerSettings(
                weight_decay=trainer.optim.weight_decay,
                layer_decay=trainer.optim.layer_decay,
                warmup_steps=0,
                clip_norm=trainer.optim.gradient_clip.max_norm,
            ),
            prompts=PromptSettings(
                box=user.box_input, mask=1 - user.pt_input, corrected_frames=user.frames_to_correct - 1, central=0.0
            ),
            losses=LossWeights(
                focal=weights.loss_mask, dice=weights.loss_dice, iou=weights.loss_iou, presence=weights.loss_class
            ),
        )

    def _steps_of_an_epoch(self, videos: int) -> int:
        batch, multiplier = self.scratch.train_batch_size * self.trainer.accumulate, self.dataset.multiplier
        processes = self.launcher.num_nodes * self.launcher.gpus_per_node
        steps = videos * multiplier // (batch * processes)
        if not steps:
            raise InputError(
                f"an epoch has no whole step: {videos} videos seen {multiplier} times are fewer than {batch} on each "
                f"of {processes} devices; raise dataset.multiplier or use fewer devices"
            )
        return steps

    def _model_text(self) -> str:
        content = load_config(self.scratch.network)
        _lay_over(content["model"], {**(self.trainer.model.model_extra or {}), "image_size": self.scratch.resolution})
        return yaml.safe_dump(content, sort_keys=False)

    def _start(self) -> str | None:
        initializer = self.trainer.checkpoint.model_weight_initializer
        path = initializer and initializer.state_dict.checkpoint_path
        return str(resolve(path).path.absolute()) if path else None

    def _precision(self) -> Literal["auto", "32-true", "bf16-mixed", "16-mixed"]:
        amp = self.trainer.optim.amp
        if not amp.enabled:
            return "32-true"
        if self.trainer.accelerator != "cuda":
            return "auto"
        return "bf16-mixed" if amp.amp_dtype == "bfloat16" else "16-mixed"


def compose_config(name: str, overrides: Sequence[str] = (), flags: Mapping[str, Any] | None = None) -> TrainConfig:
    """Read a config.

    Parameters
    ----------
    name : str
        A file; or one of those beside this module, as ``configs/sam2.1_training/sam2.1_hiera_b+_MOSE_finetune.yaml``.
    overrides : sequence of str
        In Hydra's grammar, as ``scratch.resolution=512``.
    flags : mapping, optional
        Values by their places, as ``{"launcher.num_nodes": 2}``, which win over the overrides; None changes nothing.

    Raises
    ------
    InputError
        The file does not exist, an override is malformed, or a key or value is not one of a config's.
    """
    path = find_training_config(name)
    content = _compose(path, overrides, {k: v for k, v in (flags or {}).items() if v is not None})
    if not isinstance(content.get("scratch"), dict):
        raise InputError(f"{name} has no part 'scratch': a run's file of another layout needs --data and --out")
    if isinstance(launcher := content.get("launcher"), dict) and launcher.get("experiment_log_dir") is None:
        launcher["experiment_log_dir"] = str(Path.cwd() / "sam2_logs" / path.stem)
    if isinstance(submitit := content.get("submitit"), dict) and submitit.get("name") is None:
        submitit["name"] = path.stem
    try:
        return TrainConfig.model_validate(content)
    except ValidationError as error:
        raise config_error(name, error) from None


def find_training_config(name: str) -> Path:
    """The file of a training config, looked for here and in the folder of this module.

    Raises
    ------
    InputError
        It is in neither.
    """
    for folder in (Path(), TRAINING):
        for path in (folder / name, folder / f"{name}.yaml"):
            if path.is_file():
                return path.resolve()
    known = ", ".join(str(p.relative_to(TRAINING)) for p in sorted(TRAINING.glob("configs/*_training/*.yaml")))
    raise InputError(f"there is no training config {name}: give a YAML file, or {known}")


def _compose(path: Path, overrides: Sequence[str], flags: Mapping[str, Any]) -> dict[str, Any]:
    try:
        from hydra import compose, initialize_config_dir
        from hydra.core.global_hydra import GlobalHydra
        from hydra.errors import HydraException
        from omegaconf import OmegaConf
        from omegaconf.errors import OmegaConfBaseException
    except ImportError as error:
        raise MissingDependencyError("hydra-core", "train", "read training configs") from error
    # whoever imported the reference implementation has a Hydra already, and there is but one
    state = GlobalHydra.instance()
    before, state.hydra = state.hydra, None
    try:
        with initialize_config_dir(str(path.parent), version_base="1.3"):
            config = compose(path.name, overrides=list(overrides))
        for place, value in flags.items():
            OmegaConf.update(config, place, value)
        content = OmegaConf.to_container(config, resolve=True)
    except (HydraException, OmegaConfBaseException, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"the training config {path.name} cannot be composed: {reason}") from None
    finally:
        GlobalHydra.instance().hydra = before
    assert isinstance(content, dict)
    return {str(key): value for key, value in content.items()}


def _lay_over(content: dict[str, Any], changes: Mapping[str, Any]) -> None:
    for key, value in changes.items():
        if isinstance(value, Mapping) and isinstance(content.get(key), dict):
            _lay_over(content[key], value)
        else:
            content[key] = value
