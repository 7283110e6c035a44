"""The page in a real browser: it works by mouse, by key and by link, offline, and runs nothing of a run's text."""

from __future__ import annotations

from html import escape
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from gradwatch.analyze import analyze
from gradwatch.recording import Recording
from gradwatch_html import HtmlReporter
from tests.html.building import dense, synthetic
from tests.html.conftest import Sheet, wait_for

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser

BREAKING = "</script><script>window.__xss=1</script>"
RUN = "window.__xss=1"
CARRIERS = (
    f"<script>{RUN}</script>",
    f"<img src=x onerror={RUN}>",
    f'<img src=x onerror="{RUN}">',
    f"<svg onload={RUN}>",
    f"<svg><script>{RUN}</script></svg>",
    f"<a href=javascript:{RUN}>x</a>",
    f"<iframe srcdoc='<script>parent.{RUN}</script>'>",
    f"<body onload={RUN}>",
    f"<details open ontoggle={RUN}>",
    f"<input autofocus onfocus={RUN}>",
    f"<math><mi xlink:href=javascript:{RUN}>",
    f"<style>@import 'javascript:{RUN}'</style>",
    f"&lt;script&gt;{RUN}&lt;/script&gt;",
    f"${{{RUN}}}",
    f"{{{{constructor.constructor('{RUN}')()}}}}",
)
BREAKERS = ("", "</script>", "</title></style></textarea>", '">', "'>", "-->", "]]>")
PAYLOADS = [f"{breaker}{carrier}" for breaker, carrier in product(BREAKERS, CARRIERS)]


def render(recording: Recording) -> str:
    return HtmlReporter().render(recording, analyze(recording))


@pytest.fixture(scope="module")
def sick() -> str:
    return render(synthetic(12, 120, "vanishing"))


def text(page: Page, selector: str) -> str:
    return page.inner_text(selector)


def layer_shown(page: Page) -> str:
    return text(page, "#layer-name")


def test_every_section_draws_its_plots(open_page: Sheet, sick: str) -> None:
    """Heatmap, lanes, flow and the layer's charts hold a drawn plot with an accessible sentence."""
    page = open_page(sick)
    for plot in ("heatmap", "lanes", "flow", "gradient", "histogram", "ratio", "activation", "delta"):
        assert page.evaluate(f"document.querySelectorAll('#{plot} .main-svg').length") > 0, plot
        assert len(page.get_attribute(f"#{plot}", "aria-label") or "") > 20
    axes = "[...document.querySelectorAll('.xaxislayer-above, .yaxislayer-above')]"
    assert max(page.evaluate(f"{axes}.map(axis => axis.querySelectorAll('text').length)")) <= 14


def test_tick_labels_of_an_axis_never_collide(open_page: Sheet, sick: str) -> None:
    """No two labels of one axis overlap, wide or narrow."""
    boxes = """[...document.querySelectorAll('.canvas')].flatMap(c => ['xtick', 'ytick', 'annotation'].map(k =>
        [...c.querySelectorAll(`.${k} text`)].map(t => t.getBoundingClientRect())
        .map(b => [b.x, b.y, b.right, b.bottom])))"""
    for width in (1440, 390):
        page = open_page(sick, viewport={"width": width, "height": 800})
        for group in page.evaluate(boxes):
            for i, a in enumerate(group):
                for b in group[:i]:
                    apart = a[2] <= b[0] + 1 or b[2] <= a[0] + 1 or a[3] <= b[1] + 2 or b[3] <= a[1] + 2
                    assert apart, (width, a, b)


def test_dark_and_light_switch_and_redraw(open_page: Sheet, sick: str) -> None:
    """The system's scheme is the start; button and key switch it, and the plots follow."""
    page = open_page(sick, color_scheme="dark")
    ground = "getComputedStyle(document.body).backgroundColor"
    ink = "document.querySelector('#flow')._fullLayout.font.color"
    dark = page.evaluate(f"[{ground}, {ink}]")
    page.click("#theme")
    light = page.evaluate(f"[{ground}, {ink}]")
    assert dark[0] != light[0]
    assert dark[1] != light[1]
    page.keyboard.press("d")
    assert page.evaluate(f"[{ground}, {ink}]") == dark


