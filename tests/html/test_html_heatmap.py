"""The heatmap in a real browser: its rows fold and change order, its cells lose nothing, and its steps are shared."""

from __future__ import annotations

import pytest

from gradwatch_html.palette import COLOURS
from tests.html.building import USUAL, dense, synthetic
from tests.html.conftest import Sheet, wait_for
from tests.html.reading import colour_at, drag, gutter, layer_shown, place, render

pytestmark = pytest.mark.browser

BLOCKS = [f"blocks.{i}.{part}" for i in range(4) for part in ("attn.q", "attn.k", "mlp.up")]
STEPS = 120
SHAKEN = ("blocks.2.attn.k", 60)
BAD = [int(COLOURS["bad"][0][i : i + 2], 16) for i in (1, 3, 5)] + [255]


def shaken(signal: str, layer: int, step: int) -> float:
    """Scale of the elements: one layer's gradient grows 1000-fold after a third of the run."""
    louder = signal == "gradient" and BLOCKS[layer] == SHAKEN[0] and step >= SHAKEN[1]
    return USUAL[signal] * (1000 if louder else 1)


@pytest.fixture(scope="module")
def blocks() -> str:
    return render(dense(BLOCKS, STEPS, scale=shaken))


def test_the_gutter_names_every_row_and_brackets_its_modules(open_page: Sheet, blocks: str) -> None:
    """With room each layer has its name, from input to output, and each module a bar of the height of its rows."""
    page = open_page(blocks)
    assert gutter(page) == BLOCKS
    bars = page.locator("#tree .bar").evaluate_all("bars => bars.map(b => [b.dataset.fold, b.offsetHeight])")
    assert [name for name, _ in bars if name.count(".") < 2] == ["blocks", *(f"blocks.{i}" for i in range(4))]
    assert dict(bars)["blocks"] > 3.5 * dict(bars)["blocks.1"]


def test_a_folded_module_is_one_row_and_shows_the_strongest_of_its_layers(open_page: Sheet, blocks: str) -> None:
    """Folding by mouse leaves one row, hovering it names the layer that stands out, and it opens again."""
    page = open_page(blocks)
    page.click("[data-view=change]")
    page.click("#tree [data-fold='blocks.2']")
    wait_for(page, "document.querySelector('#tree [aria-expanded=false]') !== null")
    names = gutter(page)
    assert len(names) == len(BLOCKS) - 2
    assert names[6] == "blocks.2"
    page.mouse.move(*place(page, "#heatmap", 0.9, 6.5 / 10))
    wait_for(page, "!document.getElementById('tip').hidden")
    tip = page.inner_text("#tip")
    assert SHAKEN[0] in tip
    assert "3 layers in blocks.2" in tip
    page.click("#tree [data-fold='blocks.2']")
    wait_for(page, "document.querySelector('#tree [aria-expanded=false]') === null")
    assert gutter(page) == BLOCKS


def test_modules_fold_by_keyboard_and_the_focus_stays(open_page: Sheet, blocks: str) -> None:
    """A bar is a button: Enter folds, and the row that takes its place has the focus."""
    page = open_page(blocks)
    page.focus("#tree [data-fold='blocks.1']")
    page.keyboard.press("Enter")
    wait_for(page, "document.activeElement.ariaExpanded === 'false'")
    assert page.evaluate("document.activeElement.dataset.fold") == "blocks.1"


def test_all_modules_fold_and_open_by_one_button(open_page: Sheet, blocks: str) -> None:
    """One click leaves the outermost modules, the next brings every layer back."""
    page = open_page(blocks)
    page.click("#fold")
    wait_for(page, "document.querySelectorAll('#tree bdi').length === 1")
    page.click("#fold")
    wait_for(page, "document.querySelectorAll('#tree bdi').length === 12")


def test_rows_stand_by_kind_and_by_change(open_page: Sheet, blocks: str) -> None:
    """By kind all attn.q stand together; most changed first puts the layer that changed on top."""
    page = open_page(blocks)
    page.select_option("#rows", "kind")
    wait_for(page, "document.querySelector('#tree bdi').textContent === 'blocks.0.attn.q'")
    wait_for(page, "document.querySelectorAll('#tree bdi')[1].textContent === 'blocks.1.attn.q'")
    assert gutter(page)[4:8] == [f"blocks.{i}.attn.k" for i in range(4)]
    page.keyboard.press("r")
    wait_for(page, f"document.querySelector('#tree bdi').textContent === '{SHAKEN[0]}'")
    assert page.input_value("#rows") == "change"
    page.keyboard.press("r")
    wait_for(page, "document.getElementById('rows').value === 'depth'")


