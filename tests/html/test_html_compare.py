"""The compare page: what stands in it, and how it works in a real browser."""

from __future__ import annotations

import base64
import gzip
import hashlib
import re
from dataclasses import replace

import numpy as np
import pytest

from gradwatch.analyze import analyze
from gradwatch.comparison import Comparison, compare
from gradwatch.comparison.ratios import FINITE
from gradwatch.findings import Analysis
from gradwatch.record import SiteTable
from gradwatch.recording import Recording
from gradwatch_html import HtmlReporter
from gradwatch_html.compare_data import LEVELS, RUN_LINES, SAME_CODE, compare_data, encode_ratio
from gradwatch_html.compare_page import build_compare_page
from tests.html.building import dense, synthetic
from tests.html.conftest import Sheet, wait_for
from tests.html.test_html_access import violations
from tests.html.test_html_browser import BREAKING, PAYLOADS, hover, text
from tests.html.test_html_page import Reading, finding


def of(*recordings: Recording) -> Comparison:
    return compare([(recording, analyze(recording)) for recording in recordings])


def render(*recordings: Recording) -> str:
    return HtmlReporter().render_comparison(of(*recordings))


@pytest.fixture(scope="module")
def two() -> str:
    return render(synthetic(12, 120, name="before"), synthetic(12, 150, "vanishing", name="after"))


# As text.


def test_the_same_runs_give_the_same_page(two: str) -> None:
    """The page is deterministic; only the given time differs."""
    assert two == render(synthetic(12, 120, name="before"), synthetic(12, 150, "vanishing", name="after"))
    assert "2030-01-02" in HtmlReporter(created="2030-01-02").render_comparison(of(synthetic(1, 1), synthetic(1, 1)))


def test_the_policy_names_the_only_two_scripts(two: str) -> None:
    """The page may run its own script and plotly.js, known by their hashes, and may reach nothing."""
    found = re.search(r'Content-Security-Policy" content="([^"]+)"', two)
    assert found is not None
    policy = found.group(1).replace("&#39;", "'")
    assert "default-src 'none'" in policy
    assert "connect-src 'none'" in policy
    (script,) = re.findall(r"<script>(.*?)</script>", two, flags=re.S)
    (bundle,) = re.findall(r'id="data-plotly">(.*?)</script>', two, flags=re.S)
    for source in (script.encode(), gzip.decompress(base64.b64decode(bundle))):
        assert base64.b64encode(hashlib.sha256(source).digest()).decode() in policy
    assert "unsafe-eval" not in policy


def test_the_page_says_all_that_the_comparison_does(two: str) -> None:
    """Verdict, reason, both runs' verdicts, every layer without a match and every differing fact stand in the text."""
    comparison = of(synthetic(12, 120, name="before"), dense(["x", "blocks.0.linear"], 30, name="after"))
    seen = Reading()
    seen.feed(HtmlReporter().render_comparison(comparison))
    shown = " ".join(" ".join(seen.text).split())
    pair = comparison.pairs[0]
    for words in (comparison.verdict, *(run.analysis.verdict for run in comparison.runs), *pair.layers.only_first):
        assert words in shown
    for name, values in comparison.facts:
        assert f"{name} {' '.join(values)}" in shown


def test_findings_stand_in_their_groups() -> None:
    """New, gone and common findings each stand under their own heading, common ones with both runs' words."""
    first, other = dense(["a", "b"], 20), dense(["a", "b"], 20)
    gone, common = finding(title="Gone", layer="a", layers=("a",), kind="frozen"), finding(title="Was so", layer="b")
    new, stays = finding(title="New", layer="a", layers=("a",), severity="critical"), finding(title="Is so", layer="b")
    mine = Analysis((gone, common), ("clipping",), {}, 20, 2, "first")
    theirs = Analysis((replace(new, kind="exploding"), stays), ("clipping",), {}, 20, 2, "other")
    page = build_compare_page(compare([(first, mine), (other, theirs)]))
    told = {
        group.title: [[(label, card.finding.title) for label, card in entry] for entry in group.entries]
        for group in page.pairs[0].groups
    }
    assert told == {
        "Only in B": [[("B", "New")]],
        "Only in A": [[("A", "Gone")]],
        "In A and B": [[("A", "Was so"), ("B", "Is so")]],
    }