def test_keys_move_through_layers_steps_and_metrics(open_page: Sheet, sick: str) -> None:
    """j, k, the arrows, m, v and ? do what the footer says."""
    page = open_page(sick)
    first = layer_shown(page)
    page.keyboard.press("j")
    assert layer_shown(page) != first
    page.keyboard.press("k")
    assert layer_shown(page) == first
    step = text(page, "#step-text")
    page.keyboard.press("ArrowRight")
    wait_for(page, f"document.getElementById('step-text').textContent !== '{step}'")
    metric = page.input_value("#metric")
    page.keyboard.press("m")
    wait_for(page, f"document.getElementById('metric').value !== '{metric}'")
    page.select_option("#metric", "gradient")
    pressed = page.get_attribute("[data-view=change]", "aria-pressed")
    page.keyboard.press("v")
    wait_for(page, f"document.querySelector('[data-view=change]').ariaPressed !== '{pressed}'")
    page.keyboard.press("?")
    assert page.evaluate("document.getElementById('keys').open")
    page.keyboard.press("Escape")
    assert not page.evaluate("document.getElementById('keys').open")


def test_the_find_box_finds_a_layer(open_page: Sheet, sick: str) -> None:
    """/ focuses it, letters in order match, Enter opens the best hit, Escape leaves."""
    page = open_page(sick)
    page.keyboard.press("/")
    page.keyboard.type("b7lin")
    assert page.locator("#hits li").first.inner_text().strip().endswith("blocks.7.linear")
    page.keyboard.press("Enter")
    assert layer_shown(page) == "blocks.7.linear"
    page.fill("#find", "no such layer")
    assert "No layer" in text(page, "#hits")
    page.press("#find", "Escape")
    assert page.locator("#hits").is_hidden()


def test_the_slider_moves_the_flow_and_the_cursor(open_page: Sheet, sick: str) -> None:
    """Every plot over steps shows the slider's step."""
    page = open_page(sick)
    page.evaluate("s => { s = document.getElementById('step'); s.value = 3; s.oninput(); }")
    wait_for(page, "document.getElementById('step-text').textContent === 'step 3'")
    for plot in ("heatmap", "lanes", "gradient"):
        assert page.evaluate(f"document.getElementById('{plot}').layout.shapes[0].x0") == 3


def test_a_link_opens_layer_step_metric_and_view(open_page: Sheet, sick: str) -> None:
    """A deep link restores what it names, and the address follows what is shown."""
    page = open_page(sick, link="#l=blocks.5.linear&step=40&metric=absmax&view=value")
    assert layer_shown(page) == "blocks.5.linear"
    assert text(page, "#step-text") == "step 40"
    assert page.input_value("#metric") == "absmax"
    page.keyboard.press("j")
    assert "l=blocks.5.act" in page.url
    page.evaluate("location.hash = '#l=blocks.2.linear'")
    wait_for(page, "document.getElementById('layer-name').textContent === 'blocks.2.linear'")


def test_a_finding_leads_to_the_heatmap_and_to_its_layer(open_page: Sheet, sick: str) -> None:
    """The buttons of the open finding switch the metric and open the culprit."""
    page = open_page(sick)
    page.select_option("#metric", "absmax")
    page.click("[data-show='0']")
    wait_for(page, "document.getElementById('metric').value !== 'absmax'")
    page.keyboard.press("j")
    page.click(".actions [data-layer]")
    assert layer_shown(page) == "blocks.0.linear"


def test_zooming_redraws_and_can_be_undone(open_page: Sheet, sick: str) -> None:
    """Dragging zooms both axes, and the button brings everything back."""
    page = open_page(sick)
    page.locator("#heatmap").scroll_into_view_if_needed()
    box = page.locator("#heatmap .nsewdrag").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] * 0.3, box["y"] + box["height"] * 0.2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + box["height"] * 0.7, steps=4)
    page.mouse.up()
    wait_for(page, "!document.getElementById('reset').hidden")
    low, high = page.evaluate("document.getElementById('heatmap').layout.xaxis.range")
    assert 25 < low < high < 85
    page.click("#reset")
    wait_for(page, "document.getElementById('reset').hidden")
    assert page.evaluate("document.getElementById('heatmap').layout.xaxis.range") == [-0.5, 119.5]


