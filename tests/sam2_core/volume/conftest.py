"""A predictor without a network, for tests of what a session makes of a predictor's answers."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import settings

from sam2_core.volume.session import Session

# a busy machine is no reason to fail
settings.register_profile("sam2", deadline=None)
settings.load_profile("sam2")


class Tracked(dict):
    """Results by frame, written to disk at once if there is a place."""

    def __init__(self, folder: Path | None) -> None:
        super().__init__()
        self.folder = folder

    def __setitem__(self, frame, logits):
        super().__setitem__(frame, logits)
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            np.save(self.folder / f"{frame}.npy", logits)

    def pop(self, frame, default=None):
        super().pop(frame, default)
        if self.folder is not None:
            (self.folder / f"{frame}.npy").unlink(missing_ok=True)


class FakeState:
    keep = 3

    def __init__(self, source, storage_dir) -> None:
        self.source = source
        self.storage = None if storage_dir is None else Path(storage_dir)
        self.objects: dict[int, SimpleNamespace] = {}
        self.closed = False

    @property
    def obj_ids(self):
        return list(self.objects)

    @property
    def num_frames(self):
        return len(self.source)

    def item(self, object_id):
        if object_id not in self.objects:
            folder = None if self.storage is None else self.storage / str(object_id)
            self.objects[object_id] = SimpleNamespace(points={}, prompted={}, tracked=Tracked(folder))
        return self.objects[object_id]

    def restore(self):
        found = {}
        for object_id, item in self.objects.items():
            files = item.tracked.folder.glob("*.npy") if item.tracked.folder else ()
            for file in files:
                dict.__setitem__(item.tracked, int(file.stem), np.load(file))
            found[object_id] = list(item.tracked)
        return found

    def close(self):
        self.closed = True


class FakePredictor:
    """Same methods as SAM2VideoPredictor: points are discs, boxes are boxes, and masks drift along the frames.

    A tracked frame depends on the last two frames in the direction of travel, the number of prompted frames and the
    pixels, so that a memory that is lost shows.
    """

    def __init__(self) -> None:
        self.frames_tracked = 0
        self.fail_at = -1
        self.states: list[FakeState] = []

    def init_state(self, source, storage_dir=None):
        self.states.append(FakeState(source, storage_dir))
        return self.states[-1]

    def add_new_points_or_box(
        self, state, frame, obj_id, points=None, labels=None, clear_old_points=True, box=None, need_output=True
    ):
        item = state.item(obj_id)
        new = [] if points is None else [(*p, lab) for p, lab in zip(np.asarray(points).tolist(), labels)]
        item.points[frame] = new if clear_old_points else item.points.get(frame, []) + new
        height, width = state.source.size
        ys, xs = np.mgrid[:height, :width]
        mask = item.prompted[frame] > 0 if frame in item.prompted else np.zeros((height, width), bool)
        if box is not None:
            mask = mask | ((xs >= box[0]) & (xs <= box[2]) & (ys >= box[1]) & (ys <= box[3]))
        for x, y, label in item.points[frame]:
            disc = (xs - x) ** 2 + (ys - y) ** 2 <= 9
            mask = mask | disc if label else mask & ~disc
        item.prompted[frame] = np.where(mask, 3.0 + obj_id, -3.0).astype(np.float32)
        return frame, state.obj_ids, self._stack(state, frame)

    def add_new_mask(self, state, frame, obj_id, mask, need_output=True):
        item = state.item(obj_id)
        item.points.pop(frame, None)
        item.prompted[frame] = np.where(mask, np.float32(10), np.float32(-10))
        return frame, state.obj_ids, self._stack(state, frame)

    def propagate_in_video(self, state, start_frame_idx, max_frame_num_to_track, reverse=False, progress=True):
        step = -1 if reverse else 1
        last = np.clip(start_frame_idx + step * max_frame_num_to_track, 0, state.num_frames - 1)
        order = range(start_frame_idx, last + step, step)
        for frame in range(0) if reverse and start_frame_idx == 0 else order:
            for item in state.objects.values():
                if frame not in item.prompted:
                    item.tracked[frame] = self._track(state, item, frame, step)
                    self.frames_tracked += 1
                    if self.frames_tracked == self.fail_at:
                        raise RuntimeError("the tracker failed, as it was told to")
            yield frame, state.obj_ids, self._stack(state, frame)

    def _track(self, state, item, frame, step):
        def known(f):
            return item.prompted.get(f, item.tracked.get(f))

        nearest = min(item.prompted, key=lambda f: (abs(f - frame), f))
        before = known(frame - step)
        mask = (item.prompted[nearest] if before is None else before) > 0
        older = known(frame - 2 * step)
        drift = 1 + len(item.prompted) % 2 + (older is not None and int((older > 0).sum()) % 2)
        mask = np.roll(mask, drift * step, axis=1)
        mask[frame % mask.shape[0]] ^= np.asarray(state.source.frame(frame))[frame % mask.shape[0]] > 0.7
        return np.where(mask, np.float32(2), np.float32(-2))

    def remove_object(self, state, obj_id, strict=False, need_output=True):
        item = state.objects.pop(obj_id)
        for frame in list(item.tracked):
            item.tracked.pop(frame)
        return state.obj_ids, []

    def reset_state(self, state):
        for obj_id in state.obj_ids:
            self.remove_object(state, obj_id)

    def _stack(self, state, frame):
        nothing = np.full(state.source.size, -1024, np.float32)
        rows = [i.prompted.get(frame, i.tracked.get(frame, nothing)) for i in state.objects.values()]
        return np.stack(rows)[:, None]


@pytest.fixture
def fake_predictor():
    return FakePredictor


@pytest.fixture
def stack():
    """A (z, y, x) image, 12 x 24 x 32."""
    return np.random.default_rng(0).integers(0, 255, (12, 24, 32), dtype=np.uint8)


@pytest.fixture
def movie():
    """A (t, z, y, x) image, 4 x 5 x 20 x 24."""
    return np.random.default_rng(1).integers(0, 255, (4, 5, 20, 24), dtype=np.uint8)


@pytest.fixture
def make(tmp_path, fake_predictor, stack):
    """Begin a session in the test's folder."""
    opened = []

    def begin(image=stack, name="s", **options):
        labels = tmp_path / f"{name}.zarr"
        options = {"predictor": fake_predictor(), **options}
        opened.append(Session.create(tmp_path / name, image, labels=labels, **options))
        return opened[-1]

    yield begin
    for session in opened:
        session.close()
