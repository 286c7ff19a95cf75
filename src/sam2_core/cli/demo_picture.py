"""The demo's pictures: each tracked object's outline, number and path over the image, as a PNG and as a GIF."""

from __future__ import annotations

import colorsys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Point = tuple[float, float]

INK, PAPER, QUIET = "#f2f2f2", "#14161a", "#9aa3ad"
HEADER, MARGIN = 0.32, 0.1  # inches
GAMMA, BLACK = 0.7, 0.16  # dim nuclei beside bright ones, on a dark ground


def draw_picture(
    path: Path, image: np.ndarray, labels: np.ndarray, title: str, pixel_size: float, shown: int = 4
) -> None:
    """Draw a few frames, evenly spread, as a PNG.

    Parameters
    ----------
    path : Path
    image : ndarray, (frames, height, width) float in [0, 1]
    labels : ndarray, (frames, height, width) integer
        Objects, numbered alike on all frames.
    title : str
    pixel_size : float
        In micrometres.
    shown : int
        Number of frames.
    """
    frames = np.unique(np.linspace(0, len(image) - 1, shown).round().astype(int))
    columns = min(2, len(frames))
    rows = -(-len(frames) // columns)
    width = 7.6
    height = width * image.shape[1] / image.shape[2]
    figure = _figure(columns * (width + MARGIN) + MARGIN, rows * (height + HEADER) + 2.2 * HEADER)
    _write(figure, MARGIN, 1.1 * HEADER, title, size=17, weight="bold")
    _scale_bar(figure, columns * (width + MARGIN), 1.1 * HEADER, width / image.shape[2], pixel_size)
    tracks = centres(labels)
    for n, frame in enumerate(frames):
        left = MARGIN + n % columns * (width + MARGIN)
        top = 2.1 * HEADER + n // columns * (height + HEADER)
        _write(figure, left, top + HEADER / 2, f"frame {frame}", size=12, color=QUIET)
        draw_frame(_panel(figure, left, top + HEADER, width, height), image, labels, int(frame), tracks, numbers=True)
    # 256 colours are enough for grey and outlines, at a third of the size
    _render(figure, dpi=130).quantize(256, dither=0).save(path, format="PNG", optimize=True)


def draw_movie(
    path: Path, image: np.ndarray, labels: np.ndarray, pixel_size: float, seconds_per_frame: float = 0.5
) -> None:
    """Draw all frames as a GIF that repeats; arrays as in `draw_picture`."""
    width = 8.0
    height = width * image.shape[1] / image.shape[2]
    tracks = centres(labels)
    pictures = []
    for frame in range(len(image)):
        figure = _figure(width, height + HEADER)
        _write(figure, MARGIN, HEADER / 2, f"frame {frame}", size=12)
        _scale_bar(figure, width - MARGIN, HEADER / 2, width / image.shape[2], pixel_size)
        draw_frame(_panel(figure, 0, HEADER, width, height), image, labels, frame, tracks, numbers=False)
        pictures.append(_render(figure, dpi=100).quantize(160, dither=0))
    durations = [round(seconds_per_frame * 1000)] * len(pictures)
    durations[-1] *= 3
    pictures[0].save(path, format="GIF", save_all=True, append_images=pictures[1:], duration=durations, loop=0)


def draw_frame(
    axes: Axes, image: np.ndarray, labels: np.ndarray, frame: int, tracks: dict[int, dict[int, Point]], numbers: bool
) -> None:
    """Draw one frame, its outlines, and the paths that led there.

    Parameters
    ----------
    axes : Axes
    image, labels : ndarray
        As in `draw_picture`.
    frame : int
    tracks : dict of dict
        As `centres` gives them.
    numbers : bool
        Write each object's number on it.
    """
    from matplotlib.collections import LineCollection
    from matplotlib.patheffects import withStroke

    axes.imshow(image[frame] ** GAMMA, cmap="gray", vmin=BLACK, vmax=1.1, interpolation="bicubic")
    here = {object_id: path for object_id, path in tracks.items() if frame in path}
    outlines = [(line, colour_of(i)) for i in here for line in _outlines(labels[frame] == i)]
    axes.add_collection(LineCollection([o for o, _ in outlines], colors=[c for _, c in outlines], linewidths=1.5))
    # no line over frames on which the object was not seen
    steps = {i: [(p[f - 1], p[f]) for f in sorted(p) if f <= frame and f - 1 in p] for i, p in here.items()}
    colours = [(*colour_of(i), 0.75) for i, lines in steps.items() for _ in lines]
    trails = [line for lines in steps.values() for line in lines]
    axes.add_collection(LineCollection(trails, colors=colours, linewidths=1.0, capstyle="round"))
    for object_id, path in here.items() if numbers else ():
        outline = [withStroke(linewidth=1.4, foreground="black")]
        centred: dict[str, Any] = {"ha": "center", "va": "center", "clip_on": True, "path_effects": outline}
        axes.text(*path[frame], str(object_id), color="white", size=6.5, **centred)
    axes.set(xlim=(-0.5, image.shape[2] - 0.5), ylim=(image.shape[1] - 0.5, -0.5))
    axes.set_axis_off()


def centres(labels: np.ndarray) -> dict[int, dict[int, Point]]:
    """Centre (x, y) of each object on each frame that it is on: by object, then by frame."""
    from skimage.measure import regionprops

    found: dict[int, dict[int, Point]] = {}
    for frame, plane in enumerate(labels):
        for region in regionprops(plane.astype(np.int64)):
            y, x = region.centroid
            found.setdefault(int(region.label), {})[frame] = (x, y)
    return found


def colour_of(object_id: int) -> tuple[float, float, float]:
    """Red, green and blue in [0, 1]; neighbouring numbers differ most."""
    hue = (object_id * 0.61803398875) % 1.0
    lightness = (0.66, 0.76, 0.6)[object_id % 3]
    return colorsys.hls_to_rgb(hue, lightness, 0.95)


def _outlines(mask: np.ndarray) -> list[np.ndarray]:
    """Outlines of a mask as lists of (x, y), between its pixels and those around, the image's edge included."""
    from skimage.measure import find_contours

    return [line[:, ::-1] - 1 for line in find_contours(np.pad(mask, 1).astype(np.float32), 0.5)]


def _figure(width: float, height: float) -> Figure:
    """An empty figure, in inches, that needs no display and no pyplot."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), facecolor=PAPER)
    FigureCanvasAgg(figure)
    return figure


def _panel(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Axes at a place in inches from the upper left corner."""
    whole = figure.get_figwidth(), figure.get_figheight()
    return figure.add_axes((left / whole[0], 1 - (top + height) / whole[1], width / whole[0], height / whole[1]))


def _write(figure: Figure, x: float, y: float, text: str, color: str = INK, **style: Any) -> None:
    """Text, centred upon `y`, at a place in inches from the upper left corner."""
    place = x / figure.get_figwidth(), 1 - y / figure.get_figheight()
    figure.text(*place, text, color=color, va="center", **style)


def _scale_bar(figure: Figure, right: float, y: float, inches_per_pixel: float, pixel_size: float) -> None:
    """A bar of 50 micrometres that ends at `right`, with its length beside it."""
    length, thickness = 50 / pixel_size * inches_per_pixel, 0.05
    bar = _panel(figure, right - length, y - thickness / 2, length, thickness)
    bar.set(facecolor=INK, xticks=[], yticks=[])
    _write(figure, right - length - 0.08, y, "50 µm", size=11, ha="right")


def _render(figure: Figure, dpi: int) -> Any:
    """The figure as a PIL image."""
    from PIL import Image

    figure.set_dpi(dpi)
    canvas: Any = figure.canvas
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy())
