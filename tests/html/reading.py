"""What the browser tests ask a page, and how they move the mouse in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gradwatch.analyze import analyze
from gradwatch.recording import Recording
from gradwatch_html import HtmlReporter

if TYPE_CHECKING:
    from playwright.sync_api import Page


def render(recording: Recording) -> str:
    """Returns a run's page."""
    return HtmlReporter().render(recording, analyze(recording))


def gutter(page: Page) -> list[str]:
    """Returns the names beside the heatmap, from top to bottom."""
    return page.locator("#tree bdi").all_inner_texts()


def layer_shown(page: Page) -> str:
    """Returns the name of the layer whose page is open."""
    return page.inner_text("#layer-name")


def place(page: Page, plot: str, across: float, down: float) -> tuple[float, float]:
    """Scrolls to a plot and returns a point of its area in the window, at a share of its width and height."""
    page.locator(plot).scroll_into_view_if_needed()
    area: Any = page.locator(f"{plot} .nsewdrag").first.bounding_box()
    return area["x"] + area["width"] * across, area["y"] + area["height"] * down


def drag(page: Page, plot: str, start: tuple[float, float], end: tuple[float, float], *, key: str = "") -> None:
    """Drags in a plot from one share of its width and height to another, holding a key."""
    at = place(page, plot, *start)
    to = place(page, plot, *end)
    if key:
        page.keyboard.down(key)
    page.mouse.move(*at)
    page.mouse.down()
    page.mouse.move(*to, steps=5)
    page.mouse.up()
    if key:
        page.keyboard.up(key)


def colour_at(page: Page, across: float, down: float) -> list[int]:
    """Returns the heatmap's colour at a share of its width and height, as red, green, blue and opacity."""
    found: list[int] = page.evaluate(
        "([x, y]) => (c => [...c.getContext('2d').getImageData(Math.floor(x * c.width), Math.floor(y * c.height), "
        "1, 1).data])(document.getElementById('cells'))",
        [across, down],
    )
    return found
