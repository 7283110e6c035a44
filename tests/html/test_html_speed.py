"""How large the page is and how quickly it answers: limits with a fivefold guard where a clock is involved."""

from __future__ import annotations

import base64
import gzip
import statistics
import time
from collections.abc import Callable
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from gradwatch.findings import Analysis, Finding
from gradwatch_html import HtmlReporter
from gradwatch_html.paint import PLOTLY
from tests.html.building import lengthened, synthetic
from tests.html.conftest import Sheet, wait_for
from tests.html.reading import drag

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

GUARD = 5
REPEATS = 5
ZOOM_MS, LAYER_MS = 200, 500
LOADS = 4
"""The page may take so many times what plotly.js alone takes to load in the same browser."""

RENDER_SECONDS = 15


@cache
def large(blocks: int, steps: int) -> str:
    """Returns the page of a run of 2 * blocks layers, every signal captured at every step, with a finding."""
    recording = lengthened(synthetic(blocks, 3), steps)
    names = recording.sites.layers
    found = Finding(
        "spike", "warning", "A spike", names[7], tuple(names[7:40]), steps // 2, steps // 2 + 3, (), "", (), ""
    )
    analysis = Analysis((found,), ("exploding",), {}, steps, len(names), "A spike.")
    began = time.perf_counter()
    html = HtmlReporter().render(recording, analysis)
    assert time.perf_counter() - began < RENDER_SECONDS
    return html


@pytest.mark.parametrize(("blocks", "steps", "limit"), [(500, 1400, 6_000_000), (5000, 200, 8_000_000)])
def test_the_page_stays_small(blocks: int, steps: int, limit: int) -> None:
    """1,000 layers stay within 6 MB and 10,000 within 8 MB, rendered in 15 s, with more steps than columns."""
    assert len(large(blocks, steps).encode()) <= limit


def test_size_does_not_depend_on_the_runs_length() -> None:
    """A run of ten times as many steps gives a page that is larger by less than a third."""
    short, long = (len(large(100, steps)) for steps in (1500, 15000))
    assert long < 1.33 * short


@pytest.mark.browser
def test_the_first_screen_is_painted_before_the_plots(open_page: Sheet) -> None:
    """The verdict is on the screen before plotly.js is there."""
    page = open_page(large(500, 1400))
    painted = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
    drawn = page.evaluate("performance.getEntriesByName('heatmap')[0].startTime")
    assert painted < drawn


@pytest.mark.browser
def test_the_page_is_ready_within_four_loads_of_plotly(chromium: Browser, tmp_path: Path) -> None:
    """Everything of 1,000 layers is drawn within four times what plotly.js alone takes to load (medians of 5)."""
    bundle = base64.b64encode(files("gradwatch_html").joinpath("assets", PLOTLY).read_bytes()).decode()
    alone, whole = tmp_path / "alone.html", tmp_path / "whole.html"
    code = gzip.decompress(base64.b64decode(bundle)).decode()
    alone.write_text(
        f"<!doctype html><script>{code}</script><script>document.documentElement.dataset.ready = 'true'</script>"
    )
    whole.write_text(large(500, 1400))

    def seconds(path: Path) -> float:
        page = chromium.new_page()
        began = time.perf_counter()
        page.goto(path.as_uri())
        wait_for(page, "document.documentElement.dataset.ready === 'true'", 60)
        taken = time.perf_counter() - began
        page.close()
        return taken

    base = statistics.median(seconds(alone) for _ in range(REPEATS))
    assert statistics.median(seconds(whole) for _ in range(REPEATS)) < GUARD * LOADS * base


@pytest.mark.browser
@pytest.mark.parametrize(("blocks", "steps"), [(500, 1400), (5000, 200)])
def test_zoom_and_change_of_layer_are_quick(open_page: Sheet, blocks: int, steps: int) -> None:
    """Zooming answers within 200 ms and another layer is there within 500 ms, at 1,000 and at 10,000 layers."""
    page = open_page(large(blocks, steps))
    page.evaluate("document.addEventListener('pointerup', () => performance.mark('released'), true)")

    def zoom() -> float:
        wait_until_done(page, "heatmap", lambda: drag(page, "#heatmap", (0.2, 0.2), (0.7, 0.8)))
        end = "(e => e.startTime + e.duration)(performance.getEntriesByName('heatmap').at(-1))"
        taken: float = page.evaluate(f"{end} - performance.getEntriesByName('released').at(-1).startTime")
        page.wait_for_timeout(400)
        wait_until_done(page, "layer", lambda: page.keyboard.press("Escape"))
        return taken

    def layer() -> float:
        wait_until_done(page, "layer", lambda: page.keyboard.press("j"))
        taken: float = page.evaluate("performance.getEntriesByName('layer').at(-1).duration")
        return taken

    assert statistics.median(zoom() for _ in range(REPEATS)) < GUARD * ZOOM_MS
    assert statistics.median(layer() for _ in range(REPEATS)) < GUARD * LAYER_MS


def wait_until_done(page: Page, what: str, action: Callable[[], None]) -> None:
    """Does something and waits until the page has measured one more drawing of ``what``."""
    before = page.evaluate(f"performance.getEntriesByName('{what}').length")
    action()
    wait_for(page, f"performance.getEntriesByName('{what}').length > {before}", 30)
