"""The axis of steps: logarithmic or linear, zoomed by key, by button and by mouse, the same in every plot."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gradwatch_html.buckets import bucket
from gradwatch_html.palette import COLOURS
from tests.html.building import USUAL, dense
from tests.html.conftest import Sheet, wait_for
from tests.html.reading import colour_at, drag, render
from tests.html.test_html_access import violations

STEPS, HIT = 1_200, 20
BAD = [int(COLOURS["bad"][0][i : i + 2], 16) for i in (1, 3, 5)] + [255]
RANGES = "['heatmap', 'lanes', 'gradient', 'histogram'].map(id => document.getElementById(id).layout.xaxis.range)"
ONE_RANGE = f"new Set({RANGES}.map(String)).size === 1"


@pytest.fixture(scope="module")
def html() -> str:
    return render(dense(["a", "b", "c"], STEPS, scale=hit))


def hit(signal: str, layer: int, step: int) -> float:
    """Scale of the elements: one layer's gradient is NaN at one early step."""
    return math.nan if (signal, layer, step) == ("gradient", 1, HIT) else USUAL[signal]


def place(step: float) -> float:
    """Returns where a step stands on the logarithmic axis, as a share of its length."""
    low, high = math.log10(0.5), math.log10(STEPS + 0.5)
    return (math.log10(step + 1) - low) / (high - low)


def test_the_first_steps_of_a_million_have_columns_of_their_own() -> None:
    """Of 700 columns more than 50 lie in the first 100 of a million steps; no step is in none or in two."""
    cut = bucket(np.arange(1_000_000), 700, early=True)
    assert len(cut) <= 700
    assert (cut.first < 100).sum() > 50
    assert (cut.first[0], cut.last[-1]) == (0, 999_999)
    assert (cut.first[1:] == cut.last[:-1] + 1).all()
    wide = cut.last - cut.first + 1
    assert wide.max() <= 1.2 * 1_000_000 / 700


@pytest.mark.parametrize("steps", [1, 2, 699, 700, 701, 5000])
def test_finer_first_columns_lose_no_step(steps: int) -> None:
    """Whatever the number of steps, each is in one column, and there are no more columns than asked for."""
    cut = bucket(np.arange(steps), 700, early=True)
    assert len(cut) <= 700
    assert np.concatenate([np.arange(a, b + 1) for a, b in zip(cut.first, cut.last, strict=True)]).tolist() == list(
        range(steps)
    )


@pytest.mark.browser
def test_a_logarithmic_axis_shows_the_first_steps_in_every_plot(open_page: Sheet, html: str) -> None:
    """By button, by key and by link: step 20 of 1,200 moves from the edge to where its logarithm lies."""
    page = open_page(html)
    assert page.evaluate(RANGES)[0] == [-0.5, STEPS - 0.5]
    page.click("#scale")
    wait_for(page, f"location.hash.includes('scale=log') && {ONE_RANGE}")
    assert page.evaluate(RANGES)[0] == pytest.approx([math.log10(0.5), math.log10(STEPS + 0.5)])
    assert page.get_attribute("#scale", "aria-pressed") == "true"
    assert "logarithmic" in (page.get_attribute("#heatmap", "aria-label") or "")
    assert place(HIT) > 0.4
    assert colour_at(page, place(HIT), 0.5) == BAD
    assert colour_at(page, place(HIT - 2), 0.5) != BAD
    ticks = page.locator("#heatmap .xtick text").all_text_contents()
    assert {"0", "10", "100", "1k"} <= set(ticks)
    again = open_page(html, link=page.url[page.url.index("#") :])
    assert again.evaluate(RANGES)[0] == page.evaluate(RANGES)[0]
    again.keyboard.press("l")
    wait_for(again, f"!location.hash.includes('scale=') && {ONE_RANGE}")
    assert again.evaluate(RANGES)[0] == [-0.5, STEPS - 0.5]


