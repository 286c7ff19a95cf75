"""`sam2 finetune`: train a model on a label store."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from sam2_core.cli.training_extra import import_training
from sam2_core.errors import InputError


class PresetName(StrEnum):
    """What is trained."""

    head = "head"
    decoder = "decoder"
    lora = "lora"
    full = "full"


class StrategyChoice(StrEnum):
    """How several devices share the work."""

    auto = "auto"
    ddp = "ddp"
    fsdp = "fsdp"


def finetune(
    labels: Annotated[str, typer.Option(help="The label store, or one of its snapshots.", metavar="STORE[@SNAPSHOT]")],
    out: Annotated[Path, typer.Option(help="Folder for the model, its card and its logs.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE", help="Changes to any setting, as optimizer.weight_decay=0.1."),
    ] = None,
    start: Annotated[str, typer.Option("--from", help="Model to start from: a name or a file.")] = "cells-nano",
    preset: Annotated[
        PresetName,
        typer.Option(
            help="head: output layers; decoder: decoder and prompts; lora: adapters of the encoder, too; full: all."
        ),
    ] = PresetName.decoder,
    steps: Annotated[int, typer.Option(min=1, help="Optimiser steps.")] = 300,
    images: Annotated[int, typer.Option(min=1, help="Images of a step, on each device.")] = 3,
    objects: Annotated[int, typer.Option(min=1, help="Most objects of an image.")] = 8,
    frames: Annotated[int, typer.Option(min=2, help="Frames of a clip.")] = 3,
    lr: Annotated[float | None, typer.Option(help="Highest learning rate; by default the preset's.")] = None,
    validation: Annotated[
        float, typer.Option(min=0, max=0.9, help="Part for validation of items that have no part yet.")
    ] = 0.2,
    limit: Annotated[int, typer.Option(min=1, help="Objects on which the model is measured.")] = 60,
    automatic: Annotated[
        int, typer.Option(min=0, help="Images for automatic masks, before and after, where labels are complete.")
    ] = 3,
    validate_every: Annotated[
        int, typer.Option(min=0, help="Steps between two measurements; the best weights are kept. 0: never.")
    ] = 100,
    patience: Annotated[
        int, typer.Option(min=0, help="End after so many measurements without a better one; 0: never.")
    ] = 0,
    accumulate: Annotated[int, typer.Option(min=1, help="Batches a step adds up, where larger ones don't fit.")] = 1,
    checkpoint_activations: Annotated[
        bool, typer.Option("--checkpoint-activations", help="Less memory for the image encoder, and more time.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Of the clips, the simulated prompts and their order.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    workers: Annotated[int, typer.Option(min=0, help="Processes that prepare images, for each device.")] = 1,
    devices: Annotated[int, typer.Option(min=1, help="Devices, one process on each.")] = 1,
    strategy: Annotated[
        StrategyChoice, typer.Option(help="Of several devices. ddp (auto): each has the model; fsdp: a part of it.")
    ] = StrategyChoice.auto,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in OUT.")] = False,
) -> None:
    """Train a model on what was labelled, and say what that gained.

    The model is measured before and after: on the test part of the store, or without one on the validation part.
    Ctrl-C stops after the step, and --resume goes on. The result is OUT/model.safetensors, which --model takes
    everywhere.

    Example: sam2 finetune --labels lab --from cells-nano --preset decoder --out my-cells optimizer.weight_decay=0.05
    """
    card, tuning = (import_training(module, "fine-tune a model") for module in ("card", "finetune"))
    store, _, snapshot = labels.partition("@")
    if not store:
        raise InputError("--labels names no store: give STORE or STORE@SNAPSHOT")
    options = tuning.FinetuneOptions(
        labels=Path(store),
        snapshot=snapshot or None,
        out=out,
        start=start,
        preset=preset.value,
        steps=steps,
        images=images,
        frames=frames,
        objects=objects,
        lr=lr,
        validation=validation,
        limit=limit,
        automatic=automatic,
        validate_every=validate_every,
        patience=patience,
        accumulate=accumulate,
        checkpoint_activations=checkpoint_activations,
        seed=seed,
        device=device,
        workers=workers,
        devices=devices,
        strategy=strategy.value,
        overrides=overrides or [],
    )
    result = tuning.finetune(options, resume=resume, say=lambda text: typer.echo(text, err=True))
    if result is None:
        typer.echo(f"stopped; go on with the same command and --resume ({out})")
        return
    typer.echo(card.table(result.gain))
    typer.echo(f"wrote {result.model}: use it with --model {result.model}")
