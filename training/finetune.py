"""Fine-tune a model on a label store: measure it, train, measure again, and write one file that loads anywhere."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from sam2_core.build import load_model, resolve_device
from sam2_core.configs import config_text, load_config
from sam2_core.errors import InputError
from sam2_core.finetuning import METRICS, RUN, TRAINED
from sam2_core.labelstore import LabelStore
from sam2_core.labelstore.records import now
from sam2_core.labelstore.snapshots import read_snapshot
from sam2_core.volume.files import disk_errors, write_json
from sam2_core.weights.checkpoints import config_for, load_state_dict, resolve, save_safetensors
from sam2_core.weights.table import CARD, MODEL
from training.card import Gain, card
from training.dataset.label_store import load_store
from training.dataset.labelled_sets import Sequence
from training.device import StrategyName, make_fabric, resolve_precision
from training.launch import Run, train
from training.loss_fns import LossWeights
from training.model.sam2_train import PromptSettings
from training.optimizer import OptimizerSettings
from training.overrides import override
from training.presets import PRESETS
from training.settings import Phase, TrainSettings
from training.tasks import image_tasks
from training.trainer import CHECKPOINT, METRIC
from training.validation import AUTOMATIC, Measures, Validator, measure, numbers


@dataclass(frozen=True)
class FinetuneOptions:
    """What the user chose.

    Attributes
    ----------
    labels : Path
        The label store.
    snapshot : str, optional
        Of the store; a new one is taken without.
    start : str
        Name or file of the model to start from.
    preset : str
        One of `PRESETS`.
    steps : int
        Optimiser steps.
    images, objects : int
        Images of a step, and at most so many objects of each.
    device : str
    seed : int
    limit : int
        Objects on which the model is measured.
    automatic : int
        Images on which automatic masks are, before and after; 0 for none.
    validation : float
        Part of the items for validation, where the store was not split.
    validate_every : int
        Steps between two measurements on the validation part, of which the best weights are kept; 0 for none.
    patience : int
        Measurements in a row without a better one after which training ends; 0 for never.
    accumulate : int
        Batches whose gradients a step adds up.
    frames : int
        Frames of a clip.
    checkpoint_activations : bool
        Less memory, and more time.
    workers : int
        Processes that prepare images, for each device.
    devices : int
        One process on each, with `images` images of its own.
    strategy : {"auto", "ddp", "fsdp"}
        How they share the work; see `training.device.make_fabric`.
    overrides : list of str
        Changes to the settings that all of these make; see `training.overrides`.
    """

    labels: Path
    out: Path
    snapshot: str | None = None
    start: str = "cells-nano"
    preset: str = "decoder"
    steps: int = 300
    images: int = 3
    objects: int = 8
    lr: float | None = None
    device: str = "auto"
    seed: int = 0
    limit: int = 60
    automatic: int = AUTOMATIC
    validation: float = 0.2
    validate_every: int = 100
    patience: int = 0
    accumulate: int = 1
    frames: int = 3
    checkpoint_activations: bool = False
    workers: int = 1
    devices: int = 1
    strategy: StrategyName = "auto"
    overrides: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class FinetuneResult:
    """The file that was written, and what it is better at."""

    model: Path
    gain: Gain


def finetune(
    options: FinetuneOptions, *, resume: bool = False, say: Callable[[str], None] = print
) -> FinetuneResult | None:
    """Fine-tune a model; None if it was interrupted before the end, and can be resumed.

    Raises
    ------
    InputError
        The output exists (without `resume`), the store has nothing to train on, the model or the devices do not exist,
        or a setting is unknown.
    SystemExit
        With 2, where another process found such an error, which it has said.
    """
    store = LabelStore(options.labels)
    out = options.out.expanduser()
    found = resolve(options.start)
    make_settings(options, found.path, found.config)
    make_fabric(options.device, "32-true", options.devices, strategy=options.strategy)
    kept = _begin(options, store, out, resume)
    snapshot = kept["snapshot"]
    training = load_store(store, "train", snapshot)
    validation, test = (_part(store, part, snapshot) for part in ("validation", "test"))
    say(
        f"{len(training)} sequences to train on, {len(validation)} for validation, {len(test)} to test; "
        f"snapshot {snapshot}"
    )

    moving = any(len(sequence) > 1 for sequence in training)
    settings = make_settings(options, found.path, found.config, moving, kept.get("precision", "auto"))
    part, sequences = ("test", test) if test else ("validation", validation)
    before = kept.get("before")
    if before is None:
        say(f"measuring the model as it is, on the {part} part" if sequences else "there is nothing to measure it on")
        before = _measure(out, "before", 0, options.start, sequences, options)
        write_json(out / RUN, {**kept, "before": before})
    # where the end comes first there is nothing to choose from
    chooses = bool(validation) and 0 < settings.validate_every < settings.total_steps
    run = Run(
        settings=settings,
        load=partial(load_store, store, "train", snapshot) if options.devices > 1 else lambda: training,
        out=out,
        device=options.device,
        devices=options.devices,
        workers=options.workers,
        export=TRAINED,
        validate=Validator(partial(load_store, store, "validation", snapshot), options.limit) if chooses else None,
    )
    if not train(run):
        return None
    weights = {name: value.half() for name, value in load_state_dict(out / TRAINED).items()}
    temporary = out / f".{MODEL}"
    save_safetensors(weights, temporary, {"config": settings.model})
    if sequences:
        say("measuring the new model")
    after = _measure(out, "after", settings.total_steps, temporary, sequences, options)
    items = sum(entry.part == part for entry in read_snapshot(store.path, snapshot).entries)
    gain = Gain(part, items, chooses and not test, before, after) if sequences else Gain()
    main = {name: numbers(measures)[METRIC] for name, measures in (("before", before), ("after", after)) if measures}
    write_json(out / METRICS, {**asdict(gain), "main": main})
    made = f"{options.start}, fine-tuned with `sam2 finetune --preset {options.preset}`"
    (out / CARD).write_text(card(options.out.name, made, store, snapshot, settings, gain), encoding="utf-8")
    (out / TRAINED).unlink()
    os.replace(temporary, out / MODEL)  # last, so that where there is a model there is all of it
    return FinetuneResult(out / MODEL, gain)


def make_settings(
    options: FinetuneOptions, start: Path, config: str | None, moving: bool = False, precision: str = "auto"
) -> TrainSettings:
    """The settings of a run.

    Parameters
    ----------
    options : FinetuneOptions
    start : Path
        The weights to start from.
    config : str, optional
        Of the model; found out from the weights without.
    moving : bool
        Whether there are volumes or videos to train on.
    precision : str
        See `TrainSettings`.

    Raises
    ------
    InputError
        One of the overrides is no setting.
    """
    preset = PRESETS[options.preset]
    config = config or config_for(load_state_dict(start))
    size = int(load_config(config)["model"]["image_size"])
    lr = preset.lr if options.lr is None else options.lr
    phase = Phase(
        steps=options.steps,
        image_size=size,
        lr=lr,
        final_lr=lr / 20,
        images=options.images,
        clips=1,
        frames=options.frames,
        objects=options.objects,
        clip_every=3 if moving and options.preset in ("full", "lora") else 0,
        corrections=1,
        whole_view=0.7,
        intensity=0.5,
        trunk_lr=preset.trunk_lr,
    )
    settings = TrainSettings(
        model=config_text(config),
        phases=[phase],
        seed=options.seed,
        start_from=str(start),
        trainable=list(preset.trainable),
        ema=min(0.99, 1 - 10 / options.steps) if options.steps > 10 else 0.0,
        save_every=50,
        log_every=10,
        validate_every=options.validate_every,
        patience=options.patience,
        accumulate=options.accumulate,
        checkpoint_activations=options.checkpoint_activations,
        strategy=options.strategy,
        lora=preset.lora,
        optimizer=OptimizerSettings(warmup_steps=min(30, options.steps // 5), layer_decay=0.9),
        prompts=PromptSettings(box=0.4, mask=0.5, central=0.7),
        losses=LossWeights(focal=1.0, dice=1.0, iou=0.5, presence=0.5, stride=4, from_scratch=True),
    )
    return override(settings, [f"precision={precision}", *options.overrides])


def _measure(
    out: Path, name: str, step: int, model: str | Path, sequences: list[Sequence], options: FinetuneOptions
) -> Measures:
    """The measures, also written for TensorBoard, with pictures; empty where there is nothing to measure on."""
    if not sequences:
        return {}
    measures, pictures = measure(load_model(model, options.device), sequences, options.limit, options.automatic)
    with SummaryWriter(str(out / "tensorboard")) as writer:
        for key, entry in measures.items():
            writer.add_scalar(f"before and after/{key}", entry["score"], step)
        for title, picture in pictures.items():
            writer.add_image(f"{name}, {title}", picture, step, dataformats="HWC")
    return measures


def _begin(options: FinetuneOptions, store: LabelStore, out: Path, resume: bool) -> dict[str, Any]:
    """Make the output folder, or read that of the run to go on with; gives what is kept in run.json."""
    chosen = {key: str(value) if isinstance(value, Path) else value for key, value in asdict(options).items()}
    del chosen["out"], chosen["device"], chosen["snapshot"], chosen["workers"]
    if resume:
        try:
            kept = json.loads((out / RUN).read_text())
        except (OSError, ValueError):
            raise InputError(f"{out} holds no run to resume: run without --resume") from None
        for name, value in chosen.items():
            if kept["options"].get(name) != value:
                raise InputError(f"{out} was begun with {name} {kept['options'].get(name)}, not {value}")
        return kept
    if out.exists() and any(out.iterdir()):
        begun = " (go on with --resume)" if (out / CHECKPOINT).exists() else ""
        raise InputError(f"{out} is not empty{begun}: choose another folder")
    snapshot = options.snapshot
    if snapshot is None:
        store.split(options.validation)
        taken = store.snapshot(f"finetune-{now():%Y%m%d-%H%M%S}")
        snapshot = taken.name
    read_snapshot(store.path, snapshot)
    with disk_errors(out):
        out.mkdir(parents=True, exist_ok=True)
        # chosen once: which one is quicker may look different to a run that goes on beside other work
        precision = resolve_precision("auto", resolve_device(options.device))
        kept = {"options": chosen, "snapshot": snapshot, "precision": precision}
        write_json(out / RUN, kept)
    return kept


def _part(store: LabelStore, part: str, snapshot: str) -> list[Sequence]:
    """The sequences of a part; none where it is empty, or holds no object to click on."""
    if all(entry.part != part for entry in read_snapshot(store.path, snapshot).entries):
        return []
    sequences = load_store(store, part, snapshot)
    return sequences if any(image_tasks([sequence], 1) for sequence in sequences) else []