def test_ratios_are_kept_to_half_a_level() -> None:
    """Decoded as the script does, every ratio is that of the comparison within the scale's resolution."""
    comparison = of(synthetic(12, 120), synthetic(12, 120, "vanishing"))
    meta, islands = compare_data(comparison)
    for metric, ratio in zip(meta["metrics"], comparison.pairs[0].ratios, strict=True):
        data = np.frombuffer(gzip.decompress(base64.b64decode(islands[f"m-{metric['key']}"])), dtype=np.uint8)
        codes = np.cumsum(data.reshape(len(ratio.layers), -1), axis=1, dtype=np.uint8).T
        assert (codes == encode_ratio(ratio, LEVELS / metric["decade"])).all()
        known = ratio.state == FINITE
        decoded = (codes[known].astype(float) - SAME_CODE) / metric["decade"]
        assert np.abs(decoded - ratio.values[known]).max() <= 0.5 / metric["decade"] + 1e-9
        assert metric["range"] * metric["decade"] <= LEVELS
        assert (codes[~known] == ratio.state[~known]).all()


def test_eight_runs_differ_by_more_than_colour() -> None:
    """Each run has a colour and dash of its own, and a letter."""
    assert len(set(RUN_LINES)) == len(RUN_LINES)
    page = build_compare_page(of(*[synthetic(2, 12)] * 8))
    assert [run.label for run in page.runs] == list("ABCDEFGH")
    assert len({(run.colour, run.dash) for run in page.runs}) == 8
    assert len(page.pairs) == 7


def test_a_run_that_was_not_judged_is_not_called_well() -> None:
    """Without a verdict on a run, no group says that there is nothing."""
    page = build_compare_page(of(synthetic(3, 20), synthetic(3, 2)))
    assert page.pairs[0].groups[0].empty == "B cannot be judged: it has 2 captured steps, and a verdict takes 10."


def test_nothing_of_a_run_is_markup() -> None:
    """Hostile names, notes, facts and findings add no element, handler or address."""
    calm = dense(["a", "b"], 12, name="x", quality=("x",))
    hostile = dense([BREAKING, '" onload="x'], 12, name=BREAKING, quality=(BREAKING,))
    told = finding(**dict.fromkeys(("title", "cause", "check", "kind"), BREAKING), layer=BREAKING, layers=(BREAKING,))
    pages = []
    for recording, found in ((calm, finding(layer="a", layers=("a",))), (hostile, told)):
        analysis = Analysis((found,), ("spike",), {"frozen": found.title}, 12, 2, found.title)
        other = replace(recording, facts={found.title: found.title})
        reading = Reading()
        reading.feed(HtmlReporter().render_comparison(compare([(recording, analysis), (other, analysis)])))
        pages.append(reading)
    assert pages[0].scripts == pages[1].scripts
    assert pages[1].handlers == []
    assert all(address.startswith("#") or address == "data:," for address in pages[1].addresses)
    assert sum(BREAKING in part for part in pages[1].text) >= 8


def test_the_page_stays_small_with_a_thousand_layers() -> None:
    """Two runs of 1,000 layers and 300 steps add less than 1 MB to the vendored script."""
    size = len(render(synthetic(500, 300), synthetic(500, 300)))
    assert size - len(render(synthetic(1, 1), synthetic(1, 1))) < 1_000_000


# In a browser.


@pytest.mark.browser
def test_every_plot_is_drawn_and_told(open_page: Sheet, two: str) -> None:
    """Ratio, flow and loss hold a drawn plot with an accessible sentence and a table with a caption."""
    page = open_page(two)
    for plot in ("ratio", "flow", "loss"):
        assert page.evaluate(f"document.querySelectorAll('#{plot} .main-svg').length") > 0
        assert len(page.get_attribute(f"#{plot}", "aria-label") or "") > 20
        page.click(f"[data-table={plot}]")
        assert page.locator(f"#{plot}-table tbody tr").count() > 0
        assert page.locator(f"#{plot}-table caption").inner_text()
    assert page.locator("#flow-table thead th").all_inner_texts() == ["layer", "A before", "B after"]
    assert len(page.evaluate("loss.data.filter(trace => trace.line?.dash).map(trace => trace.line.dash)")) == 2


