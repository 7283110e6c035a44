"""Runs with too little, too much, or nothing but trouble in them: each opens as a page that says so."""

from __future__ import annotations

from itertools import cycle

import pytest

from gradwatch.findings import Analysis, Finding
from gradwatch.silences import parsed, silenced
from gradwatch_html import HtmlReporter
from tests.html.building import dense, lengthened, synthetic
from tests.html.conftest import Sheet, wait_for
from tests.html.reading import colour_at, gutter, layer_shown, render
from tests.html.test_html_browser import PAYLOADS
from tests.html.test_html_heatmap import BAD

pytestmark = pytest.mark.browser

SECTIONS = ("layers", "time", "depth", "layer")


def sections(page: object) -> set[str]:
    """Returns which of the page's plots are there."""
    found: list[str] = page.evaluate(f"{list(SECTIONS)}.filter(id => document.getElementById(id)?.offsetParent)")  # type: ignore[attr-defined]
    return set(found)


def test_without_a_step_the_page_says_why_and_draws_nothing(open_page: Sheet) -> None:
    """No captured step: the verdict, the likely reason, and no plot."""
    page = open_page(render(synthetic(6, 0)))
    assert page.inner_text("h1") == "Cannot judge: no step was captured."
    assert "Check that the watched optimizer is the one that steps" in page.inner_text(".calm")
    assert sections(page) == set()


def test_one_step_is_drawn_by_depth_and_as_bars(open_page: Sheet) -> None:
    """Nothing over time; the flow by depth, a histogram of bars, and the numbers of the step in words."""
    page = open_page(render(synthetic(6, 1)))
    assert page.inner_text("h1") == "Too little data to judge: 1 captured step."
    assert sections(page) == {"depth", "layer"}
    assert page.evaluate("document.getElementById('histogram').data[0].type") == "bar"
    assert "gradient rms" in page.inner_text("#layer-facts")
    assert page.locator(".slider").is_hidden()


def test_two_steps_are_drawn_over_time_and_not_judged(open_page: Sheet) -> None:
    """Two columns, values instead of changes, and no layer called healthy."""
    page = open_page(render(synthetic(6, 2)))
    assert page.inner_text("h1") == "Too little data to judge: 2 captured steps."
    assert page.get_attribute("[data-view=value]", "aria-pressed") == "true"
    assert colour_at(page, 0.2, 0.5) != colour_at(page, 0.8, 0.5)
    assert page.locator(".strip .l-healthy").count() == 0


def test_one_layer_is_its_own_overview(open_page: Sheet) -> None:
    """No strip, no heatmap and no depth: the layer's page is the run's."""
    page = open_page(render(synthetic(1, 40)))
    assert sections(page) == {"time", "layer"}
    assert page.locator(".strip").count() == 0
    assert layer_shown(page) == "blocks.0.linear"


def test_nan_from_a_step_on_is_the_verdict_and_has_its_colour(open_page: Sheet) -> None:
    """The heatmap shows it from that step on, the finite part before it, and the layer's chart marks it."""
    page = open_page(render(dense(["a.0", "a.1", "b.0", "b.1"], 60, bad_from=30)))
    assert "step 30" in page.inner_text("h1")
    page.select_option("#metric", "gradient")
    wait_for(page, "document.getElementById('metric').value === 'gradient'")
    assert colour_at(page, 40 / 60, 0.9) == BAD
    assert colour_at(page, 10 / 60, 0.9) != BAD
    assert colour_at(page, 40 / 60, 0.1) != BAD
    marked = "document.getElementById('gradient').data.find(t => t.marker?.symbol === 'line-ns')?.x[0]"
    assert page.evaluate(marked) == 30
    assert "non-finite from step 30" in (page.get_attribute("#gradient", "aria-label") or "")


def test_nothing_but_zeros_is_drawn_as_zeros(open_page: Sheet) -> None:
    """Exact zeros are a grey of their own in heatmap and legend, crosses in the curves, and no slope is fitted."""
    page = open_page(render(dense(["a", "b", "c"], 30, scale=lambda *_: 0.0)))
    assert "exactly zero" in page.inner_text("#heatmap-legend")
    assert "exactly zero" in page.inner_text("#flow-legend")
    assert "fitted" not in page.inner_text("#flow-legend")