def test_tables_stand_in_for_plots(open_page: Sheet, sick: str) -> None:
    """Every plot has a table with a caption, and the layer's table tells its numbers."""
    page = open_page(sick)
    for plot in ("heatmap", "lanes", "flow", "gradient", "histogram", "ratio", "activation", "delta"):
        page.click(f"[data-table={plot}]")
        assert page.locator(f"#{plot}-table tbody tr").count() > 0
        assert page.locator(f"#{plot}-table caption").inner_text()
    assert page.locator("#gradient-table thead th").all_inner_texts() == ["step", "weight", "bias"]


def test_a_long_table_says_how_many_rows_it_leaves_out(open_page: Sheet) -> None:
    """Of 900 steps every third has a row, and the caption says so."""
    page = open_page(render(dense(["a", "b"], 900)))
    page.click("[data-table=gradient]")
    assert page.inner_text("#gradient-table caption").endswith("; one row in 3 of 900")
    assert page.locator("#gradient-table tbody tr").count() == 300


@pytest.mark.parametrize("width", [320, 390])
def test_a_phone_scrolls_in_one_direction(open_page: Sheet, sick: str, width: int) -> None:
    """Nothing is wider than the screen, and header and sparkline stay."""
    page = open_page(sick, viewport={"width": width, "height": 700})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for selector in ("#theme", "#find", "svg.spark"):
        box = page.locator(selector).first.bounding_box()
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
        assert box["width"] >= 24


def test_plots_follow_the_width_of_the_window(open_page: Sheet, sick: str) -> None:
    """A window made narrow redraws every plot within its card, and nothing scrolls sideways."""
    page = open_page(sick, viewport={"width": 1440, "height": 800})
    page.set_viewport_size({"width": 700, "height": 800})
    for plot in ("heatmap", "lanes", "flow", "gradient", "histogram", "delta"):
        wait_for(page, f"{plot}.querySelector('.main-svg').getBoundingClientRect().width === {plot}.clientWidth")
    assert page.evaluate("document.documentElement.scrollWidth") <= 700


def test_hovering_tells_numbers_that_can_be_read(open_page: Sheet, sick: str) -> None:
    """A curve's hover text is bright on dark and is not stroked by the page's own style."""
    page = open_page(sick)
    page.locator("#flow").scroll_into_view_if_needed()
    y = page.evaluate("(p => p.yaxis.l2p(Math.log10(flow.data[2].y[6])) / p.yaxis._length)(flow._fullLayout)")
    hover(page, "#flow", 6.5 / 12, y)
    wait_for(page, "document.querySelector('#flow .hovertext tspan') !== null", 5)
    style = page.evaluate(
        "(s => [s.stroke, s.fill])(getComputedStyle(document.querySelector('#flow .hovertext tspan')))"
    )
    assert style[0] == "none"
    assert "median" in (page.text_content("#flow .hovertext") or "")


def test_the_first_screen_needs_no_script(open_page: Sheet, sick: str) -> None:
    """Without JavaScript verdict, counts, strip, findings and facts are there, and empty plots are not."""
    page = open_page(sick, scripts=False)
    body = text(page, "body")
    for words in ("hardly learn", "critical", "Evidence", "Do this", "Run facts", "need JavaScript"):
        assert words in body
    assert page.locator("svg.strip .cell").count() == 12
    assert page.locator(".evidence svg").first.is_visible()
    assert page.locator("#heatmap").is_hidden()
    assert page.locator("#find").is_hidden()