@pytest.mark.browser
def test_the_slider_moves_the_flow_and_the_cursor(open_page: Sheet, two: str) -> None:
    """The flow of both runs is that of the slider's step, by slider and by arrow keys; the other plots show where."""
    page = open_page(two)
    before = page.evaluate("flow.data[0].y")
    page.evaluate("(s => { s.value = 5; s.oninput(); })(document.getElementById('step'))")
    step = page.evaluate("JSON.parse(document.getElementById('meta').textContent).flow.steps[5]")
    assert text(page, "#step-text") == f"step {step}"
    assert page.evaluate("flow.data[0].y") != before
    for plot in ("ratio", "loss"):
        assert page.evaluate(f"document.getElementById('{plot}').layout.shapes[0].x0") == step
    page.keyboard.press("ArrowRight")
    assert text(page, "#step-text") != f"step {step}"


@pytest.mark.browser
def test_the_ratio_can_be_chosen(open_page: Sheet) -> None:
    """With three runs each later one has its ratios, by menu and by key, named by the runs' letters."""
    page = open_page(render(synthetic(4, 40), synthetic(4, 40), synthetic(4, 40, "exploding")))
    titles = page.locator("#metric option").all_inner_texts()
    assert titles == [f"{what}, {run} / A" for run in "BC" for what in ("gradient norm", "update / weight")]
    page.keyboard.press("m")
    wait_for(page, "document.getElementById('metric').value === 'update-B'")
    page.select_option("#metric", "gradient-C")
    wait_for(page, "document.getElementById('ratio').ariaLabel.startsWith('gradient norm, C / A')")


@pytest.mark.browser
def test_dark_and_light_switch_and_redraw(open_page: Sheet, two: str) -> None:
    """The system's scheme is the start; button and key switch it, and the plots follow."""
    page = open_page(two, color_scheme="dark")
    look = "[getComputedStyle(document.body).backgroundColor, flow._fullLayout.font.color, flow.data[0].line.color]"
    dark = page.evaluate(look)
    page.click("#theme")
    wait_for(page, f"({look})[2] !== '{dark[2]}'")
    assert not set(dark) & set(page.evaluate(look))
    page.keyboard.press("d")
    wait_for(page, f"({look})[2] === '{dark[2]}'")


@pytest.mark.browser
@pytest.mark.parametrize("width", [320, 390, 1440])
def test_nothing_overlaps_at_any_width(open_page: Sheet, width: int) -> None:
    """Nothing is wider than the screen, and no two labels of one axis collide, also with long names."""
    names = [f"model.encoder.blocks.{i}.attention.projection" for i in range(40)]
    page = open_page(
        render(dense(names, 40, name="n" * 300), dense(names, 60, bad_from=30)),
        viewport={"width": width, "height": 800},
    )
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    boxes = """[...document.querySelectorAll('.canvas')].flatMap(c => ['xtick', 'ytick'].map(k =>
        [...c.querySelectorAll(`.${k} text`)].map(t => t.getBoundingClientRect())
        .map(b => [b.x, b.y, b.right, b.bottom])))"""
    for group in page.evaluate(boxes):
        for i, a in enumerate(group):
            for b in group[:i]:
                assert a[2] <= b[0] + 1 or b[2] <= a[0] + 1 or a[3] <= b[1] + 2 or b[3] <= a[1] + 2, (width, a, b)
    assert "….0." not in (page.text_content("#ratio") or "")


@pytest.mark.browser
def test_the_first_screen_needs_no_script(open_page: Sheet, two: str) -> None:
    """Without JavaScript verdict, runs, findings, layers and facts are there, and empty plots are not."""
    page = open_page(two, scripts=False)
    body = text(page, "body")
    for words in ("B is worse than A.", "before", "after", "hardly learn", "Evidence", "Only in B", "need JavaScript"):
        assert words in body
    assert page.locator("svg.strip .cell").count() == 24
    assert page.locator("#ratio").is_hidden()


@pytest.mark.browser
def test_hovering_names_layer_step_and_ratio(open_page: Sheet, two: str) -> None:
    """The tip over a cell tells both names, the steps and the number."""
    page = open_page(two)
    page.locator("#ratio").scroll_into_view_if_needed()
    hover(page, "#ratio", 0.5, 0.04)
    wait_for(page, "!document.getElementById('tip').hidden")
    tip = text(page, "#tip")
    assert tip.startswith("blocks.0.linear\nstep 60\n")
    assert re.search(r"gradient norm, B / A: [\d.e-]+ times", tip)