def test_ten_thousand_layers_are_found_and_folded(open_page: Sheet) -> None:
    """The list of hits ends at 50, the table at 400 rows, and folding leaves a row a module."""
    recording = lengthened(synthetic(5000, 2), 12)
    page = open_page(HtmlReporter().render(recording, Analysis((), ("spike",), {}, 12, 5000, "Fine.")))
    page.fill("#find", "blocks")
    assert page.locator("#hits li").count() == 50
    page.press("#find", "Escape")
    page.click("[data-table=heatmap]")
    assert 100 < page.locator("#heatmap-table tbody tr").count() <= 400
    assert 10 < len(gutter(page)) < 40
    page.click("#fold")
    wait_for(page, "document.querySelectorAll('#tree bdi').length === 1")


def test_ranks_that_disagree_are_told_under_the_verdict(open_page: Sheet) -> None:
    """A note on data quality stands on the first screen and again among the facts."""
    note = "Ranks 0 and 1 disagree about the gradients from step 12 on."
    page = open_page(render(dense(["a", "b"], 30, quality=(note,))))
    assert page.locator(".first .quality").inner_text() == note
    assert note in page.inner_text("#facts")


def test_strange_names_stay_apart_and_on_the_screen(open_page: Sheet) -> None:
    """500 characters, right-to-left, emoji and markup: shortened, isolated, told apart, without scrolling sideways."""
    names = ["قسم.طبقة", "🧠.💥", "x" * 500, "x" * 499 + "y", "</script><b>", "שכבה.0"]
    for width in (320, 1280):
        page = open_page(render(dense(names, 20, dtype="float16")), viewport={"width": width, "height": 700})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        shown = gutter(page)
        assert len(set(shown)) == len(names)
        assert shown[4] == names[4]
        page.fill("#find", "xy")
        page.press("#find", "Enter")
        assert layer_shown(page).endswith("xy")
        assert page.get_attribute("#layer-name bdi", "title") == names[3]


def test_a_silenced_finding_does_not_make_a_run_healthy(open_page: Sheet) -> None:
    """When nothing else was found, the page says that, and names what was silenced."""
    quiet = Finding("spike", "warning", "A spike", "a", ("a",), 3, 4, (), "", (), "")
    analysis = silenced(Analysis((quiet,), ("exploding",), {}, 30, 2), parsed("spike"))
    page = open_page(HtmlReporter().render(dense(["a", "b"], 30), analysis))
    assert page.inner_text("h1") == "Nothing else was found in all 2 layers over 30 steps; 1 silenced."
    assert "A spike" in page.inner_text("#silenced")


def test_payloads_in_every_field_of_findings_run_nowhere(open_page: Sheet) -> None:
    """Each text of a finding, of its symptoms and of the analysis is text, also unfolded, in the lanes and on paper."""
    text = cycle(PAYLOADS)

    def hostile(*symptoms: Finding) -> Finding:
        words = [next(text) for _ in range(12)]
        layers = (words[2], "b")
        story = ((words[3], words[4]), words[5], (words[6], words[7]), words[8], "low", words[9], "")
        return Finding(words[0], "critical", words[1], words[2], layers, 3, None, *story, None, symptoms)

    found = tuple(hostile(hostile()) for _ in range(len(PAYLOADS) // 12))
    checks = {payload: payload for payload in PAYLOADS[:30]}
    analysis = Analysis(found, tuple(PAYLOADS), checks, 30, 3, PAYLOADS[5], (hostile(),))
    names = [*dict.fromkeys(layer for finding in found for layer in finding.layers)]
    page = open_page(HtmlReporter(created=PAYLOADS[9]).render(dense(names, 30, name=PAYLOADS[3]), analysis))
    page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    for key in "rrrmvjkd":
        page.keyboard.press(key)
        page.wait_for_timeout(40)
    for table in ("heatmap", "lanes", "flow", "gradient"):
        page.click(f"[data-table={table}]")
    page.locator("[data-show]").first.click()
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.wait_for_timeout(200)
    assert page.evaluate("document.querySelectorAll('main img, iframe, main script, main style').length") == 0
    assert PAYLOADS[0] in page.inner_text("body")
