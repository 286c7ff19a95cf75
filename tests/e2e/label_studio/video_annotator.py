"""An annotator of videos: boxes that are drawn once and tracked."""

from __future__ import annotations

from typing import Any

from tests.e2e.label_studio.annotator import Annotator

_VIDEO = "window.Htx.annotationStore.selected.names.get('video')"


class VideoAnnotator(Annotator):
    """A person with a browser, and a video in it."""

    def open(self, project: int, task: int) -> None:
        """Open a task, wait for the video, and switch Auto-Annotation on."""
        super().open(project, task)
        # as long as its length is not known, there is one frame
        self.page.wait_for_function(f"{_VIDEO}.length > 1")

    def draw_box(self, x0: float, y0: float, x1: float, y1: float) -> None:
        """Draw a box on the frame that is shown, given in the video's own pixels; the server is not asked."""
        before = self.regions()
        self._drag(self._at(x0, y0), self._at(x1, y1))
        self.page.wait_for_function(f"window.Htx.annotationStore.selected.regions.length === {before + 1}")

    def select(self, x: float, y: float) -> None:
        """Click on a box."""
        self.page.mouse.click(*self._at(x, y))
        self.page.wait_for_function("window.Htx.annotationStore.selected.selectedRegions.length === 1")

    def track(self) -> None:
        """Have the selected box tracked; returns when the server has answered."""
        self._answered(lambda: self.page.keyboard.press("t"))

    def move_box(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        """Drag the selected box, from and to a place given in the video's own pixels."""
        self.page.mouse.move(*self._at(*start))
        self._drag(self._at(*start), self._at(*end))

    def show_frame(self, index: int) -> None:
        """Go to a frame, counted from 1 as Label Studio counts them."""
        if index == self.page.evaluate(f"{_VIDEO}.length"):  # which the field does not take
            while self.frame != index:
                self.page.get_by_role("button", name="Step forward").click()
        else:
            self.page.locator(".lsf-frames-control").click()
            self.page.locator(".lsf-frames-control input").fill(str(index))
            self.page.keyboard.press("Enter")
        self.page.wait_for_function(f"{_VIDEO}.frame === {index}")
        self.page.wait_for_timeout(300)  # until it is painted

    @property
    def frame(self) -> int:
        """Number of the frame that is shown, from 1."""
        return int(self.page.evaluate(f"{_VIDEO}.frame"))

    def shown_boxes(self) -> list[dict[str, Any]]:
        """The boxes on the frame that is shown, as Label Studio works them out: x, y, width, height in percent."""
        return list(
            self.page.evaluate(
                "() => { const a = window.Htx.annotationStore.selected, frame = a.names.get('video').frame;"
                " return a.regions.filter(r => r.isInLifespan(frame)).map(r => r.getShape(frame)); }"
            )
        )

    def _at(self, x: float, y: float) -> tuple[float, float]:
        left, top, scale = self.page.evaluate(
            "() => { const l = window.Konva.stages[0].getLayers()[0]; return [l.x(), l.y(), l.scaleX()]; }"
        )
        box = self._canvas().bounding_box()
        assert box is not None
        return box["x"] + left + (x + 0.5) * scale, box["y"] + top + (y + 0.5) * scale
