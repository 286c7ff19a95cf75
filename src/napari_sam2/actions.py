"""What a user can do with a segmentation, in one table: the key, what it says, and the method that does it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari_sam2.segmentation import Segmentation


@dataclass(frozen=True)
class Action:
    """One act.

    Attributes
    ----------
    name : str
        What calls it in the code.
    key : str
        As `napari.Viewer.bind_key` takes it; unless the user has chosen another one, see `shortcuts`.
    title : str
        On its button.
    text : str
        What it does, for tooltips and the table of keys.
    method : str
        Of `Segmentation`, or of its workspace with a leading ``workspace.``.
    argument : str, optional
        What the method is given.
    """

    name: str
    key: str
    title: str
    text: str
    method: str
    argument: str | None = None


ACTIONS = (
    Action("points", "W", "Points", "Click on the object; Alt+click off it", "use", "points"),
    Action("box", "Shift-W", "Box", "Draw a box around the object", "use", "box"),
    Action("scribble", "Shift-S", "Scribble", "Draw a line through the object", "use", "scribble"),
    Action("lasso", "Shift-O", "Lasso", "Draw the object's outline: it becomes the mask", "use", "lasso"),
    Action("brush", "Shift-B", "Brush", "Paint a correction that the model sees", "use", "brush"),
    Action("move", "Shift-M", "Move", "Move and zoom the image", "use", "move"),
    Action("take_label", "Shift-T", "From label", "Take the label chosen in another layer as mask", "take_label"),
    Action("toggle_label", "Q", "Switch +/−", "Switch between prompts on the object and off it", "toggle_label"),
    Action("new_object", "N", "New", "Begin a new object with the next prompt", "new_object"),
    Action("delete_object", "Shift-Delete", "Delete", "Delete the active object", "delete_object"),
    Action("toggle_lock", "Shift-K", "Lock", "Lock the active object against any change, or unlock it", "toggle_lock"),
    Action("split", "Shift-X", "Split", "Draw a lasso: what lies in it becomes an object of its own", "use", "split"),
    Action("next_object", "J", "Next object", "Make the next object the active one", "next_object"),
    Action("previous_object", "K", "Previous object", "Make the one before the active one", "previous_object"),
    Action("jump_to_object", "Shift-J", "Go to", "Go to where the active object was first prompted", "jump_to_object"),
    Action("propagate", "G", "Propagate", "Track all unlocked objects in both directions", "propagate"),
    Action("propagate_forward", "Shift-G", "Forward", "Track them towards the end", "propagate_forward"),
    Action("propagate_backward", "Shift-H", "Backward", "Track them towards the beginning", "propagate_backward"),
    Action("cancel", "H", "Stop", "Stop the propagation: what is done stays", "workspace.cancel"),
    Action("resume", "Shift-R", "Resume", "Go on with a propagation that was stopped", "workspace.resume"),
    Action("next_uncertain", "U", "Next uncertain", "Go to where the model is least sure", "next_uncertain"),
    Action("undo", "Control-Z", "Undo", "Take back the last act", "workspace.undo"),
    Action("redo", "Control-Shift-Z", "Redo", "Do it again", "workspace.redo"),
)  # fmt: skip


def perform(segmentation: Segmentation, action: Action) -> None:
    """Do an act."""
    owner, _, method = action.method.rpartition(".")
    target = getattr(segmentation, owner) if owner else segmentation
    getattr(target, method)(*([] if action.argument is None else [action.argument]))
