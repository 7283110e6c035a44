"""The page can be read and used by everyone: an automatic audit, focus order, motion, print."""

from __future__ import annotations

import gzip
import hashlib
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from gradwatch.recording import Recording
from tests.html.building import dense, synthetic
from tests.html.conftest import Sheet, wait_for
from tests.html.reading import render

if TYPE_CHECKING:
    from playwright.sync_api import Page

AXE = Path(__file__).parent / "axe" / "axe-core-4.10.3.min.js.gz"
AXE_SHA256 = "880970c081707360e64f34cea25ff91892f5bc95675b0776925b9709dd8a68bb"
"""Of the file ``axe.min.js`` of the npm package ``axe-core`` 4.10.3 (MPL 2.0, licences beside it)."""


@cache
def axe() -> str:
    return gzip.decompress(AXE.read_bytes()).decode()


def violations(page: Page) -> list[str]:
    """Runs all of axe's rules over the page and returns what they find, each with the first element."""
    page.evaluate(f"{axe()}; 0")
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
    return [f"{rule['id']}: {rule['nodes'][0]['html'][:200]}" for rule in found]


def test_the_auditor_is_the_known_one() -> None:
    """axe-core has its hash and its version, and its licences lie beside it."""
    data = gzip.decompress(AXE.read_bytes())
    assert hashlib.sha256(data).hexdigest() == AXE_SHA256
    assert data.startswith(b"/*! axe v4.10.3")
    assert "Mozilla Public License" in (AXE.parent / "axe-core-LICENSE.txt").read_text()


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(
    ("recording", "width"),
    [
        (synthetic(12, 120, "vanishing"), 1280),
        (synthetic(12, 120, "vanishing"), 390),
        (dense([f"b.{i}.{n}" for i in range(4) for n in "qk"], 60, bad_from=30, dtype="float16"), 1280),
        (synthetic(6, 0), 1280),
        (synthetic(8, 200), 1280),
    ],
    ids=["vanishing", "phone", "non-finite", "no step", "healthy"],
)
def test_the_audit_finds_nothing(open_page: Sheet, recording: Recording, width: int, scheme: str) -> None:
    """With everything unfolded and a table shown, axe finds no violation."""
    page = open_page(render(recording), viewport={"width": width, "height": 800}, color_scheme=scheme)
    page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    for table in ("heatmap", "gradient"):
        if page.locator(f"[data-table={table}]").count() and page.locator(f"[data-table={table}]").is_visible():
            page.click(f"[data-table={table}]")
    assert violations(page) == []


@pytest.mark.browser
def test_the_audit_covers_keys_search_and_marks(open_page: Sheet) -> None:
    """The dialog of keys, the list of hits, and the bar of marked steps pass as well."""
    page = open_page(render(synthetic(12, 120, "vanishing")), link="#mark=20-60")
    page.fill("#find", "blocks")
    assert violations(page) == []
    page.press("#find", "Escape")
    page.keyboard.press("?")
    assert violations(page) == []


@pytest.mark.browser
def test_the_focus_goes_through_the_page_from_top_to_bottom(open_page: Sheet) -> None:
    """Tab visits what can be used in the order in which it is read, each time with a visible ring."""
    page = open_page(render(synthetic(4, 120, "vanishing")))
    page.evaluate("document.activeElement.blur()")
    seen: list[tuple[float, str]] = []
    for _ in range(60):
        page.keyboard.press("Tab")
        at = page.evaluate(
            "(e => e === document.body ? null : [e.getBoundingClientRect().top + scrollY, e.id || e.className || "
            "e.tagName, getComputedStyle(e).outlineStyle, e.closest('header, #tree') !== null])(document.activeElement)"
        )
        if at is None:
            break
        assert at[2] != "none" or at[1] == "layer-name", at
        if not at[3]:
            seen.append((at[0], at[1]))
    tops = [top for top, _ in seen]
    assert len(seen) > 15
    assert all(later > earlier - 60 for earlier, later in pairwise(tops)), seen


@pytest.mark.browser
def test_every_plot_says_in_a_sentence_what_it_shows(open_page: Sheet) -> None:
    """The label of each visible plot and of the strip has words and numbers of this run."""
    page = open_page(render(synthetic(12, 120, "vanishing")))
    labels = page.locator("[role=img][aria-label]:visible").evaluate_all("all => all.map(e => e.ariaLabel)")
    sentences = [label for label in labels if label not in ("critical", "warning", "notice")]
    assert len(sentences) >= 10
    for sentence in sentences:
        assert len(sentence.split()) >= 4, sentence
        assert any(character.isdigit() for character in sentence), sentence


@pytest.mark.browser
def test_reduced_motion_stops_animation(open_page: Sheet) -> None:
    """Who wants less motion gets no player, no transition and no smooth scrolling."""
    page = open_page(render(synthetic(6, 60, "vanishing")), reduced_motion="reduce")
    assert page.locator("#play").is_hidden()
    assert page.evaluate("getComputedStyle(document.documentElement).scrollBehavior") == "auto"
    assert page.evaluate("getComputedStyle(document.querySelector('.arrow')).transitionDuration") == "0s"


@pytest.mark.browser
def test_numbers_stay_on_one_line(open_page: Sheet) -> None:
    """On a phone a number such as 1.6e-10 is not broken at its minus."""
    page = open_page(render(synthetic(24, 120, "vanishing")), viewport={"width": 320, "height": 700})
    lines = page.locator(".number:visible").evaluate_all(
        "all => all.map(e => [e.textContent, e.getClientRects().length])"
    )
    assert len(lines) > 2
    assert {count for _, count in lines} == {1}


@pytest.mark.browser
def test_paper_shows_every_plot_light_and_unfolded(open_page: Sheet) -> None:
    """Printing from the dark page gives light plots within the paper, and brings the dark page back afterwards."""
    page = open_page(render(synthetic(12, 120, "vanishing")), color_scheme="dark")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print")
    wait_for(page, "document.querySelector('#flow').clientWidth <= 720")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    for hidden in ("#find", "#theme", ".controls", "#fold"):
        assert page.locator(hidden).first.is_hidden()
    assert page.locator("#cells").is_visible()
    page.emulate_media(media="screen")
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.evaluate("document.documentElement.dataset.theme") is None
