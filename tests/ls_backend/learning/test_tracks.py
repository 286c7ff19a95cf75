"""Masks that were tracked through a video are kept by region."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from ls_backend.learning.tracks import MaskTrack, Tracks

SIZE = (20, 30)


def track(*frames: int, at: int = 3) -> MaskTrack:
    found = MaskTrack()
    for frame in frames:
        mask = np.zeros(SIZE, bool)
        mask[at : at + 4, frame : frame + 5] = True
        found.add(frame, mask)
    return found


def regions(*names: str) -> list[dict]:
    return [{"id": name, "meta": {"sam2": f"key of {name}"}} for name in names]


def test_masks_come_back_where_there_were_some(tmp_path: Path) -> None:
    tracks, masks = Tracks(tmp_path / "tracks"), track(0, 2)
    tracks.keep(7, SIZE, {"key of a": masks}, regions("a"))
    for again in (tracks, Tracks(tmp_path / "tracks")):
        found = again.masks_for(7, "a", 2)
        assert found is not None
        assert np.array_equal(found, masks[2])
        assert again.masks_for(7, "a", 1) is None
        assert again.masks_for(7, "b", 2) is None
        assert again.masks_for(8, "a", 2) is None


def test_regions_tracked_later_join_or_replace_those_before(tmp_path: Path) -> None:
    tracks = Tracks(tmp_path)
    tracks.keep(1, SIZE, {"key of a": track(0), "key of b": track(1)}, regions("a", "b"))
    tracks.keep(1, SIZE, {"key of b": track(5), "key of c": track(2)}, regions("b", "c"))
    has = {name: [f for f in range(8) if tracks.masks_for(1, name, f) is not None] for name in "abc"}
    assert has == {"a": [0], "b": [5], "c": [2]}


def test_an_empty_mask_is_none() -> None:
    masks = track(0, 1)
    masks.add(1, np.zeros(SIZE, bool))
    assert list(masks) == [0]


def test_answers_for_one_task_at_the_same_time_are_all_kept(tmp_path: Path) -> None:
    tracks = Tracks(tmp_path)
    names = [f"r{i}" for i in range(40)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: tracks.keep(1, SIZE, {f"key of {name}": track(0)}, regions(name)), names))
    assert [name for name in names if tracks.masks_for(1, name, 0) is None] == []