def test_a_finding_is_outlined_where_its_rows_stand(open_page: Sheet) -> None:
    """In another order of the rows the outline moves with them."""
    page = open_page(render(dense(BLOCKS, STEPS, bad_from=60)))
    outlined = "s => s.type === 'rect' && s.yref === 'paper' && s.xref === 'paper'"
    boxes = f"document.getElementById('heatmap').layout.shapes.filter({outlined})"
    [low, high] = page.evaluate(f"(s => [s.y0, s.y1])({boxes}[0])")
    assert (low, high) == pytest.approx((0, 0.5), abs=0.01)
    page.select_option("#rows", "change")
    wait_for(page, f"{boxes}[0].y1 === 1")
    assert page.evaluate(f"{boxes}[0].y0") == pytest.approx(0.5, abs=0.01)


def test_a_single_nan_is_painted_among_a_thousand_layers(open_page: Sheet) -> None:
    """No row is skipped: one layer of 1000 that turns non-finite has its colour on the canvas."""
    names = [f"blocks.{i}.linear" for i in range(1000)]
    hit = ("gradient", 618, 7)
    page = open_page(render(dense(names, 12, scale=lambda *at: float("nan") if at == hit else USUAL[at[0]])))
    page.select_option("#metric", "gradient")
    wait_for(page, "document.getElementById('metric').value === 'gradient'")
    assert colour_at(page, 7.5 / 12, 618.5 / 1000) == BAD
    assert colour_at(page, 5.5 / 12, 618.5 / 1000) != BAD


def test_clicking_a_cell_opens_its_layer(open_page: Sheet, blocks: str) -> None:
    """The cell under the mouse, not its neighbour, and so does the name beside it."""
    page = open_page(blocks)
    page.mouse.click(*place(page, "#heatmap", 0.5, 4.5 / 12))
    assert layer_shown(page) == BLOCKS[4]
    page.click("#tree [data-layer='9']")
    assert layer_shown(page) == BLOCKS[9]


def test_a_double_click_brings_everything_back(open_page: Sheet, blocks: str) -> None:
    """What dragging has zoomed two clicks undo, without opening a layer; one click opens it."""
    page = open_page(blocks)
    drag(page, "#heatmap", (0.2, 0.1), (0.6, 0.6))
    wait_for(page, "!document.getElementById('reset').hidden")
    assert len(gutter(page)) < len(BLOCKS)
    open_layer = layer_shown(page)
    page.mouse.click(*place(page, "#heatmap", 0.5, 0.5))
    wait_for(page, f"document.getElementById('layer-name').textContent !== '{open_layer}'")
    open_layer = layer_shown(page)
    page.mouse.dblclick(*place(page, "#heatmap", 0.5, 0.1))
    wait_for(page, "document.getElementById('reset').hidden")
    assert gutter(page) == BLOCKS
    assert layer_shown(page) == open_layer


def test_a_zoom_over_steps_is_shared_by_every_plot(open_page: Sheet, blocks: str) -> None:
    """The lanes and the layer's charts show the steps that the heatmap shows; Escape brings all back."""
    page = open_page(blocks)
    drag(page, "#heatmap", (0.25, 0.1), (0.5, 0.9))
    wait_for(page, "location.hash.includes('x=')")
    ranges = "['heatmap', 'lanes', 'gradient', 'histogram'].map(id => document.getElementById(id).layout.xaxis.range)"
    same = f"new Set({ranges}.map(String)).size === 1"
    wait_for(page, same)
    low, high = page.evaluate(ranges)[0]
    assert 25 < low < high < 65
    page.keyboard.press("Escape")
    wait_for(page, "!location.hash.includes('x=')")
    wait_for(page, same)
    assert page.evaluate(ranges)[0] == [-0.5, 119.5]


