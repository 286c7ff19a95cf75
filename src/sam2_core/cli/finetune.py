"""`sam2 finetune`: train a model on a label store."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from sam2_core.errors import InputError, MissingDependencyError


class PresetName(StrEnum):
    """What is trained."""

    head = "head"
    decoder = "decoder"
    lora = "lora"
    full = "full"


def finetune(
    labels: Annotated[str, typer.Option(help="The label store, or one of its snapshots.", metavar="STORE[@SNAPSHOT]")],
    out: Annotated[Path, typer.Option(help="Folder for the model, its card and its logs.")],
    start: Annotated[str, typer.Option("--from", help="Model to start from: a name or a file.")] = "cells-nano",
    preset: Annotated[
        PresetName,
        typer.Option(
            help="head: output layers; decoder: decoder and prompts; lora: adapters of the encoder, too; full: all."
        ),
    ] = PresetName.decoder,
    steps: Annotated[int, typer.Option(min=1, help="Optimiser steps.")] = 300,
    images: Annotated[int, typer.Option(min=1, help="Images of a step.")] = 3,
    objects: Annotated[int, typer.Option(min=1, help="Most objects of an image.")] = 8,
    lr: Annotated[float | None, typer.Option(help="Highest learning rate; by default the preset's.")] = None,
    validation: Annotated[
        float, typer.Option(min=0, max=0.9, help="Part for validation of items that have no part yet.")
    ] = 0.2,
    limit: Annotated[int, typer.Option(min=1, help="Objects on which the model is measured, before and after.")] = 60,
    validate_every: Annotated[
        int, typer.Option(min=1, help="Steps between two measurements; the best weights are kept.")
    ] = 100,
    patience: Annotated[
        int, typer.Option(min=0, help="End after so many measurements without a better one; 0: never.")
    ] = 0,
    accumulate: Annotated[int, typer.Option(min=1, help="Batches a step adds up, where larger ones don't fit.")] = 1,
    seed: Annotated[int, typer.Option(help="Of the clips, the simulated prompts and their order.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in OUT.")] = False,
) -> None:
    """Train a model on what was labelled, and say what that gained.

    The model is measured on the validation part of the store before and after. Ctrl-C stops after the step, and
    --resume goes on. The result is OUT/model.safetensors, which --model takes everywhere.

    Example: sam2 finetune --labels lab --from cells-nano --preset decoder --out my-cells
    """
    try:
        from training.finetune import FinetuneOptions, table
        from training.finetune import finetune as run
    except ModuleNotFoundError as error:
        raise MissingDependencyError(error.name or "training", "train", "fine-tune a model") from None

    store, _, snapshot = labels.partition("@")
    if not store:
        raise InputError("--labels names no store: give STORE or STORE@SNAPSHOT")
    options = FinetuneOptions(
        labels=Path(store),
        snapshot=snapshot or None,
        out=out,
        start=start,
        preset=preset.value,
        steps=steps,
        images=images,
        objects=objects,
        lr=lr,
        validation=validation,
        limit=limit,
        validate_every=validate_every,
        patience=patience,
        accumulate=accumulate,
        seed=seed,
        device=device,
    )
    result = run(options, resume=resume, say=lambda text: typer.echo(text, err=True))
    if result is None:
        typer.echo(f"stopped; go on with the same command and --resume ({out})")
        return
    if result.before:
        typer.echo(table(result.before, result.after))
    typer.echo(f"wrote {result.model}: use it with --model {result.model}")
