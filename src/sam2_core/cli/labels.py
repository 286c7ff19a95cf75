"""`sam2 labels`: the label store, which gathers what was labelled and gives it to training."""

from __future__ import annotations

import getpass
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from sam2_core.errors import InputError

HELP = """Gather labelled images in a label store, and look after it.

\b
  sam2 labels add --store lab --image stack.ome.zarr --labels stack-labels.zarr --group plate1
  sam2 labels list lab
  sam2 labels check lab
  sam2 labels split lab --validation 0.2
  sam2 labels snapshot lab --name before-review

A store is a folder, on this machine or a shared disk; any number of people and programs may write into it at once.
An item is an image with its labels. Adding an image again makes a new version of its item; old versions stay.
"""

app = typer.Typer(help=HELP, no_args_is_help=True, rich_markup_mode=None, add_completion=False)

Store = Annotated[Path, typer.Argument(help="Folder of the store.", metavar="STORE")]
Item = Annotated[str, typer.Argument(help="Name of an item, as 'sam2 labels list' shows it.", metavar="ITEM")]


@app.command()
def add(
    store: Annotated[Path, typer.Option(help="Folder of the store; made if it is not there.")],
    image: Annotated[Path, typer.Option(help="Image or volume, any format that 'sam2 info' opens.")],
    labels: Annotated[Path, typer.Option(help="Label image of the same size: 0 background, each object its number.")],
    axes: Annotated[str | None, typer.Option(help="Axes of the image where the file does not say: zyx, tyx, …")] = None,
    label_axes: Annotated[
        str | None, typer.Option(help="Axes of the labels; by default the image's without c.")
    ] = None,
    level: Annotated[int, typer.Option(help="Level of a multiscale image that was labelled, 0 the finest.")] = 0,
    channel: Annotated[int | None, typer.Option(help="Channel that was labelled.")] = None,
    group: Annotated[
        str | None, typer.Option(help="Patient, plate or movie: what must not be split into training and validation.")
    ] = None,
    item: Annotated[str | None, typer.Option(help="Name of the item; by default from the image.")] = None,
    partial: Annotated[
        bool, typer.Option("--partial", help="Not everything is labelled: what is not is unknown, no background.")
    ] = False,
    copy: Annotated[
        bool, typer.Option("--copy", help="Copy the image into the store instead of referring to it.")
    ] = False,
    class_name: Annotated[
        str | None, typer.Option("--class", help="What all objects are, for example nucleus.")
    ] = None,
    author: Annotated[str | None, typer.Option(help="Who made the labels; by default your user name.")] = None,
) -> None:
    """Add a labelled image.

    Example: sam2 labels add --store lab --image stack.tif --labels stack-labels.tif --axes zyx --group plate1
    """
    from tqdm import tqdm

    from sam2_core.labelstore import LabelStore, Provenance
    from sam2_core.labelstore.coverage import PlaneState
    from sam2_core.volume.open import open_volume

    open_volume(image, axes=axes, level=level)  # say what is wrong with the input before a store is made
    if not labels.expanduser().exists():
        raise InputError(f"{labels} does not exist: give a label image")
    with tqdm(unit="plane", desc="adding", disable=None, leave=False) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        added = LabelStore.create(store).add(
            image,
            labels,
            item=item,
            axes=axes,
            label_axes=label_axes,
            level=level,
            channel=channel,
            coverage=PlaneState.partial if partial else PlaneState.complete,
            group=group,
            provenance=Provenance(author=author or _user(), status="imported", source=str(labels)),
            copy_image=copy,
            progress=progress,
        )
    typer.echo(f"{added.item} version {added.version}: {added.record.coverage.summary()}")


@app.command("list")
def list_items(store: Store) -> None:
    """List the items, one a line."""
    from sam2_core.labelstore import LabelStore

    opened = LabelStore(store)
    parts = opened.parts()
    rows = [("ITEM", "VERSION", "AXES", "SHAPE", "PLANES", "PART", "GROUP", "BY")]
    for version in opened.items():
        r = version.record
        rows.append(
            (
                version.item,
                str(version.version),
                r.axes,
                "x".join(map(str, r.shape)),
                r.coverage.summary(),
                parts.get(version.item, "-"),
                r.group or "-",
                r.provenance.author or "-",
            )
        )
    _table(rows)


