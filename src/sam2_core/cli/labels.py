"""`sam2 labels`: the label store, which gathers what was labelled and gives it to training."""

from __future__ import annotations

import getpass
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from sam2_core.cli.label_studio import from_label_studio, to_label_studio
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

\b
Volumes labelled in browsers, with Label Studio and 'sam2 serve':
  sam2 labels to-label-studio stack.ome.zarr --create "my stack" --label nucleus
  sam2 labels from-label-studio --project 7 --out stack-labels.zarr --store lab
"""


class Import(StrEnum):
    """Collections that can be read."""

    pairs = "pairs"
    davis = "davis"
    ctc = "ctc"
    coco = "coco"
    sa1b = "sa1b"
    sav = "sav"
    label_studio = "label-studio"


class Export(StrEnum):
    """Collections that can be written."""

    pairs = "pairs"
    davis = "davis"
    coco = "coco"


class Part(StrEnum):
    """Parts of a store."""

    train = "train"
    validation = "validation"
    test = "test"


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


@app.command("import")
def import_items(
    store: Annotated[Path, typer.Option(help="Folder of the store; made if it is not there.")],
    source: Annotated[Path, typer.Argument(help="The collection: its folder or its JSON file.", metavar="SOURCE")],
    kind: Annotated[Import, typer.Option("--from", help="What the collection is.")],
    images: Annotated[Path | None, typer.Option(help="Folder of the images, if not that of the labels.")] = None,
    partial: Annotated[
        bool, typer.Option("--partial", help="Not everything is labelled: what is not is unknown, no background.")
    ] = False,
    group: Annotated[str | None, typer.Option(help="Group of all items that come in.")] = None,
    copy: Annotated[bool, typer.Option("--copy", help="Copy the images instead of referring to them.")] = False,
    author: Annotated[str | None, typer.Option(help="Who made the labels.")] = None,
) -> None:
    """Add all labelled images of another collection.

    What is in the store already, unchanged, is passed over, so an import that broke off can be run again.

    \b
      pairs         SOURCE/NAME.png and the image of that name in --images
      davis         JPEGImages/ and Annotations/, MOSE too
      ctc           01/ and 01_GT/ or 01_ST/
      coco          instances.json
      sa1b          sa_*.jpg and sa_*.json
      sav           sav_*.mp4 and sav_*_manual.json
      label-studio  JSON export: brush, bitmask, polygon, rectangle
    """
    from tqdm import tqdm

    from sam2_core.labelstore import LabelStore, Provenance
    from sam2_core.labelstore.coverage import PlaneState
    from sam2_core.labelstore.formats import reader

    source = source.expanduser()
    if not source.exists():
        raise InputError(f"{source} does not exist")
    opened: LabelStore | None = None
    count = 0
    for item in tqdm(reader(kind.value)(source, images), unit="item", desc="importing", disable=None, leave=False):
        opened = opened or LabelStore.create(store)
        opened.add(
            item.image,
            item.labels,
            item=item.item,
            axes=item.axes,
            coverage=PlaneState.partial if partial and item.coverage == PlaneState.complete else item.coverage,
            objects=item.objects,
            group=group or item.group,
            provenance=Provenance(author=author, status="imported", source=f"{kind.value}: {source}"),
            copy_image=copy,
            if_changed=True,
        )
        count += 1
    if not count:
        raise InputError(f"{source} holds no labelled images")
    typer.echo(f"{count} item{'s' if count != 1 else ''} of {source}")


@app.command("export")
def export_items(
    store: Store,
    to: Annotated[Export, typer.Option(help="What to write.")],
    out: Annotated[Path, typer.Option(help="Folder to write; new, or empty.")],
    snapshot: Annotated[str | None, typer.Option(help="Items of a snapshot; by default the newest of each.")] = None,
    item: Annotated[list[str] | None, typer.Option(help="These items alone; may be given several times.")] = None,
) -> None:
    """Write items as another kind of collection.

    \b
      pairs  images/ITEM.* and labels/ITEM.tif
      davis  JPEGImages/ and Annotations/, one video an item
      coco   ITEM.json and its planes as ITEM/*.png
    """
    from tqdm import tqdm

    from sam2_core.labelstore import LabelStore
    from sam2_core.labelstore.formats import writer
    from sam2_core.volume.files import replacing

    opened = LabelStore(store)
    versions = opened.items() if snapshot is None else [v for v, _ in opened.open_snapshot(snapshot)]
    if item:
        known = {v.item: v for v in versions}
        if missing := [name for name in item if name not in known]:
            raise InputError(f"{store} has no item {missing[0]}: sam2 labels list shows what there is")
        versions = [known[name] for name in item]
    if not versions:
        raise InputError(f"{store} holds no items: there is nothing to export")
    out = out.expanduser()
    if out.is_dir() and not any(out.iterdir()):
        out.rmdir()
    with replacing(out) as partial:
        partial.mkdir()
        for version in tqdm(versions, unit="item", desc="exporting", disable=None, leave=False):
            writer(to.value)(version, partial)
    typer.echo(f"{len(versions)} item{'s' if len(versions) != 1 else ''} in {out}")


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
    validation: Annotated[
        float | None, typer.Option(help="Part of the items for validation; 0.15 by default.", min=0, max=1)
    ] = None,
    test: Annotated[
        float | None, typer.Option(help="Part of the items for testing; none by default.", min=0, max=1)
    ] = None,
    into: Annotated[Part | None, typer.Option(help="Put the named items and groups into this part, no others.")] = None,
    item: Annotated[list[str] | None, typer.Option(help="Item for --into; may be given several times.")] = None,
    group: Annotated[list[str] | None, typer.Option(help="Group for --into; may be given several times.")] = None,
) -> None:
    """Give each item a part: train, validation or test.

    Items of one group always lie in the same part, and items that have a part keep it. With --into, items and groups
    are put where you say, and stay there.

    Example: sam2 labels split lab --into test --item stack-4f0c11d2 --group plate7
    """
    from collections import Counter

    from sam2_core.labelstore import LabelStore

    opened = LabelStore(store)
    if into is None:
        if item or group:
            raise InputError("say where to put the items: give --into train, validation or test")
        opened.split(0.15 if validation is None else validation, test or 0.0)
    else:
        if validation is not None or test is not None:
            raise InputError("--into puts items by their names: give no fractions with it")
        if not item and not group:
            raise InputError(f"say what to put into {into.value}: give --item or --group")
        placed = opened.place(into.value, item or (), group or ())
        sizes = Counter(v.record.group for v in placed)
        for name in dict.fromkeys(v.record.group for v in placed if v.item in (item or ())):
            if name is not None and name not in (group or ()) and sizes[name] > 1:
                typer.echo(f"the group {name} stays together: its {sizes[name]} items are all put there", err=True)
    counts = Counter(opened.parts().values())
    typer.echo(", ".join(f"{part.value} {counts[part.value]}" for part in Part))


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


app.command("to-label-studio")(to_label_studio)
app.command("from-label-studio")(from_label_studio)


def _table(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        typer.echo("  ".join(cell.ljust(w) for cell, w in zip(row, widths)).rstrip())


def _user() -> str | None:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # no name for this user id, as in some containers
        return None
