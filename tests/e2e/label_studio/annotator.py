"""An annotator at Label Studio's labeling page, in a real browser: what she can do and see there."""

from __future__ import annotations

import io
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, Response, expect

from ls_backend.demo_servers import Account

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
VIEW = {"width": 1360, "height": 860}
PICTURE_WIDTH = 1000
TIMEOUT = 60_000  # ms; other tests keep this machine busy

_VISIBLE = """image => {
  let {left, top, right, bottom} = image.getBoundingClientRect();
  for (let e = image.parentElement; e; e = e.parentElement) {
    if (getComputedStyle(e).overflow === 'visible') continue;
    const box = e.getBoundingClientRect();
    [left, top] = [Math.max(left, box.left), Math.max(top, box.top)];
    [right, bottom] = [Math.min(right, box.right), Math.min(bottom, box.bottom)];
  }
  return {x: left, y: top, width: right - left, height: bottom - top};
}"""
"""What of an image is not hidden: at times Label Studio shows a little less than all of it."""


def find_browser() -> str | None:
    """Path of a browser on this machine."""
    return next((path for name in BROWSERS if (path := shutil.which(name))), None)


class Annotator:
    """A person with a browser.

    Parameters
    ----------
    browser : Browser
    url : str
        Of Label Studio.
    account : Account
    """

    def __init__(self, browser: Browser, url: str, account: Account) -> None:
        self._url = url
        self.page: Page = browser.new_page(viewport=VIEW)
        self.page.set_default_timeout(TIMEOUT)
        expect.set_options(timeout=TIMEOUT)
        self.page.goto(f"{url}/user/login")
        self.page.fill("input[name=email]", account.email)
        self.page.fill("input[name=password]", account.password)
        self.page.click("button[type=submit]")
        self.page.wait_for_url(re.compile(r"/(projects)?/?$"))

    def open(self, project: int, task: int) -> None:
        """Open a task, and switch Auto-Annotation on."""
        self.page.goto(f"{self._url}/projects/{project}/data?task={task}")
        self._switch("Auto-Annotation", True)

    def accept_at_once(self, on: bool) -> None:
        """Switch *Auto-Accept Suggestions* on or off."""
        self._switch("Auto-Accept Suggestions", on)

    def take(self, tool: str, label: str = "1") -> None:
        """Take a smart tool, "key-point" or "rectangle", and choose a label, which is named by its hotkey."""
        group = self.page.locator("button.lsf-tool_smart", has_text="Auto-Detect")
        group.hover()
        group.locator(f".lsf-toolbar__smart button[aria-label={tool}-tool]").click()
        self.choose(label)

    def choose(self, hotkey: str) -> None:
        """Click on the label that has a hotkey."""
        label = self.page.locator(".lsf-label", has=self.page.get_by_text(hotkey, exact=True))
        label.click()
        expect(label).to_have_class(re.compile("_selected"))

    def click(self, x: float, y: float, *, alt: bool = False) -> None:
        """Click at a pixel of the image, given in the image's own pixels; returns when the server has answered."""
        at = self._at(x, y)
        self._answered(lambda: self._press(at, alt))

    def draw_box(self, x0: float, y0: float, x1: float, y1: float) -> None:
        """Draw a box, given in the image's own pixels; returns when the server has answered."""
        start, end = self._at(x0, y0), self._at(x1, y1)
        self._answered(lambda: self._drag(start, end))

    def show_frame(self, index: int) -> None:
        """Go to a frame of a stack."""
        shown = self.page.locator(".lsf-pagination__page-indicator")
        now = int(shown.inner_text().split()[0]) - 1
        arrow = ".lsf-pagination__btn_arrow-" + ("right" if index > now else "left")
        for number in range(now, index, 1 if index > now else -1):
            self.page.locator(f"{arrow}:not({arrow}-double)").click()
            expect(shown).not_to_have_text(re.compile(rf"^\s*{number + 1}\b"))
        self._wait_for_image()

    def accept(self) -> None:
        """Accept all suggestions."""
        self.page.get_by_test_id("bottombar-accept-suggestions-button").click()
        expect(self.page.get_by_test_id("bottombar-accept-suggestions-button")).to_have_count(0)

    def submit(self) -> int:
        """Submit the annotation, or update it; gives its number."""
        with self.page.expect_response(_saves_annotation) as saved:
            self.page.locator("button", has_text=re.compile("^(Submit|Update)$")).click()
        return int(saved.value.json()["id"])

    def regions(self) -> int:
        """Number of regions of the annotation; the list at the side holds those that are in sight."""
        return int(self.page.evaluate("window.Htx.annotationStore.selected.regions.length"))

    def seen_mask(self) -> np.ndarray:
        """Where the image is coloured, (height, width) bool in pixels of the screen.

        The images of these tests are grey, so all colour is regions'.
        """
        self.page.mouse.move(VIEW["width"] - 5, 5)  # what is under the mouse is drawn in another way
        image = self._image_box()
        window = self.page.locator("img[alt=image]").first.evaluate(_VISIBLE)
        pixels = np.asarray(Image.open(io.BytesIO(self.page.screenshot(clip=window))).convert("RGB")).astype(int)
        coloured = (pixels.max(2) - pixels.min(2)) > 25
        left, top = round(window["x"] - image["x"]), round(window["y"] - image["y"])
        seen = np.zeros((round(image["height"]), round(image["width"])), bool)
        part = seen[top:, left:][: coloured.shape[0], : coloured.shape[1]]
        part[:] = coloured[: part.shape[0], : part.shape[1]]
        return seen

    def screenshot(self, path: Path) -> None:
        """The window as the annotator sees it, small enough for a page of documentation."""
        self.page.mouse.move(VIEW["width"] - 5, 5)
        self.page.wait_for_timeout(300)
        picture = Image.open(io.BytesIO(self.page.screenshot())).convert("RGB")
        height = round(picture.height * PICTURE_WIDTH / picture.width)
        picture = picture.resize((PICTURE_WIDTH, height), Image.Resampling.LANCZOS)
        picture.quantize(128, dither=Image.Dither.NONE).save(path, optimize=True)

    def _switch(self, label: str, on: bool) -> None:
        toggle = self.page.get_by_label(label, exact=True)
        expect(toggle).to_be_attached()
        if toggle.is_checked() != on:
            self.page.get_by_text(label, exact=True).click()
        expect(toggle).to_be_checked(checked=on)

    def _canvas(self) -> Locator:
        return self.page.locator(".konvajs-content").first

    def _wait_for_image(self) -> None:
        """Wait until the image is there and has found its size."""
        self.page.wait_for_function("[...document.querySelectorAll('img[alt=image]')].some(i => i.naturalWidth)")
        image, sizes = self.page.locator("img[alt=image]").first, [0.0]
        while len(set(sizes[-4:])) > 1 or len(sizes) < 5:
            self.page.wait_for_timeout(100)
            box = image.bounding_box()
            sizes.append(box["x"] + 1e4 * box["width"] if box else -len(sizes))

    def _image_box(self) -> Any:
        """Where the image is on the screen: x, y, width, height."""
        self._wait_for_image()
        box = self.page.locator("img[alt=image]").first.bounding_box()
        assert box is not None
        return box

    def _at(self, x: float, y: float) -> tuple[float, float]:
        box = self._image_box()
        width, height = self.page.locator("img[alt=image]").first.evaluate("i => [i.naturalWidth, i.naturalHeight]")
        return box["x"] + (x + 0.5) * box["width"] / width, box["y"] + (y + 0.5) * box["height"] / height

    def _press(self, at: tuple[float, float], alt: bool) -> None:
        if alt:
            self.page.keyboard.down("Alt")
        self.page.mouse.click(*at)
        if alt:
            self.page.keyboard.up("Alt")

    def _drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        self.page.mouse.move(*start)
        self.page.mouse.down()
        self.page.mouse.move(*((a + b) / 2 for a, b in zip(start, end)))
        self.page.mouse.move(*end)
        self.page.mouse.up()

    def _answered(self, act: Callable[[], None]) -> None:
        with self.page.expect_response(re.compile("/interactive-annotating")) as answer:
            act()
        body = answer.value.json()
        assert "errors" not in body, body["errors"]
        self.page.wait_for_function("!window.Htx.awaitingSuggestions")
        self.page.wait_for_timeout(300)  # until it is painted


def _saves_annotation(response: Response) -> bool:
    saves = response.request.method in ("POST", "PATCH") and response.ok
    return saves and bool(re.search(r"/api/(tasks/\d+/annotations|annotations/\d+)", response.url))
