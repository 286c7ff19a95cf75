"""`sam2 models`: the checkpoints that have names, and files that may be one or get one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sam2_core.errors import InputError
from sam2_core.weights.download import download as fetch
from sam2_core.weights.download import existing, sha256_of
from sam2_core.weights.table import CHECKPOINTS, Checkpoint, cache_dir, find_checkpoint, own_checkpoints

HELP = """List, download, verify and add checkpoints.

\b
  sam2 models list
  sam2 models download sam2.1_hiera_tiny
  sam2 segment stack.tif --model sam2.1_hiera_tiny ...
  sam2 models add my-cells/model.safetensors --name my-cells

cells-nano comes with the package. A model that is used by name is downloaded when it is first needed, into the
folder that SAM2_CACHE_DIR names, or the platform's cache folder; SAM2_CHECKPOINT_URL names a mirror to take it from.
"""

app = typer.Typer(help=HELP, no_args_is_help=True, rich_markup_mode=None, add_completion=False)

Name = Annotated[str, typer.Argument(help="A name of 'sam2 models list', or a Hugging Face id.", metavar="NAME")]


@app.command("list")
def list_models() -> None:
    """List the checkpoints and what is here; your own come last."""
    rows = [("NAME", "SAM", "SIZE", "STATE", "LICENCE")]
    rows += [(c.name, c.version, _size(c), c.state, c.licence) for c in (*CHECKPOINTS, *own_checkpoints())]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = [cell.rjust(w) if i == 2 else cell.ljust(w) for i, (cell, w) in enumerate(zip(row, widths))]
        typer.echo("  ".join(cells).rstrip())
    typer.echo(f"\nDownloads are kept in {cache_dir()}", err=True)


@app.command()
def info(name: Name) -> None:
    """Show what is known about one checkpoint, and its model card."""
    checkpoint = find_checkpoint(name)
    here = checkpoint.path.is_file()
    digest = sha256_of(checkpoint.path) if checkpoint.sha256 is None and here else checkpoint.sha256
    fields = {
        "name": checkpoint.name,
        "also": ", ".join(checkpoint.aliases) or "-",
        "version": f"SAM {checkpoint.version}",
        "licence": checkpoint.licence,
        "config": checkpoint.config or "in the file",
        "size": _size(checkpoint),
        "bytes": checkpoint.size or "-",
        "sha256": digest or "-",
        "url": checkpoint.url or ("part of the package" if checkpoint.bundled else f"added from {checkpoint.source}"),
        "file": checkpoint.path,
        "state": checkpoint.state,
    }
    for key, value in fields.items():
        typer.echo(f"{key:<8} {value}")
    if checkpoint.card.is_file():
        typer.echo("\n" + checkpoint.card.read_text(encoding="utf-8", errors="replace").strip())


@app.command()
def download(
    names: Annotated[list[str], typer.Argument(help="Names of 'sam2 models list'.", metavar="NAME")],
) -> None:
    """Download checkpoints and print their paths.

    A download that broke off goes on where it stopped.
    """
    for checkpoint in [find_checkpoint(name) for name in names]:
        typer.echo(fetch(checkpoint))


@app.command()
def verify(
    path: Annotated[
        str, typer.Argument(help="A checkpoint file, or the name of one that is here.", metavar="PATH|NAME")
    ],
    config: Annotated[
        str | None, typer.Option(help="The model's config, when it is not one of the package's.", metavar="YAML")
    ] = None,
) -> None:
    """Check a checkpoint, its SHA-256 and its model.

    The SHA-256 is compared where the published one is known; the tensors must fit the model exactly.
    """
    file = Path(path).expanduser()
    named = None if file.is_file() else _named(path)
    if named is not None:
        file = existing(named)
    known = named or next((c for c in CHECKPOINTS if c.filename == file.name and c.sha256 is not None), None)
    digest = sha256_of(file) if file.is_file() else ""
    if named is not None and named.is_own and named.sha256 != digest:
        raise InputError(
            f"{file} is not as it was added: its SHA-256 is {digest}, not {named.sha256}; run sam2 models add "
            f"{named.source} --name {named.name} --force"
        )
    if known is not None and known.sha256 not in (None, digest):
        raise InputError(
            f"{file} is not the {known.name} that was published: its SHA-256 is {digest}, not {known.sha256}; delete "
            f"it and run sam2 models download {known.name}, or give the file another name if it is yours"
        )
    from sam2_core.build import build_model
    from sam2_core.configs import load_config
    from sam2_core.weights.checkpoints import check_state_dict, config_for, embedded_config, load_state_dict

    state = load_state_dict(file)
    chosen = config or (known and known.config) or embedded_config(file) or config_for(state)
    check_state_dict(build_model(load_config(chosen)), state)
    published = known is not None and known.sha256 is not None and not known.is_own
    origin = f"the published {known.name}" if known and published else f"SHA-256 {digest}"
    title = "the config in the file" if "\n" in chosen else chosen
    count = sum(tensor.numel() for tensor in state.values())
    typer.echo(f"{file}: {origin}; {len(state)} tensors, {count / 1e6:.1f} M numbers, fits {title}")


@app.command()
def add(
    file: Annotated[Path, typer.Argument(help="A .pt, .pth or .safetensors file.", metavar="FILE")],
    name: Annotated[str, typer.Option(help="What it is called from now on, as in --model NAME.")],
    config: Annotated[
        str | None, typer.Option(help="The model's config, when neither the file nor its shapes tell.", metavar="YAML")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a model of yours that has this name.")] = False,
) -> None:
    """Give a checkpoint of your own a name.

    It is checked and copied into the models' folder with its config, and with the model card model.md beside it.

    Example: sam2 models add my-cells/model.safetensors --name my-cells
    """
    from sam2_core.weights.own import add_model

    typer.echo(add_model(file, name, config, force).path)


@app.command()
def remove(name: Annotated[str, typer.Argument(help="A name that 'sam2 models add' gave.", metavar="NAME")]) -> None:
    """Delete a checkpoint of your own from the models' folder.

    The file that it was copied from stays.
    """
    from sam2_core.weights.own import remove_model

    typer.echo(f"removed {remove_model(name)}")


def _named(name: str) -> Checkpoint:
    if Path(name).suffix in (".pt", ".pth", ".safetensors"):
        raise InputError(f"there is no file {name}: give a checkpoint file that exists")
    return find_checkpoint(name)


def _size(checkpoint: Checkpoint) -> str:
    return "-" if checkpoint.size is None else f"{checkpoint.size / 1e6:.0f} MB"
