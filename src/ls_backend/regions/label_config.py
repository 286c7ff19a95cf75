"""The labeling setup of a project: which images and videos it shows, and which controls draw on them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal
from xml.etree import ElementTree

from ls_backend.errors import RequestError

DEFAULT_FRAMERATE = 24.0
"""Frames a second of a <Video> tag that does not say."""

MAX_LENGTH = 2**19
"""Most characters of a labeling setup, enough for thousands of labels."""

# the controls that can hold an answer, best first: exact ones before those that lose something
_MASKS = tuple(kind + suffix for kind in ("bitmask", "brush", "polygon", "rectangle") for suffix in ("labels", ""))
_ANSWERS = {"image": _MASKS, "stack": _MASKS, "video": ("videorectangle",)}
_ADVICE = '<BrushLabels name="brush" toName="{0}">, with a <Label> for each label'
_VIDEO_ADVICE = '<VideoRectangle name="box" toName="{0}"/>, and a <Labels toName="{0}"> with a <Label> for each label'


@dataclass(frozen=True)
class ObjectTag:
    """A tag that shows something.

    Attributes
    ----------
    name : str
    kind : {"image", "stack", "video"}
        A stack is an <Image> with a list of images.
    key : str
        Where a task's data has the address, or the addresses.
    framerate : float
        Of a video: by it Label Studio numbers the frames, from 1, at the times number / framerate.
    framerate_key : str, optional
        Where a task's data has the frame rate, if the setup says so.
    """

    name: str
    kind: Literal["image", "stack", "video"]
    key: str
    framerate: float = DEFAULT_FRAMERATE
    framerate_key: str | None = None


@dataclass(frozen=True)
class ControlTag:
    """A tag with which something is drawn or chosen.

    Attributes
    ----------
    name : str
    kind : str
        The tag in lower case, such as "brushlabels", "brush" or "videorectangle".
    to_name : str
        Name of the object tag.
    labels : tuple of str
        What it can label, of a <Labels> control beside it too; empty for anything, when tasks bring their own labels.
    labels_from : str, optional
        Name of the <Labels> control that its labels are from, if they are not its own.
    """

    name: str
    kind: str
    to_name: str
    labels: tuple[str, ...] = ()
    labels_from: str | None = None


@dataclass(frozen=True)
class LabelConfig:
    """A labeling setup.

    Attributes
    ----------
    objects : tuple of ObjectTag
    controls : tuple of ControlTag
    """

    objects: tuple[ObjectTag, ...]
    controls: tuple[ControlTag, ...]

    def object(self, name: str) -> ObjectTag:
        """The object tag of a name.

        Raises
        ------
        RequestError
            There is none.
        """
        for tag in self.objects:
            if tag.name == name:
                return tag
        raise RequestError(f"the labeling setup has no <Image> or <Video> with the name {name}")

    def answer(self, tag: ObjectTag, label: str | None) -> ControlTag:
        """The control for answers: of those on `tag` that have the label, the one that keeps most of a mask.

        Bitmasks and brush strokes keep all of it, polygons its outline, rectangles its extent.

        Raises
        ------
        RequestError
            There is none; the sentence says what to add to the setup.
        """
        kinds = _ANSWERS[tag.kind]
        usable = sorted(
            (c for c in self.controls if c.to_name == tag.name and c.kind in kinds), key=lambda c: kinds.index(c.kind)
        )
        if not usable:
            advice = (_VIDEO_ADVICE if tag.kind == "video" else _ADVICE).format(tag.name)
            raise RequestError(f"the labeling setup has no control for masks on {tag.name}: add {advice}")
        for control in usable:
            if label is None or not control.labels or label in control.labels:
                return control
        holder = usable[0].labels_from or usable[0].name
        raise RequestError(
            f'no control for masks on {tag.name} has the label {label}: add <Label value="{label}"/> to {holder}'
        )


@lru_cache(maxsize=64)
def parse_label_config(xml: str) -> LabelConfig:
    """Read the labeling setup of a project.

    Raises
    ------
    RequestError
        It is no XML, too long, has a DOCTYPE, or shows neither images nor a video.
    """
    if len(xml) > MAX_LENGTH:
        raise RequestError(f"the labeling setup is longer than the {MAX_LENGTH} characters that are read: shorten it")
    parser = ElementTree.XMLParser(target=_Builder())
    try:
        parser.feed(xml)
        root = parser.close()
    except (ElementTree.ParseError, ValueError) as error:
        if isinstance(error, RequestError):
            raise
        raise RequestError(f"the labeling setup is not well-formed XML ({error})") from None
    tags = list(_tags(root))
    objects = tuple(_objects(tags))
    if not objects:
        raise RequestError("the labeling setup shows nothing to segment: it needs an <Image> or a <Video>")
    return LabelConfig(objects, _controls(tags, objects))


@dataclass(frozen=True)
class _Tag:
    """A tag, with the labels for which no tag within it has a name of its own."""

    kind: str
    has: dict[str, str]
    labels: list[str]


class _Builder(ElementTree.TreeBuilder):
    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        # only there could entities be declared, which may grow without bounds or point to files
        raise RequestError("the labeling setup has a DOCTYPE: remove it")


def _tags(root: ElementTree.Element) -> Iterator[_Tag]:
    """All tags in the order of the setup, in time that grows with its length alone, however they are nested."""
    waiting: list[tuple[ElementTree.Element, list[str]]] = [(root, [])]
    while waiting:
        element, labels = waiting.pop()
        if not isinstance(element.tag, str):
            continue
        kind = element.tag.lower()
        has = {name.lower(): value.strip() for name, value in element.attrib.items()}
        if kind == "label" and (label := has.get("alias") or has.get("value")):
            labels.append(label)
        own = [] if has.get("name") else labels
        yield _Tag(kind, has, own)
        waiting += [(child, own) for child in reversed(element)]


def _objects(tags: list[_Tag]) -> Iterator[ObjectTag]:
    for tag in tags:
        kind, has, name = tag.kind, tag.has, tag.has.get("name")
        values = has.get("valuelist") if kind == "image" else None
        value = values or has.get("value")
        if name and value and kind in ("image", "video"):
            shown: Literal["image", "stack", "video"] = "video" if kind == "video" else "stack" if values else "image"
            rate = has.get("framerate", "")
            key = rate[1:] if rate.startswith("$") else None
            yield ObjectTag(name, shown, value.removeprefix("$"), _framerate(rate), key)


def _framerate(text: str) -> float:
    """Frames per second, as Label Studio understands it: what is below 1 is the time of a frame."""
    try:
        rate = float(text)
    except ValueError:
        return DEFAULT_FRAMERATE
    if not math.isfinite(rate) or rate <= 0:
        return DEFAULT_FRAMERATE
    return 1 / rate if rate < 1 else rate


def _controls(tags: list[_Tag], objects: tuple[ObjectTag, ...]) -> tuple[ControlTag, ...]:
    names = {tag.name for tag in objects}
    only = objects[0].name if len(objects) == 1 else None
    found = []
    for tag in tags:
        has, name = tag.has, tag.has.get("name")
        to_name = has.get("toname", only or "").partition(",")[0].strip()
        if name and name not in names and to_name:
            found.append(ControlTag(name, tag.kind, to_name, tuple(tag.labels)))
    beside: dict[str, ControlTag] = {}
    for control in found:
        if control.kind == "labels":
            beside.setdefault(control.to_name, control)
    return tuple(_with_labels(control, beside.get(control.to_name)) for control in found)


def _with_labels(control: ControlTag, beside: ControlTag | None) -> ControlTag:
    """The control with the labels of the <Labels> beside it, if it draws without labels of its own."""
    if beside is None or control.kind.endswith("labels"):
        return control
    return replace(control, labels=beside.labels, labels_from=beside.name)