def test_names_are_text_in_every_view(open_page: Sheet) -> None:
    """A layer called like a script is shown as text in strip, find box, heatmap, hover, flow, layer page and tables."""
    page = open_page(render(dense([BREAKING, "b", "c"], 24, name=BREAKING)), link=f"#l={quote(BREAKING)}")
    assert layer_shown(page) == BREAKING
    assert BREAKING in text(page, ".run")
    assert "</scr" in (page.text_content("#tree") or "")
    page.locator("#heatmap").scroll_into_view_if_needed()
    hover(page, "#heatmap", 0.5, 0.1)
    wait_for(page, "!document.getElementById('tip').hidden")
    assert BREAKING in text(page, "#tip")
    page.locator("#flow").scroll_into_view_if_needed()
    hover(page, "#flow", 1 / 6, 0.5)
    wait_for(page, "document.querySelector('#flow .hoverlayer').textContent.includes('window.__xss=1')")
    page.fill("#find", "xss")
    assert BREAKING in text(page, "#hits")
    page.press("#find", "Enter")
    page.click("[data-table=heatmap]")
    assert BREAKING in text(page, "#heatmap-table")


def test_a_hundred_payloads_run_nowhere(open_page: Sheet) -> None:
    """Payloads as names of layers, run, notes and facts are inert in every view, light and dark."""
    assert len(PAYLOADS) >= 100
    recording = dense(PAYLOADS, 12, name=PAYLOADS[7], quality=tuple(PAYLOADS[:20]), bad_from=6)
    page = open_page(render(recording))
    page.locator("#heatmap").scroll_into_view_if_needed()
    for i in range(6):
        hover(page, "#heatmap", 0.3 + i / 12, 0.05 + i / 7)
    for plot in ("heatmap", "lanes", "flow"):
        page.click(f"[data-table={plot}]")
    for _ in range(6):
        page.keyboard.press("j")
    page.keyboard.press("d")
    page.fill("#find", "script")
    page.wait_for_timeout(300)
    assert page.evaluate("document.querySelectorAll('main img, iframe, main script, main style').length") == 0


@pytest.mark.parametrize(
    "recording",
    [
        synthetic(6, 0),
        synthetic(6, 1),
        synthetic(6, 3),
        synthetic(1, 40),
        dense(["a", "b"], 20, bad_from=0),
        dense(["a", "b"], 20, scale=lambda *_: 0.0),
        dense(["قسم.طبقة", "🧠.💥", "x" * 500, "x" * 500 + "y"], 20, dtype="float16"),
        dense(["g.0", "d.0", "g.1"], 20, optimizers={"g.0": 0, "d.0": 1, "g.1": 0}),
    ],
    ids=["no step", "one step", "three steps", "one layer", "all NaN", "all zero", "strange names", "two optimizers"],
)
def test_degenerate_runs_open_without_an_error(open_page: Sheet, recording: Recording) -> None:
    """Every degenerate state gives a page without a script error or sideways scrolling."""
    page = open_page(render(recording))
    assert page.evaluate("document.documentElement.scrollWidth") <= 1280
    assert text(page, "h1")


def test_a_notebooks_frame_shows_the_page(chromium: Browser, tmp_path: Path, sick: str) -> None:
    """Inside a sandboxed frame, as a notebook shows it, the page draws itself and layers can be opened."""
    frame = f'<iframe sandbox="allow-scripts" width=1100 height=700 srcdoc="{escape(sick)}"></iframe>'
    path = tmp_path / "notebook.html"
    path.write_text(frame, encoding="utf-8")
    page = chromium.new_page()
    page.goto(path.as_uri())
    inner = page.frames[1]
    inner.wait_for_selector("html[data-ready=true]", state="attached")
    inner.click("#next")
    assert inner.inner_text("#layer-name") == "blocks.0.act"
    page.close()


def test_printing_opens_the_findings_and_hides_the_controls(open_page: Sheet, sick: str) -> None:
    """On paper nothing stays folded and no control is left."""
    page = open_page(sick)
    page.emulate_media(media="print")
    assert page.locator("#find").is_hidden()
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate("document.querySelectorAll('details:not([open])').length") == 0


def hover(page: Page, plot: str, across: float, down: float) -> None:
    """Moves the mouse into a plot's area, at a share of its width and height."""
    area: Any = page.locator(f"{plot} .nsewdrag").first.bounding_box()
    page.mouse.move(area["x"] + area["width"] * across - 3, area["y"] + area["height"] * down)
    page.mouse.move(area["x"] + area["width"] * across, area["y"] + area["height"] * down, steps=3)
    page.wait_for_timeout(60)