@pytest.mark.browser
def test_what_is_marked_and_zoomed_on_a_logarithmic_axis_are_steps(open_page: Sheet, html: str) -> None:
    """Dragging over the part of steps 9 to 99 marks and zooms to those; a link and the linear axis keep them."""
    page = open_page(html, link="#scale=log")
    drag(page, "#heatmap", (place(9), 0.5), (place(99), 0.5), key="Shift")
    wait_for(page, "!document.getElementById('brush').hidden")
    low, high = (int(word) for word in page.inner_text("#brush-text").split() if word.isdigit())
    assert [low, high] == pytest.approx([9, 99], abs=3)
    page.click("#brush-zoom")
    wait_for(page, f"location.hash.includes('x=') && {ONE_RANGE}")
    assert page.evaluate(RANGES)[0] == pytest.approx([1, 2], abs=0.05)
    page.keyboard.press("l")
    wait_for(page, f"!location.hash.includes('scale=') && {ONE_RANGE}")
    assert page.evaluate(RANGES)[0] == pytest.approx([low, high], abs=1.5)


@pytest.mark.browser
def test_keys_and_buttons_zoom_over_the_steps(open_page: Sheet, html: str) -> None:
    """+ halves what is shown, - doubles it, 0 shows all; with the heatmap focused the arrows move it, else the step."""
    page = open_page(html, link="#step=600")

    def shown() -> tuple[float, float]:
        wait_for(page, ONE_RANGE)
        low, high = page.evaluate(RANGES)[0]
        return low, high

    page.keyboard.press("+")
    wait_for(page, "location.hash.includes('x=')")
    low, high = shown()
    assert high - low == pytest.approx(STEPS / 2)
    assert low < 600 < high
    assert page.inner_text("#shown") == f"steps {math.ceil(low)} to {math.floor(high)}"
    page.focus("#heatmap")
    page.keyboard.press("ArrowLeft")
    wait_for(page, f"document.getElementById('histogram').layout.xaxis.range[0] < {low}")
    assert shown() == pytest.approx((low - STEPS / 8, high - STEPS / 8))
    page.click("[data-zoom=in]")
    wait_for(page, f"{RANGES}[3][1] - {RANGES}[3][0] < {STEPS / 3}")
    page.keyboard.press("-")
    page.keyboard.press("-")
    wait_for(page, "!location.hash.includes('x=')")
    assert shown() == (-0.5, STEPS - 0.5)
    page.keyboard.press("=")
    wait_for(page, "location.hash.includes('x=')")
    page.keyboard.press("0")
    wait_for(page, "!location.hash.includes('x=')")
    step = page.inner_text("#step-text")
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("ArrowLeft")
    wait_for(page, f"document.getElementById('step-text').textContent !== '{step}'")
    for _ in range(20):
        page.keyboard.press("+")
    wait_for(page, ONE_RANGE)
    low, high = page.evaluate(RANGES)[0]
    assert 4 <= high - low < 10


@pytest.mark.browser
def test_zoom_and_scale_are_documented_and_reached_by_everyone(open_page: Sheet, html: str) -> None:
    """Tab reaches the heatmap and each button, each has a name, keys are listed, and the audit finds nothing."""
    page = open_page(html, link="#scale=log&x=5-500")
    reached = set[str]()
    page.evaluate("document.activeElement.blur()")
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id || document.activeElement.dataset.zoom || ''"))
    assert {"heatmap", "scale", "reset", "in", "out", "left", "right"} <= reached
    names = page.locator("#zoom button:visible").evaluate_all("all => all.map(b => b.ariaLabel ?? b.textContent)")
    assert names == ["Reset zoom", "Earlier steps", "Zoom out", "Zoom in", "Later steps", "Log steps"]
    assert violations(page) == []
    footer = page.inner_text("footer")
    assert "zoom" in footer
    assert "log steps" in footer
    page.keyboard.press("?")
    for words in ("zoom in and out", "earlier, later steps", "the whole run again", "logarithmic"):
        assert words in page.inner_text("#keys")
