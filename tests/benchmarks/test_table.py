"""Rows, what counts as met, and the page."""

import pytest

pytest.importorskip("psutil")

from benchmarks.run import BEGIN, END, write
from benchmarks.table import ROW_HEAD, Bound, Row, markdown


def test_a_row_is_the_medians_and_their_ratio():
    row = Row.of_times("step", "", {"ours": [1.0, 9.0, 2.0], "theirs": [4.0, 4.0, 5.0]})
    assert (row.ours, row.theirs, row.ratio) == (2.0, 4.0, 0.5)
    assert row.met


@pytest.mark.parametrize(
    "row",
    [
        Row("step", "", 1.01, 1.0, "s"),
        Row("step", "", 0.5, 1.0, "s", deviation=2e-3),
        Row("step", "", 0.5, 1.0, "s", deviation=float("nan")),
        Bound("growth", 101.0, 100.0, "MB"),
    ],
)
def test_slower_or_different_fails_visibly(row):
    assert not row.met
    assert row.cells()[-1] == "**NO**"


def test_the_table_takes_the_place_of_the_old_one(tmp_path):
    path = tmp_path / "page.md"
    path.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    text = markdown(ROW_HEAD, [Row("step", "", 0.5, 1.0, "s").cells()])
    write(path, text)
    assert path.read_text() == f"before\n{BEGIN}\n{text}\n{END}\nafter\n"


def test_a_page_without_a_place_is_left_alone(tmp_path):
    path = tmp_path / "page.md"
    path.write_text("prose")
    with pytest.raises(SystemExit, match="no marks"):
        write(path, "table")
    assert path.read_text() == "prose"