def test_steps_marked_in_one_plot_are_marked_in_all(open_page: Sheet, blocks: str) -> None:
    """Dragging with Shift marks; the bar zooms to what is marked, or clears it; Escape clears it as well."""
    page = open_page(blocks)
    second = (
        "(s => s.visible ? [Math.round(s.x0), Math.round(s.x1)] : null)(document.getElementById(id).layout.shapes[1])"
    )
    marked = f"['heatmap', 'lanes', 'gradient', 'histogram'].map(id => {second})"
    assert page.evaluate(marked) == [None] * 4
    drag(page, "#gradient", (0.25, 0.5), (0.5, 0.5), key="Shift")
    wait_for(page, "!document.getElementById('brush').hidden")
    first, *others = page.evaluate(marked)
    assert first == pytest.approx([29.5, 59.5], abs=1)
    assert others == [first] * 3
    assert "marked" in page.inner_text("#brush-text")
    assert "mark=" in page.url
    page.keyboard.press("Escape")
    assert page.evaluate(marked) == [None] * 4
    assert page.locator("#brush").is_hidden()
    drag(page, "#heatmap", (0.5, 0.5), (0.75, 0.5), key="Shift")
    page.click("#brush-zoom")
    wait_for(page, "location.hash.includes('x=')")
    wait_for(page, "document.getElementById('lanes').layout.xaxis.range[0] > 0")
    assert page.evaluate("document.getElementById('lanes').layout.xaxis.range") == pytest.approx([59.5, 89.5], abs=1)


def test_a_link_holds_order_folds_marks_and_zoom(open_page: Sheet, blocks: str) -> None:
    """What is shown is in the address, and the address shows it again, also in another run of the same network."""
    page = open_page(blocks, link="#l=blocks.3.mlp.up&rows=depth&fold=blocks.1&fold=blocks.3&mark=20-40&x=10-90")
    assert gutter(page)[3] == "blocks.1"
    assert page.locator("#tree [aria-expanded=false]").count() == 2
    assert len(gutter(page)) == len(BLOCKS) - 4
    assert page.evaluate("document.getElementById('lanes').layout.xaxis.range") == [10, 90]
    assert page.inner_text("#brush-text") == "steps 20 to 40 marked"
    page.keyboard.press("r")
    wait_for(page, "location.hash.includes('rows=kind')")
    again = open_page(render(dense(["stem", *BLOCKS], STEPS)), link=page.url[page.url.index("#") :])
    assert layer_shown(again) == "blocks.3.mlp.up"
    assert again.input_value("#rows") == "kind"
    assert again.evaluate("document.getElementById('gradient').layout.xaxis.range") == [10, 90]


def test_a_link_to_a_layer_that_is_gone_goes_by_its_place(open_page: Sheet, blocks: str) -> None:
    """A renamed layer is found by its index."""
    page = open_page(blocks, link="#l=renamed&i=5")
    assert layer_shown(page) == BLOCKS[5]


def test_a_huge_network_begins_with_its_modules_folded(open_page: Sheet) -> None:
    """Of 2100 layers in 700 blocks 700 rows are shown; one block, or all, can be opened."""
    names = [f"blocks.{i}.{part}" for i in range(700) for part in "abc"]
    page = open_page(render(dense(names, 3)))
    assert page.evaluate("document.getElementById('heatmap').layout.yaxis.range[0]") == 699.5
    page.click("#tree [data-fold='blocks.0']")
    wait_for(page, "document.getElementById('heatmap').layout.yaxis.range[0] === 701.5")
    assert "fold=" not in page.url
    page.click("#fold")
    wait_for(page, "location.hash.includes('fold=blocks')")
    page.click("#fold")
    wait_for(page, "document.getElementById('heatmap').layout.yaxis.range[0] === 2099.5")


def test_flow_names_its_slope_and_the_expected_one(open_page: Sheet) -> None:
    """The fitted line and the flat one are drawn beside the start, and the legend gives the slope."""
    page = open_page(render(synthetic(12, 120, "vanishing")))
    words = page.inner_text("#flow-legend")
    assert "decades per layer" in words
    assert "healthy: flat" in words
    lines = page.evaluate("document.getElementById('flow').data.map(t => t.y.length)")
    assert lines.count(2) == 2
    page.click("#play")
    step = page.inner_text("#step-text")
    wait_for(page, f"document.getElementById('step-text').textContent !== '{step}'")
    page.click("#play")
    assert page.get_attribute("#play", "aria-pressed") == "false"


def test_a_finding_explains_its_kind_offline(open_page: Sheet) -> None:
    """Under the finding the text of its rule opens: formula, limits and their sources."""
    page = open_page(render(synthetic(12, 120, "vanishing")))
    page.click(".explained summary")
    words = page.inner_text(".explained")
    for word in ("Formula", "Severity", "Source", "gradwatch explain vanishing"):
        assert word in words


def test_on_a_phone_names_beside_a_bar_leave_out_the_module(open_page: Sheet) -> None:
    """Where a whole name has no room its last parts are shown, not its ends with the block's number cut out."""
    names = [f"encoder_layers.{i}.projection" for i in range(8)]
    page = open_page(render(dense(names, 20)), viewport={"width": 390, "height": 844})
    assert gutter(page) == [f"{i}.projection" for i in range(8)]
