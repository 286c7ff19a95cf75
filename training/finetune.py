"""Fine-tune a model on a label store: measure it, train, measure again, and write one file that loads anywhere."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
import yaml

from sam2_core import __version__
from sam2_core.build import load_model
from sam2_core.configs import config_text, load_config
from sam2_core.errors import InputError
from sam2_core.labelstore import LabelStore
from sam2_core.labelstore.records import now
from sam2_core.labelstore.snapshots import read_snapshot
from sam2_core.model.sam2 import SAM2Base
from sam2_core.volume.files import disk_errors, write_json
from sam2_core.weights.checkpoints import config_for, load_state_dict, resolve, save_safetensors
from sam2_core.weights.table import CARD, MODEL
from training.dataset.label_store import load_store
from training.dataset.labelled_sets import Sequence
from training.device import make_fabric
from training.evaluate import IMAGE_PROMPTS, Scores, score_images, score_propagation, summarise
from training.loss_fns import LossWeights
from training.model.sam2_train import PromptSettings
from training.optimizer import OptimizerSettings
from training.presets import PRESETS, Preset
from training.settings import Phase, TrainSettings
from training.tasks import image_tasks, propagation_tasks
from training.trainer import CHECKPOINT, METRIC, Trainer

METRICS, RUN = "metrics.json", "run.json"

Metrics = dict[str, float]


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
        Objects on which the model is measured before and after.
    validation : float
        Part of the items for validation, where the store was not split.
    validate_every : int
        Steps between two measurements on the validation part, of which the best weights are kept.
    patience : int
        Measurements in a row without a better one after which training ends; 0 for never.
    accumulate : int
        Batches whose gradients a step adds up.
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
    validation: float = 0.2
    validate_every: int = 100
    patience: int = 0
    accumulate: int = 1


@dataclass(frozen=True)
class FinetuneResult:
    """The file that was written, and the model's scores on the validation part before and after."""

    model: Path
    before: Metrics
    after: Metrics


def finetune(
    options: FinetuneOptions, *, resume: bool = False, say: Callable[[str], None] = print
) -> FinetuneResult | None:
    """Fine-tune a model; None if it was interrupted before the end, and can be resumed.

    Raises
    ------
    InputError
        The output exists (without `resume`), the store has nothing to train on, or the model does not exist.
    """
    store = LabelStore(options.labels)
    out = options.out.expanduser()
    found = resolve(options.start)
    kept = _begin(options, store, out, resume)
    snapshot = kept["snapshot"]
    training, validation = load_store(store, "train", snapshot), _validation_part(store, snapshot, say)
    say(f"{len(training)} sequences to train on, {len(validation)} for validation; snapshot {snapshot}")

    settings = make_settings(options, PRESETS[options.preset], found.path, found.config, training)
    before = kept.get("before")
    if before is None:
        say("measuring the model as it is")
        before = measure(load_model(options.start, options.device), validation, options.limit)
        write_json(out / RUN, {**kept, "before": before})
    validate = (lambda model: _with_mean(measure(model, validation, options.limit))) if validation else None
    trainer = Trainer(settings, out, make_fabric(options.device, settings.precision), validate)
    trainer.resume()
    if not trainer.fit(training):
        return None
    weights = {name: value.half() for name, value in trainer.best_state().items()}
    temporary = out / f".{MODEL}"
    save_safetensors(weights, temporary, {"config": config_text(settings.model)})
    say("measuring the new model")
    after = measure(load_model(temporary, options.device), validation, options.limit)
    write_json(out / METRICS, {"before": before, "after": after})
    (out / CARD).write_text(_card(options, store, snapshot, settings, before, after), encoding="utf-8")
    os.replace(temporary, out / MODEL)  # last, so that where there is a model there is all of it
    return FinetuneResult(out / MODEL, before, after)