@app.command()
def show(
    store: Store,
    item: Item,
    version: Annotated[int | None, typer.Option(help="A version; by default the newest.")] = None,
) -> None:
    """Show all that is known about an item."""
    from sam2_core.labelstore import LabelStore

    opened = LabelStore(store)
    shown = opened.get(item, version)
    r, p = shown.record, shown.record.provenance
    ids = shown.open_labels().ids()
    classes = sorted({thing.class_name for thing in r.objects.values() if thing.class_name})
    fields = {
        "item": shown.item,
        "version": f"{shown.version} of {len(opened.versions(item))}",
        "created": r.created.isoformat(),
        "image": shown.image_path,
        "sha256": r.image.sha256,
        "labels": shown.folder / "labels.zarr",
        "axes": r.axes,
        "shape": " x ".join(map(str, r.shape)),
        "objects": ids.size,
        "classes": ", ".join(classes) or "-",
        "planes": r.coverage.summary(),
        "group": r.group or "-",
        "part": opened.parts().get(item, "-"),
        "author": p.author or "-",
        "tool": " ".join(filter(None, (p.tool, p.tool_version))),
        "status": p.status,
        "model": p.model or "-",
        "source": p.source or "-",
    }
    for key, value in fields.items():
        typer.echo(f"{key:<8} {value}")


@app.command()
def split(
    store: Store,
    validation: Annotated[float, typer.Option(help="Part of the items for validation.", min=0, max=1)] = 0.15,
    test: Annotated[float, typer.Option(help="Part of the items for testing.", min=0, max=1)] = 0.0,
) -> None:
    """Give each item a part: train, validation or test.

    Items of one group always lie in the same part, and items that have a part keep it.
    """
    from collections import Counter

    from sam2_core.labelstore import LabelStore

    parts = LabelStore(store).split(validation, test)
    counts = Counter(parts.values())
    typer.echo(", ".join(f"{part} {counts[part]}" for part in ("train", "validation", "test")))


@app.command()
def snapshot(
    store: Store,
    name: Annotated[str | None, typer.Option(help="Take one of this name; without, list those there are.")] = None,
) -> None:
    """Keep the list of the newest versions under a name, for good."""
    from sam2_core.labelstore import LabelStore
    from sam2_core.labelstore.snapshots import read_snapshot

    opened = LabelStore(store)
    if name is not None:
        taken = opened.snapshot(name)
        typer.echo(f"{taken.name}: {len(taken.entries)} items, digest {taken.digest}")
        return
    rows = [("NAME", "CREATED", "ITEMS", "DIGEST")]
    for each in (read_snapshot(opened.path, n) for n in opened.snapshots()):
        rows.append((each.name, each.created.isoformat(), str(len(each.entries)), each.digest[:12]))
    _table(rows)


@app.command()
def check(
    store: Store,
    quick: Annotated[bool, typer.Option("--quick", help="Do not compare checksums, which reads every image.")] = False,
) -> None:
    """Look for empty or shifted labels, wrong sizes, objects in pieces, duplicates.

    Exit code 1 if something was found.
    """
    from tqdm import tqdm

    from sam2_core.labelstore import LabelStore, check_store

    opened = LabelStore(store)
    items = tqdm(opened.items(), unit="item", desc="checking", disable=None)
    problems = check_store(opened, checksums=not quick, items=items)
    if not problems:
        typer.echo(f"{len(items)} item{'s' if len(items) != 1 else ''}, nothing found")
        return
    _table([("ITEM", "PROBLEM", "DETAIL"), *((p.item or "-", p.kind, p.detail) for p in problems)])
    raise typer.Exit(1)


def _table(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        typer.echo("  ".join(cell.ljust(w) for cell, w in zip(row, widths)).rstrip())


def _user() -> str | None:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # no name for this user id, as in some containers
        return None
