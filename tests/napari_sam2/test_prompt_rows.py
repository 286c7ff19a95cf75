"""What is on the canvas and what the session holds are the same prompts."""

from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from napari_sam2.prompt_rows import changes, prompt_of, rows_of
from sam2_core.volume.prompts import Prompt
from sam2_core.volume.rle import Rle
from sam2_core.volume.session_state import Grid, PlacedPrompt, SessionObject, State

GRID = Grid((("z", 6),), (40, 50), "z")
number = st.floats(0, 39, width=32)
point = st.tuples(number, number)


@st.composite
def prompts(draw):
    fields = {}
    kinds = draw(st.sets(st.sampled_from(["points", "box", "scribbles", "lasso", "mask"]), min_size=1))
    if "points" in kinds:
        fields["points"] = tuple(draw(st.lists(point, min_size=1, max_size=3)))
        fields["labels"] = tuple(draw(st.sampled_from([0, 1])) for _ in fields["points"])
    if "box" in kinds:
        fields["box"] = (1.0, 2.0, draw(st.floats(3, 40, width=32)), draw(st.floats(3, 39, width=32)))
    if "scribbles" in kinds:
        fields["scribbles"] = ({"points": draw(st.lists(point, min_size=2, max_size=4)), "label": 0},)
    if "mask" in kinds and "lasso" not in kinds:
        fields["mask"] = Rle.encode(np.eye(40, 50, dtype=bool))
    if "lasso" in kinds:
        fields["lasso"] = tuple(draw(st.lists(point, min_size=3, max_size=5)))
    return Prompt(frame=draw(st.integers(0, 5)), **fields)


@st.composite
def states(draw):
    objects, serial = {}, 1
    for object_id in range(1, draw(st.integers(1, 3)) + 1):
        placed = []
        for prompt in draw(st.lists(prompts(), max_size=3)):
            placed.append(PlacedPrompt(serial, GRID.plane(prompt.frame), prompt))
            serial += 1
        objects[object_id] = SessionObject(object_id, prompts=tuple(placed))
    return State(objects, serial)


def rounded(rows):
    """As they come back from layers, which keep single precision."""
    return [replace(r, corners=tuple((float(np.float32(x)), float(np.float32(y))) for x, y in r.corners)) for r in rows]


@given(states())
def test_what_was_only_looked_at_changes_nothing(state):
    assert changes(state, rounded(rows_of(state)), GRID.name) == []


@given(states(), st.data())
def test_a_row_that_is_gone_is_gone_from_its_prompt_alone(state, data):
    rows = list(rows_of(state))
    if not rows:
        return
    gone = data.draw(st.sampled_from(rows))
    left = [r for r in rows if r is not gone]
    (change,) = changes(state, left, GRID.name)
    assert (change.object_id, change.plane) == (gone.object_id, gone.plane)
    (placed,) = [p for p in state[gone.object_id].on(gone.plane) if p.serial == gone.serial]
    ((serial, prompt),) = change.prompts.items()
    assert serial == gone.serial
    assert (None if prompt is None else prompt.mask) == placed.prompt.mask
    assert (prompt is None) == (placed.prompt.mask is None and not [r for r in left if r.serial == serial])


@given(states(), st.data())
def test_a_moved_point_moves_in_its_prompt(state, data):
    rows = list(rows_of(state))
    points = [r for r in rows if r.kind == "point"]
    if not points:
        return
    moved = data.draw(st.sampled_from(points))
    there = (moved.corners[0][0] + 3.5, moved.corners[0][1])
    rows = [replace(r, corners=(there,)) if r is moved else r for r in rows]
    (change,) = changes(state, rows, GRID.name)
    assert there in change.prompts[moved.serial].points


@given(states())
def test_new_rows_are_left_to_be_added(state):
    rows = list(rows_of(state))
    new = [replace(r, serial=0) for r in rows]
    assert changes(state, rows + new, GRID.name) == []
    for row in new:
        prompt = prompt_of(row, GRID.name(row.plane))
        assert GRID.plane(prompt.frame) == row.plane
