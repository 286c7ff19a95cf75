"""Folders in the layout of DAVIS and MOSE, SA-V and SA-1B as sequences, whose frames and masks are read when a clip
asks for them. The options are those of Meta's training configs: `img_folder`, `gt_folder`, and lists of names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from sam2_core.errors import InputError
from sam2_core.labelstore.formats import davis, sav
from sam2_core.labelstore.formats.incoming import image_files
from sam2_core.predict.image_frames import image_size
from sam2_core.predict.video_frames import VideoFrames
from training.dataset.labelled_sets import Sequence
from training.dataset.planes import ClipLabels, ImagePlanes, MaskLabels, MaskletLabels, Planes, VideoPlanes

_SA1B_LICENCE = "SA-1B Dataset Research License"
_SUFFIXES = (".jpg", ".jpeg", ".png", ".mp4", ".json")


def load_davis(
    folder: Path | str | None = None,
    *,
    img_folder: Path | str | None = None,
    gt_folder: Path | str | None = None,
    file_list_txt: Path | str | None = None,
    excluded_videos_list_txt: Path | str | None = None,
    set_name: str = "davis",
) -> list[Sequence]:
    """The videos of a folder in the layout of DAVIS and MOSE; frames without annotation count as not labelled.

    Parameters
    ----------
    folder : path, optional
        Has JPEGImages/VIDEO/*.jpg and Annotations/VIDEO/*.png (indexed, the index is the object's id).
    img_folder, gt_folder : path, optional
        The folders of the frames and of the annotations, where they are not those two.
    file_list_txt : path, optional
        The videos to read, one name a line; all that have annotations by default.
    excluded_videos_list_txt : path, optional
        Videos to leave out.
    set_name : str
        Name of the set; `ClipDataset` weighs sets by their names.

    Returns
    -------
    list of Sequence
        Of frames (T, H, W, 3), or (T, H, W) where the first frame is a grey image; labels keep the ids of the files.
        They count as incomplete: such folders label what stands out.

    Raises
    ------
    InputError
        A folder, a video or a list is missing, an annotation belongs to no frame, or the first one of a video has
        another size than its frames. When a clip is read: a frame or an annotation is damaged or has another size.
    """
    frames = _folder(folder, "JPEGImages", img_folder, "img_folder")
    labels = _folder(folder, "Annotations", gt_folder, "gt_folder")
    known = {clip.name: clip for clip in davis.clips_in(frames, labels)}
    chosen = _chosen(known, file_list_txt, excluded_videos_list_txt, f"annotations in {labels}")
    return [clip_sequence(known[name], set_name) for name in chosen]


def clip_sequence(clip: davis.Clip, set_name: str) -> Sequence:
    """One video of such a folder, as `load_davis` gives it."""
    first = clip.annotations[min(clip.annotations)]
    clip.check_size(first, image_size(first))
    labelled = np.isin(np.arange(len(clip.frames)), list(clip.annotations))
    pictures = _pictures(clip.frames_folder, [f.name for f in clip.frames])
    return _sequence(set_name, clip.name, pictures, ClipLabels(clip), labelled)


def load_sav(
    folder: Path | str | None = None,
    *,
    img_folder: Path | str | None = None,
    gt_folder: Path | str | None = None,
    file_list_txt: Path | str | None = None,
    excluded_videos_list_txt: Path | str | None = None,
    layers: int = 1,
    set_name: str = "sa-v",
) -> list[Sequence]:
    """The videos of a folder of SA-V, of which every fourth frame is annotated.

    Parameters
    ----------
    folder : path, optional
        Has NAME.mp4, or NAME/*.jpg whose names are the frames' numbers in the video (`training.dataset.extract_frames`
        makes them), and NAME_manual.json or else NAME_auto.json.
    img_folder, gt_folder : path, optional
        The folders of the videos and of the annotations, where they are not the same.
    file_list_txt, excluded_videos_list_txt : path, optional
        As of `load_davis`.
    layers : int
        Label maps for each video. With one, smaller objects (over the whole video) lie above larger ones, which lose
        what is covered. With more, each video gives so many sequences, in which objects that overlap are apart.
    set_name : str

    Raises
    ------
    InputError
        A video, annotation or list is missing or damaged, or there are fewer frames than annotated ones. When a clip is
        read: a frame is damaged, or a frame or mask has another size.
    """
    videos = _folder(folder, "", img_folder, "img_folder")
    labels = _folder(folder, "", gt_folder, "gt_folder")
    known = sav.annotation_files(labels)
    chosen = _chosen(known, file_list_txt, excluded_videos_list_txt, f"_manual.json or _auto.json in {labels}")
    found = []
    for name in chosen:
        _, masklets = sav.read_masklets(known[name])
        pictures, numbers = _video(videos, name)
        last = sav.STRIDE * (len(masklets) - 1)
        if last > numbers[-1]:
            raise InputError(
                f"{known[name]} annotates frames up to number {last}, but those of {videos / name} end at "
                f"{numbers[-1]}: names of extracted frames must be their numbers in the video"
            )
        steps = np.where(numbers % sav.STRIDE == 0, numbers // sav.STRIDE, -1)
        steps[steps >= len(masklets)] = -1
        for layer in _layers(layers):
            reader = MaskletLabels(known[name], steps, pictures.size, layer, layers)
            title = name if layers == 1 else f"{name}:layer{layer}"
            found.append(_sequence(set_name, title, pictures, reader, steps >= 0, "CC BY 4.0"))
    return found


def load_sa1b(
    folder: Path | str | None = None,
    *,
    img_folder: Path | str | None = None,
    gt_folder: Path | str | None = None,
    file_list_txt: Path | str | None = None,
    excluded_videos_list_txt: Path | str | None = None,
    layers: int = 3,
    set_name: str = "sa-1b",
) -> list[Sequence]:
    """The images of a folder of SA-1B.

    Parameters
    ----------
    folder : path, optional
        Has sa_*.jpg and, for each, sa_*.json.
    img_folder, gt_folder : path, optional
        The folders of the images and of the annotations, where they are not the same.
    file_list_txt, excluded_videos_list_txt : path, optional
        As of `load_davis`, of images.
    layers : int
        Label maps, and so sequences, for each image: what overlaps is put apart, such as a whole, its parts and theirs.
        What overlaps in the last one, too, is painted there, smaller masks above larger ones.
    set_name : str

    Raises
    ------
    InputError
        An image, its annotation or a list is missing, or the header of an image is damaged. When a clip is read: an
        image or annotation is damaged, or a mask has another size.
    """
    images = _folder(folder, "", img_folder, "img_folder")
    labels = _folder(folder, "", gt_folder, "gt_folder")
    known = {f.stem: f.name for f in image_files(images) if f.suffix.lower() == ".jpg"}
    annotated = {f.stem for f in labels.glob("*.json")}
    found = []
    for name in _chosen(known, file_list_txt, excluded_videos_list_txt, f"image in {images}"):
        if name not in annotated:
            raise InputError(f"{images / known[name]} has no annotation: there is no {labels / name}.json")
        pictures = _pictures(images, [known[name]])
        for layer in _layers(layers):
            reader = MaskLabels(labels / f"{name}.json", pictures.size, layer, layers)
            title = name if layers == 1 else f"{name}:layer{layer}"
            found.append(_sequence(set_name, title, pictures, reader, np.ones(1, bool), _SA1B_LICENCE))
    return found


def _sequence(
    set_name: str, name: str, frames: Planes, labels: Any, labelled: np.ndarray, licence: str = ""
) -> Sequence:
    array: Any = Planes(labels, len(frames), frames.size, np.int32)
    pictures: Any = frames
    kind = "image" if len(frames) == 1 else "video"
    return Sequence(set_name, name, kind, pictures, array, labelled, complete=False, licence=licence)  # type: ignore[arg-type]


def _pictures(folder: Path, names: list[str]) -> Planes:
    """The image files of a folder as an array; the header of the first says what all are."""
    from PIL import Image

    size = image_size(folder / names[0])
    with Image.open(folder / names[0]) as first:
        grey = first.mode == "L"
    reader = ImagePlanes(folder, tuple(names), size, grey)
    return Planes(reader, len(names), size if grey else (*size, 3), np.uint8)


def _video(folder: Path, name: str) -> tuple[Planes, np.ndarray]:
    """A video's frames, and the number of each in the video, ascending."""
    frames, file = folder / name, folder / f"{name}.mp4"
    if frames.is_dir():
        names = [f.name for f in image_files(frames)]
        if odd := [n for n in names if not n.partition(".")[0].isdecimal()]:
            raise InputError(f"{frames / odd[0]} is not named by its number in the video: name it as 00012.jpg")
        names.sort(key=lambda n: int(n.partition(".")[0]))
        return _pictures(frames, names), np.array([int(n.partition(".")[0]) for n in names])
    if not file.is_file():
        raise InputError(f"there is neither a video {file} nor a folder {frames} of its frames")
    count, size = _header(file)
    return Planes(VideoPlanes(file, size), count, (*size, 3), np.uint8), np.arange(count)


def _header(file: Path) -> tuple[int, tuple[int, int]]:
    """Number of frames and (height, width), from the header where it tells."""
    import av

    try:
        with av.open(str(file)) as container:
            stream = container.streams.video[0]
            if stream.frames > 0 and stream.height and stream.width:
                return stream.frames, (stream.height, stream.width)
    except (av.FFmpegError, IndexError) as error:
        raise InputError(f"{file} cannot be read as a video: {error}") from None
    with VideoFrames(file) as video:
        return len(video), video.size


def _folder(folder: Path | str | None, inner: str, own: Path | str | None, option: str) -> Path:
    if own is None and folder is None:
        raise InputError(f"give the folder of the data set, or {option}")
    path = Path(own).expanduser() if own is not None else Path(folder or "").expanduser() / inner
    if not path.is_dir():
        raise InputError(f"there is no folder {path}")
    return path


def _chosen(known: Iterable[str], listed: Path | str | None, excluded: Path | str | None, what: str) -> list[str]:
    """The names to read, sorted: those of a list, or all, without the excluded ones."""
    there = set(known)
    wanted = there if listed is None else set(_names(listed))
    if missing := sorted(wanted - there):
        raise InputError(f"{listed} names {missing[0]}, which has no {what}")
    left = sorted(wanted - (set() if excluded is None else set(_names(excluded))))
    if not left:
        raise InputError(f"nothing is left to read: there is no {what} that is listed and not excluded")
    return left


def _names(path: Path | str) -> Iterator[str]:
    try:
        lines = Path(path).expanduser().read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the list {path} cannot be read: {error}") from None
    for line in filter(None, map(str.strip, lines)):
        name = Path(line)
        yield name.stem if name.suffix.lower() in _SUFFIXES else line


def _layers(count: int) -> range:
    if count < 1:
        raise InputError(f"layers is {count}: give 1 or more")
    return range(count)
