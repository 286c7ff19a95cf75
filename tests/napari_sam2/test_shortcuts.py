"""Keys that the user changes in napari's preferences."""

import pytest
from napari.settings import get_settings
from napari.utils.action_manager import action_manager
from qtpy.QtCore import Qt

from napari_sam2.actions import ACTIONS
from napari_sam2.shortcuts import keys_of, name_of, tooltip
from tests.napari_sam2.conftest import settle

NEW, UNDO = (next(a for a in ACTIONS if a.name == name) for name in ("new_object", "undo"))


@pytest.fixture
def chosen_keys():
    """The user's keys; put back as they were."""
    before = dict(get_settings().shortcuts.shortcuts)
    yield get_settings().shortcuts.shortcuts
    get_settings().shortcuts.shortcuts = before


def press(qtbot, widget, key, modifier=Qt.KeyboardModifier.NoModifier):
    canvas = widget.viewer.window._qt_viewer.canvas.native
    qtbot.keyClick(canvas, key, modifier)


def test_keys_work_while_a_segmentation_is_open_and_only_then(segment, qtbot):
    widget = segment()
    widget.segmentation.prompts.set_active(5)
    press(qtbot, widget, Qt.Key.Key_N)
    assert widget.segmentation.active == 0
    assert widget._work.buttons["new_object"].toolTip() == f"{NEW.text} (N)"
    widget.close_segmentation()
    assert not action_manager._shortcuts.get(name_of(NEW))
    press(qtbot, widget, Qt.Key.Key_N)


def test_a_key_that_was_chosen_before_is_used(segment, qtbot, chosen_keys):
    chosen_keys[name_of(NEW)] = ["Shift-N"]
    chosen_keys[name_of(UNDO)] = ["Shift-U"]
    widget = segment()
    segmentation = widget.segmentation
    assert widget._work.buttons["new_object"].toolTip().endswith(f"({tooltip(NEW).split('(')[-1]}")
    segmentation.prompts.set_active(5)
    press(qtbot, widget, Qt.Key.Key_N)
    assert segmentation.active == 5
    press(qtbot, widget, Qt.Key.Key_N, Qt.KeyboardModifier.ShiftModifier)
    assert segmentation.active == 0
    segmentation.workspace.session.add_object(3)
    for layer in (segmentation.labels.layer, segmentation.image):
        widget.viewer.layers.selection.active = layer
        press(qtbot, widget, Qt.Key.Key_U, Qt.KeyboardModifier.ShiftModifier)
        settle(qtbot, widget)
        assert not segmentation.workspace.state.objects
        segmentation.workspace.redo()
        settle(qtbot, widget)


def test_a_key_that_is_changed_meanwhile_is_shown(segment, qtbot):
    widget = segment()
    action_manager.unbind_shortcut(name_of(NEW))
    action_manager.bind_shortcut(name_of(NEW), "Shift-N")
    assert (
        "Shift" in widget._work.buttons["new_object"].toolTip() or "⇧" in widget._work.buttons["new_object"].toolTip()
    )
    widget.segmentation.prompts.set_active(5)
    press(qtbot, widget, Qt.Key.Key_N, Qt.KeyboardModifier.ShiftModifier)
    assert widget.segmentation.active == 0


def test_the_preferences_list_them(segment, qtbot):
    from napari._qt.widgets.qt_keyboard_settings import ShortcutEditor

    widget = segment()
    editor = ShortcutEditor()
    qtbot.addWidget(editor)
    listed = editor.key_bindings_strs[editor.VIEWER_KEYBINDINGS]
    assert {name_of(a) for a in ACTIONS} <= set(listed)
    assert all(keys_of(a) for a in ACTIONS)
    assert widget.segmentation is not None


def test_each_viewer_has_its_own(segment, qtbot):
    one, other = segment(), segment()
    for widget in (one, other):
        widget.segmentation.prompts.set_active(5)
    press(qtbot, one, Qt.Key.Key_N)
    assert (one.segmentation.active, other.segmentation.active) == (0, 5)
    one.close_segmentation()
    press(qtbot, other, Qt.Key.Key_N)
    assert other.segmentation.active == 0