def make_settings(
    options: FinetuneOptions, preset: Preset, start: Path, config: str | None, sequences: list[Sequence]
) -> TrainSettings:
    """The settings of a run."""
    config = config or config_for(load_state_dict(start))
    size = int(load_config(config)["model"]["image_size"])
    lr = preset.lr if options.lr is None else options.lr
    moving = any(len(s) > 1 for s in sequences)
    phase = Phase(
        steps=options.steps,
        image_size=size,
        lr=lr,
        final_lr=lr / 20,
        images=options.images,
        clips=1,
        frames=3,
        objects=options.objects,
        clip_every=3 if moving and options.preset in ("full", "lora") else 0,
        corrections=1,
        whole_view=0.6,
        trunk_lr=preset.trunk_lr,
    )
    return TrainSettings(
        model=config,
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
        lora=preset.lora,
        optimizer=OptimizerSettings(warmup_steps=min(30, options.steps // 5), layer_decay=0.9),
        prompts=PromptSettings(box=0.4, mask=0.5, central=0.7),
        losses=LossWeights(focal=1.0, dice=1.0, iou=0.5, presence=0.5, stride=4, from_scratch=True),
    )


def measure(model: SAM2Base, sequences: list[Sequence], limit: int) -> Metrics:
    """Mean IoU after 1, 3 and 5 clicks and with a box, and mean Dice of propagation, where there is any."""
    if not sequences:
        return {}
    scores: Scores = defaultdict(lambda: defaultdict(list))
    score_images(model, image_tasks(sequences, limit), scores)
    tasks = propagation_tasks(sequences)
    score_propagation(model, tasks, scores)
    planes = {task.set: max(len(t.frames) for t in tasks if t.set == task.set) - 1 for task in tasks}
    (of_store,) = summarise(scores, {}, planes).values() or [{}]
    return {prompt: entry["score"] for prompt, entry in of_store.items()}


def _with_mean(metrics: Metrics) -> Metrics:
    return {METRIC: fmean(metrics.values()), **metrics}


def table(before: Metrics, after: Metrics) -> str:
    """The scores before and after, as Markdown."""
    titles = {**IMAGE_PROMPTS, "propagation": "propagation (Dice)"}
    rows = [
        f"| {title} | {before[key]:.3f} | {after[key]:.3f} | {after[key] - before[key]:+.3f} |"
        for key, title in titles.items()
        if key in before
    ]
    return "\n".join(["| prompt (mean IoU) | before | after | gain |", "|---|--:|--:|--:|", *rows])


def _begin(options: FinetuneOptions, store: LabelStore, out: Path, resume: bool) -> dict[str, Any]:
    """Make the output folder, or read that of the run to go on with; gives what is kept in run.json."""
    chosen = {key: str(value) if isinstance(value, Path) else value for key, value in asdict(options).items()}
    del chosen["out"], chosen["device"], chosen["snapshot"]
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
        kept = {"options": chosen, "snapshot": snapshot}
        write_json(out / RUN, kept)
    return kept


def _validation_part(store: LabelStore, snapshot: str, say: Callable[[str], None]) -> list[Sequence]:
    try:
        return load_store(store, "validation", snapshot)
    except InputError:
        say("there is nothing in the validation part, so what is gained will not be measured")
        return []


def _card(
    options: FinetuneOptions,
    store: LabelStore,
    snapshot: str,
    settings: TrainSettings,
    before: Metrics,
    after: Metrics,
) -> str:
    taken = read_snapshot(store.path, snapshot)
    parts = [entry.part for entry in taken.entries]
    shown = asdict(settings) | {"model": "the config in the file"}
    return "\n".join(
        [
            f"# {options.out.name}",
            "",
            f"{options.start}, fine-tuned with `sam2 finetune --preset {options.preset}` of napari-sam2 {__version__} "
            f"(torch {torch.__version__}) on {now():%Y-%m-%d}.",
            "",
            "## Data",
            "",
            f"Snapshot `{taken.name}` of {store.path}, digest `{taken.digest}`: {parts.count('train')} items to train "
            f"on, {parts.count('validation')} for validation.",
            "",
            "## Accuracy",
            "",
            table(before, after) if before else "Not measured: the validation part is empty.",
            "",
            "## Settings",
            "",
            "```yaml",
            yaml.safe_dump(shown, sort_keys=False).strip(),
            "```",
            "",
        ]
    )
