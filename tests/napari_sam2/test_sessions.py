"""Sessions are found again by their image."""

import numpy as np

from napari_sam2.sessions import new_directory, saved_sessions, sessions_home
from sam2_core.volume.session import Session
from tests.napari_sam2.conftest import FakePredictor


def begin(identity, acts):
    directory = new_directory(identity)
    image = np.random.default_rng(0).integers(0, 255, (4, 20, 20)).astype(np.uint8)
    session = Session.create(directory, image, labels=directory / "labels.zarr", predictor=FakePredictor())
    with session:
        for _ in range(acts):
            session.add_object()
    return directory


def test_those_of_an_image_in_which_something_was_done(tmp_path):
    assert saved_sessions("abc") == []
    begin("abc", 0)
    begin("other", 2)
    assert saved_sessions("abc") == []
    second = begin("abc", 3)
    (found,) = saved_sessions("abc")
    assert found.directory == second
    assert found.acts == 3
    assert found.settings.model == "cells-nano"
    assert second.parent == sessions_home() == tmp_path / "sessions"


def test_the_latest_comes_first_and_damaged_ones_are_left_out():
    import os

    first, second, third = (begin("abc", 1) for _ in range(3))
    for age, directory in enumerate((second, first)):
        os.utime(directory / "journal.jsonl", (1e9 - age, 1e9 - age))
    (third / "session.json").write_text("{")
    assert [s.directory for s in saved_sessions("abc")] == [second, first]


def test_directories_of_one_second_differ():
    directories = {begin("abc", 1) for _ in range(3)}
    assert len(directories) == 3