@pytest.mark.browser
def test_a_hundred_payloads_run_nowhere(open_page: Sheet) -> None:
    """Payloads as names of layers, runs, notes and facts are inert in every view, light and dark."""
    half = len(PAYLOADS) // 2
    first = replace(dense(PAYLOADS, 12, name=PAYLOADS[7], quality=tuple(PAYLOADS[:20])), facts={"x": PAYLOADS[3]})
    other = dense([*PAYLOADS[:half], *(f"new {name}" for name in PAYLOADS[half:])], 12, name=PAYLOADS[9], bad_from=6)
    page = open_page(render(first, replace(other, facts={PAYLOADS[11]: PAYLOADS[12]})))
    page.locator("#ratio").scroll_into_view_if_needed()
    for i in range(6):
        hover(page, "#ratio", 0.3 + i / 12, 0.05 + i / 7)
    page.locator("#flow").scroll_into_view_if_needed()
    hover(page, "#flow", 0.5, 0.5)
    for plot in ("ratio", "flow", "loss"):
        page.click(f"[data-table={plot}]")
    page.keyboard.press("d")
    page.wait_for_timeout(300)
    assert page.evaluate("document.querySelectorAll('main img, iframe, main script, main style').length") == 0


@pytest.mark.browser
def test_printing_opens_the_findings_and_hides_the_controls(open_page: Sheet, two: str) -> None:
    """On paper nothing stays folded and no control is left."""
    page = open_page(two)
    page.emulate_media(media="print")
    assert page.locator("#theme").is_hidden()
    assert page.locator("#metric").is_hidden()
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate("document.querySelectorAll('details:not([open])').length") == 0


NOTHING = Recording("nothing", SiteTable(), {}, {})
STATES: dict[str, tuple[Recording, ...]] = {
    "no step": (synthetic(6, 0), synthetic(6, 0)),
    "one step": (synthetic(6, 12), synthetic(6, 1)),
    "nothing at all": (NOTHING, synthetic(6, 20)),
    "no common layer": (dense(["a", "b"], 20), dense(["c", "d", "e"], 30, dtype="float16", scale=lambda *_: 1e-3)),
    "all NaN": (dense(["a", "b"], 20), dense(["a", "b"], 20, bad_from=0)),
    "all zero": (dense(["a", "b"], 20), dense(["a", "b"], 20, scale=lambda *_: 0.0)),
    "one layer": (synthetic(1, 40), synthetic(1, 40)),
    "two optimizers": (dense(["g", "d"], 20, optimizers={"g": 0, "d": 1}), dense(["g", "d"], 20)),
    "strange names": (dense(["قسم.طبقة", "🧠.💥", "x" * 500], 20), dense(["قسم.طبقة", "🧠.💥", "y" * 500], 20)),
}


@pytest.mark.browser
@pytest.mark.parametrize("recordings", STATES.values(), ids=STATES.keys())
def test_degenerate_runs_open_without_an_error(open_page: Sheet, recordings: tuple[Recording, ...]) -> None:
    """Every degenerate state gives a page without a script error or sideways scrolling, and says what is missing."""
    page = open_page(render(*recordings))
    assert page.evaluate("document.documentElement.scrollWidth") <= 1280
    assert text(page, "h1").endswith("A.")
    drawn = {plot: page.locator(f"#{plot}").count() for plot in ("ratio", "flow", "loss")}
    assert page.locator("p.calm:visible").count() == 3 - sum(drawn.values())


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_the_audit_finds_nothing(open_page: Sheet, width: int, scheme: str) -> None:
    """With everything unfolded and every table shown, axe finds no violation."""
    sick, well = synthetic(12, 120, "vanishing"), synthetic(8, 120)
    page = open_page(
        render(sick, sick, well, dense(["a", "b"], 20, bad_from=9)),
        viewport={"width": width, "height": 800},
        color_scheme=scheme,
    )
    page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    for table in ("ratio", "flow", "loss"):
        page.click(f"[data-table={table}]")
    assert violations(page) == []
