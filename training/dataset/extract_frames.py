"""Extract frames of videos as JPEG: ``python -m training.dataset.extract_frames --videos DIR --out DIR``.

OUT/NAME/00000.jpg, 00004.jpg and so on, named by their numbers in the video: those that SA-V annotates. Each video is
written beside its place and renamed when it is whole, and passed over when it is there, so that the same command goes
on where it was stopped. A video that cannot be decoded is named, and the exit code is 1 at the end.
"""

import argparse
import glob
import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path

from sam2_core.errors import InputError

SUFFIXES = (".mp4", ".mov", ".avi", ".mkv", ".webm")
QUALITY = 95


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", required=True, type=Path, help="folder of videos; folders in it are searched, too")
    parser.add_argument("--out", required=True, type=Path, help="folder of the frames, one folder for each video")
    parser.add_argument(
        "--every", default=4, type=int, help="take every N-th frame, from the first on; 4 by default", metavar="N"
    )
    parser.add_argument(
        "--workers", default=os.cpu_count() or 1, type=int, help="processes; by default one for each CPU"
    )
    options = parser.parse_args(arguments)
    try:
        failures = extract_all(options.videos, options.out, options.every, options.workers)
    except InputError as error:
        print(f"extract_frames: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("extract_frames: stopped; the same command goes on with the videos that are not done", file=sys.stderr)
        return 130
    return 1 if failures else 0


def extract_all(videos: Path, out: Path, every: int = 4, workers: int = 1) -> int:
    """Extract the frames of all videos of a folder; gives the number of videos that could not be decoded.

    Parameters
    ----------
    videos, out : Path
    every : int
        At least 1.
    workers : int
        Processes, at least 1.

    Raises
    ------
    InputError
        There are no videos, two have one name, a number is below 1, or `out` cannot be written.
    """
    from tqdm import tqdm

    if every < 1 or workers < 1:
        raise InputError(f"--every {every} and --workers {workers} must be 1 or more")
    files = _videos(videos.expanduser())
    out = out.expanduser()
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file: give a folder as --out")
    todo = [file for file in files if not (out / file.stem).exists()]
    failures = 0
    pool = ProcessPoolExecutor(
        min(workers, len(todo) or 1),
        multiprocessing.get_context("spawn"),  # a fork would copy locks of threads that do not run in it
        initializer=signal.signal,
        initargs=(signal.SIGINT, signal.SIG_IGN),  # Ctrl-C lets the videos that are under way be finished
    )
    try:
        running = {pool.submit(extract, file, out / file.stem, every): file for file in todo}
        for future in tqdm(as_completed(running), total=len(todo), unit="video", disable=None):
            try:
                problem = future.result()
            except BrokenProcessPool:
                raise InputError("a worker was killed, perhaps for want of memory: give fewer --workers") from None
            if problem is not None:
                failures += 1
                tqdm.write(f"extract_frames: {problem}", file=sys.stderr)
    finally:
        pool.shutdown(cancel_futures=True)
    done = f"{len(todo) - failures} of {len(todo)} videos extracted to {out}"
    print(done + (f", {len(files) - len(todo)} were there before" if len(todo) < len(files) else ""))
    return failures


def extract(video: Path, target: Path, every: int) -> str | None:
    """Extract the frames of one video into the folder `target`; gives what is wrong where it cannot be decoded.

    Raises
    ------
    InputError
        `target` cannot be written.
    """
    from PIL import Image

    from sam2_core.predict.video_frames import VideoFrames
    from sam2_core.volume.files import remove, replacing
    from training.dataset.planes import frame_bytes

    for left in target.parent.glob(f".{glob.escape(target.name)}.*.partial"):  # of a run that was killed
        remove(left)
    try:
        _check_whole(video)
        with _damage():
            opened = VideoFrames(video)
        with opened as frames, replacing(target) as folder:
            folder.mkdir()
            for i in range(0, len(frames), every):
                with _damage():
                    picture = frame_bytes(frames, i)
                Image.fromarray(picture).save(folder / f"{i:05d}.jpg", quality=QUALITY)
    except _DamagedError as error:
        return str(error)
    return None


class _DamagedError(Exception):
    """The fault is the video's, not the disk's."""


@contextmanager
def _damage() -> Iterator[None]:
    try:
        yield
    except InputError as error:
        raise _DamagedError(str(error)) from None


def _check_whole(video: Path) -> None:
    """A file that was cut off may decode without an error, to fewer frames than its header promises."""
    import av

    try:
        with av.open(str(video)) as container:
            stream = container.streams.video[0]
            count = sum(1 for packet in container.demux(stream) if packet.size)
            if count < stream.frames:
                raise _DamagedError(f"{video} ends after {count} of {stream.frames} frames: download it again")
    except (av.FFmpegError, IndexError) as error:
        raise _DamagedError(f"{video} cannot be read as a video: {error}") from None


def _videos(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}")
    files = sorted(f for f in folder.rglob("*") if f.suffix.lower() in SUFFIXES and f.is_file())
    if not files:
        raise InputError(f"there are no videos in {folder}")
    names: dict[str, Path] = {}
    for file in files:
        if (other := names.setdefault(file.stem, file)) != file:
            raise InputError(f"{other} and {file} have one name: rename one of them")
    return files


if __name__ == "__main__":
    sys.exit(main())
