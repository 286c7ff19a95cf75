"""The keys of a segmentation: bound while one is open, and changed where napari's own are, in its preferences."""

from __future__ import annotations

import weakref
from collections.abc import Callable

from napari.components import ViewerModel
from napari.settings import get_settings
from napari.utils.action_manager import action_manager
from napari.utils.interactions import Shortcut
from napari.utils.key_bindings import KeyBinding, coerce_keybinding

from napari_sam2.actions import ACTIONS, Action, perform
from napari_sam2.segmentation import Segmentation

_open: weakref.WeakSet[Segmentation] = weakref.WeakSet()


def bind_keys(segmentation: Segmentation) -> None:
    """Let the keys of all acts work on a segmentation in its viewer."""
    _open.add(segmentation)
    for action in ACTIONS:
        action_manager.register_action(name_of(action), _command(action), action.text, ViewerModel)
        for key in keys_of(action):
            action_manager.bind_shortcut(name_of(action), key)
        if action.name in ("undo", "redo"):  # the labels layer's own come first and know nothing of the session
            for key in keys_of(action):
                segmentation.labels.layer.bind_key(key, lambda _, a=action: perform(segmentation, a), overwrite=True)


def release_keys(segmentation: Segmentation) -> None:
    """Undo `bind_keys`."""
    _open.discard(segmentation)
    if not _open:
        for action in ACTIONS:
            action_manager.unbind_shortcut(name_of(action))


def name_of(action: Action) -> str:
    """What napari's settings call an act."""
    return f"napari-sam2:{action.name}"


def keys_of(action: Action) -> list[KeyBinding]:
    """The keys of an act: those of the user's settings, else its own."""
    chosen = get_settings().shortcuts.shortcuts.get(name_of(action))
    return [coerce_keybinding(action.key)] if chosen is None else list(chosen)


def shown_keys(action: Action) -> str:
    """The keys as napari writes them; empty if there is none."""
    return " or ".join(str(Shortcut(key)) for key in keys_of(action))


def tooltip(action: Action) -> str:
    """What an act does, with its keys."""
    keys = shown_keys(action)
    return f"{action.text} ({keys})" if keys else action.text


def _command(action: Action) -> Callable[[ViewerModel], None]:
    def command(viewer: ViewerModel) -> None:
        for segmentation in list(_open):
            if segmentation.labels.layer in viewer.layers:
                perform(segmentation, action)
                return

    command.__annotations__ = {"viewer": ViewerModel, "return": None}  # napari finds the argument by its type
    return command
