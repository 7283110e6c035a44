"""A recorded training of 212 layers over 2,000 steps in a real browser: the page names what was done to it."""

from __future__ import annotations

import statistics
from itertools import pairwise
from pathlib import Path

import pytest

import gradwatch
from gradwatch_html.palette import COLOURS
from tests.html.conftest import Sheet, wait_for
from tests.html.deep_training import CUT, CUT_STEP, STEPS
from tests.html.reading import drag, gutter, layer_shown, render
from tests.html.test_html_speed import GUARD, LAYER_MS, REPEATS, ZOOM_MS, wait_until_done

pytestmark = [pytest.mark.browser, pytest.mark.slow]

LAYERS = 212
ABSENT = [int(COLOURS["absent"][0][i : i + 2], 16) for i in (1, 3, 5)] + [255]


@pytest.fixture(scope="module")
def run(deep_run: Path) -> gradwatch.Run:
    return gradwatch.load(deep_run)


@pytest.fixture(scope="module")
def html(run: gradwatch.Run) -> str:
    return render(run.recording)


def column(across: float) -> str:
    """Writes an expression for the heatmap's colours at the middle of each layer's row, at a share of its width."""
    return (
        f"(c => (d => Array.from({{length: {LAYERS}}}, (_, i) => [...d.getImageData(Math.floor({across} * c.width), "
        f"Math.floor((i + 0.5) / {LAYERS} * c.height), 1, 1).data]))(c.getContext('2d')))"
        "(document.getElementById('cells'))"
    )


def test_the_verdict_names_the_planted_layers_and_step(open_page: Sheet, run: gradwatch.Run, html: str) -> None:
    """Of a block cut off at step 1,200 the first line names the layer and the step, and nothing else is critical."""
    page = open_page(html)
    verdict = page.inner_text("h1")
    assert CUT[-1] in verdict
    assert f"since step {CUT_STEP:,}" in verdict
    [finding] = [finding for finding in run.findings if finding.severity == "critical"]
    assert (finding.kind, finding.first_step, set(finding.layers)) == ("disconnected", CUT_STEP, set(CUT))
    assert f"{LAYERS} layers" in page.inner_text(".summary")
    assert f"{STEPS:,} captured steps" in page.inner_text(".summary")


def test_the_heatmap_shows_every_layer(open_page: Sheet, run: gradwatch.Run, html: str) -> None:
    """All 212 rows are painted, and after the cut those of the block, and no others, say that there is no gradient."""
    page = open_page(html)
    rows = page.evaluate(column(0.9))
    assert all(colour[3] == 255 for colour in rows)
    cut = [i for i, name in enumerate(run.recording.sites.layers) if name in CUT]
    assert [i for i, colour in enumerate(rows) if colour == ABSENT] == cut
    assert ABSENT not in page.evaluate(column(0.4))


def test_the_tree_of_modules_folds(open_page: Sheet, html: str) -> None:
    """A stage of 21 layers becomes one row, and what was found in it is still outlined there."""
    page = open_page(html)
    rows = "document.getElementById('heatmap').layout.yaxis.range[0] + 0.5"
    assert page.evaluate(rows) == LAYERS
    page.click("#tree [data-fold='stages.6']")
    wait_for(page, f"{rows} === {LAYERS - 20}")
    assert "stages.6" in gutter(page)
    assert page.evaluate("document.getElementById('heatmap').layout.annotations.map(a => a.text)") != []


def test_the_flow_by_depth_shows_the_hole(open_page: Sheet, html: str) -> None:
    """Of 212 layers each block is a point; the cut one is missing, and neither line nor band passes over it."""
    page = open_page(html, link=f"#step={STEPS - 1}")
    page.click("[data-table=flow]")
    rows = page.locator("#flow-table tbody tr").all_inner_texts()
    hole = next(i for i, row in enumerate(rows) if row.startswith("stages.6.blocks.3"))
    assert rows[hole].split("\t")[1:] == ["", "", ""]
    band, line = (page.evaluate(f"document.getElementById('flow').data[{i}]") for i in (0, 2))
    assert [i for i, value in enumerate(line["y"]) if value is None] == [hole]
    cuts = [-1, *(i for i, x in enumerate(band["x"]) if x is None)]
    spans = [(min(band["x"][a + 1 : b]), max(band["x"][a + 1 : b])) for a, b in pairwise(cuts)]
    assert spans == [(0, hole - 1), (hole + 1, len(rows) - 1)]


def test_a_link_opens_one_layer_of_many(open_page: Sheet, html: str) -> None:
    """A deep link leads to the layer, the step and the metric that it names."""
    page = open_page(html, link="#l=stages.3.blocks.7.up&step=1200&metric=absmax&view=value&x=1000-1400")
    assert layer_shown(page) == "stages.3.blocks.7.up"
    assert page.inner_text("#step-text") == "step 1,200"
    assert page.input_value("#metric") == "absmax"
    assert page.evaluate("document.getElementById('gradient').layout.xaxis.range") == [1000, 1400]


def test_zoom_and_change_of_layer_are_quick(open_page: Sheet, html: str) -> None:
    """Zooming answers within 200 ms and another layer is there within 500 ms (medians of 5, fivefold guard)."""
    page = open_page(html)
    zooms, layers = [], []
    for _ in range(REPEATS):
        wait_until_done(page, "layer", lambda: drag(page, "#heatmap", (0.2, 0.2), (0.7, 0.8)))
        zooms.append(page.evaluate("performance.getEntriesByName('heatmap').at(-1).duration"))
        wait_until_done(page, "layer", lambda: page.keyboard.press("Escape"))
        wait_until_done(page, "layer", lambda: page.keyboard.press("j"))
        layers.append(page.evaluate("performance.getEntriesByName('layer').at(-1).duration"))
    assert statistics.median(zooms) < GUARD * ZOOM_MS
    assert statistics.median(layers) < GUARD * LAYER_MS
