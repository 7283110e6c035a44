"""The page as text: what stands in it, what may never stand in it, and how large it is."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
import shutil
import subprocess
import time
from html import unescape
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path

import pytest

from gradwatch import explain
from gradwatch.analyze import analyze
from gradwatch.findings import Analysis, Figure, Finding
from gradwatch.record import SiteTable
from gradwatch.recording import Recording
from gradwatch.testing import check_reporter
from gradwatch_html import HtmlReporter
from gradwatch_html.cards import cards
from gradwatch_html.curves import default_view, view_of
from gradwatch_html.drawing import STRIP_CELLS, strip
from gradwatch_html.layers import layer_rows
from gradwatch_html.metrics import matrices
from gradwatch_html.page import Page, build_page
from gradwatch_html.paint import PLOTLY, PLOTLY_SHA256, SCRIPTS
from gradwatch_html.palette import COLOURS
from gradwatch_html.words import unbroken
from tests.html.building import dense, synthetic

BREAKING = "</script><script>window.__xss=1</script>"


def page_of(recording: Recording) -> Page:
    return build_page(recording, analyze(recording))


def render(recording: Recording) -> str:
    return HtmlReporter().render(recording, analyze(recording))


def finding(**changes: object) -> Finding:
    usual: dict[str, object] = {
        "kind": "spike",
        "severity": "warning",
        "title": "A spike",
        "layer": "b",
        "layers": ("b", "c"),
        "first_step": 30,
        "last_step": 34,
        "evidence": ("The norm rose 40-fold.",),
        "cause": "A batch unlike the others.",
        "advice": ("Clip the gradient norm.",),
        "check": "The norm stays within 3-fold.",
    }
    return Finding(**{**usual, **changes})  # type: ignore[arg-type]


class Reading(HTMLParser):
    """Collects what a browser would run or fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.scripts: list[dict[str, str | None]] = []
        self.addresses: list[str] = []
        self.handlers: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "script":
            self.scripts.append(dict(attrs))
        self.addresses += [value or "" for key, value in attrs if key in ("src", "href", "action", "data")]
        self.handlers += [key for key, _ in attrs if key.startswith("on")]

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_the_reporter_keeps_the_protocol() -> None:
    """The page passes the check that every reporter passes."""
    check_reporter(HtmlReporter())


def test_the_same_run_gives_the_same_page() -> None:
    """The page is deterministic; only the given time differs."""
    recording = synthetic(4, 40, "vanishing")
    assert render(recording) == render(synthetic(4, 40, "vanishing"))
    assert "2030-01-02" in HtmlReporter(created="2030-01-02").render(recording, analyze(recording))


def test_nothing_of_a_run_is_markup() -> None:
    """Hostile names, notes and findings add no element, handler or address."""
    calm = dense(["a", "b", "c"], 12)
    hostile = dense([BREAKING, '" onload="x', "<b>&amp;</b>"], 12, name=BREAKING, quality=(BREAKING,))
    told = finding(**dict.fromkeys(("title", "cause", "check", "confidence_reason", "optimizer"), BREAKING))
    told = finding(**{f: getattr(told, f) for f in ("title", "cause", "check")}, layer=BREAKING, layers=(BREAKING,))
    analysis = Analysis((told,), ("spike",), {"frozen": BREAKING}, 12, 3, BREAKING)
    plain = Analysis((finding(layer="a", layers=("a",)),), ("spike",), {"frozen": "x"}, 12, 3, "x")
    seen, expected = Reading(), Reading()
    seen.feed(HtmlReporter().render(hostile, analysis))
    expected.feed(HtmlReporter().render(calm, plain))
    assert seen.scripts == expected.scripts
    assert seen.handlers == []
    assert all(address.startswith("#") or address == "data:," for address in seen.addresses)
    assert sum(BREAKING in text for text in seen.text) >= 7


def test_the_policy_names_the_only_two_scripts() -> None:
    """The page may run its own script and plotly.js, known by their hashes, and may reach nothing."""
    html = render(synthetic(3, 20))
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', html)
    assert policy is not None
    text = policy.group(1).replace("&#39;", "'")
    assert "default-src 'none'" in text
    assert "connect-src 'none'" in text
    assert "script-src 'sha256-" in text
    script = re.findall(r"<script>(.*?)</script>", html, flags=re.S)
    assert len(script) == 1
    for source in (
        script[0].encode(),
        gzip.decompress(files("gradwatch_html").joinpath("assets", PLOTLY).read_bytes()),
    ):
        assert base64.b64encode(hashlib.sha256(source).digest()).decode() in text


def test_the_plotly_bundle_is_the_known_one() -> None:
    """The vendored script has its hash, its licence beside it, and is no older than the plotly package's own."""
    from plotly.offline import get_plotlyjs_version

    assets = files("gradwatch_html").joinpath("assets")
    bundle = gzip.decompress(assets.joinpath(PLOTLY).read_bytes())
    assert hashlib.sha256(bundle).hexdigest() == PLOTLY_SHA256
    assert b"Licensed under the MIT license" in bundle[:300]
    assert "MIT License" in assets.joinpath("plotly-LICENSE.txt").read_text()
    version = re.search(rb"plotly.js \(cartesian - minified\) v([\d.]+)", bundle[:300])
    assert version is not None
    assert int(version.group(1).split(b".")[0]) >= int(get_plotlyjs_version().split(".")[0])
    assert version.group(1).decode() in PLOTLY


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
@pytest.mark.parametrize("name", SCRIPTS)
def test_each_file_of_the_script_parses_and_stays_small(name: str) -> None:
    """A file of the script is valid JavaScript of fewer than 250 lines."""
    script = files("gradwatch_html").joinpath("assets", "page", f"{name}.js")
    subprocess.run(["node", "--check", str(script)], check=True, timeout=30)
    assert len(script.read_text().splitlines()) < 250


def test_text_can_be_read_on_its_background() -> None:
    """Every text colour has a contrast of 4.5 or more to page and card, in light and dark (WCAG 2.1, 1.4.3)."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for mode in (0, 1):
        for text in ("ink", "soft", "accent", "critical", "warning", "notice", "passed"):
            for ground in ("page", "card"):
                high, low = sorted((luminance(COLOURS[text][mode]), luminance(COLOURS[ground][mode])), reverse=True)
                assert (high + 0.05) / (low + 0.05) >= 4.5, (text, ground, mode)


def test_findings_stand_worst_first_with_the_worst_open() -> None:
    """The page keeps the analysis's order and opens the first finding only."""
    recording = dense(["a", "b", "c"], 40)
    analysis = Analysis(
        (finding(title="the graver"), finding(title="the lesser", severity="notice")), (), {}, 40, 3, "x"
    )
    html = HtmlReporter().render(recording, analysis)
    assert html.index("the graver") < html.index("the lesser")
    assert len(re.findall(r'<details class="card"[^>]* open>', html)) == 1


def test_a_card_says_who_and_since_when() -> None:
    """Culprit, number of further layers, and span are words of the finding itself."""
    recording = dense(["a", "b", "c"], 40)
    depth = {name: i for i, name in enumerate(recording.sites.layers)}
    built = {m.metric.key: m for m in matrices(recording, depth)}

    def card(**changes: object) -> tuple[str, str, int | None]:
        made = cards(recording, Analysis((finding(**changes),), (), {}, 40, 3, "x"), built, depth)[0]
        return made.more, made.since, made.layer

    assert card() == ("and 1 more", "steps 30 to 34", 1)
    assert card(last_step=39) == ("and 1 more", "since step 30", 1)
    assert card(first_step=None, layers=("b",)) == ("", "during the whole run", 1)
    assert card(first_step=7, last_step=7, layer=None, layers=()) == ("the whole run", "at step 7", None)
    assert card(layer="gone", layers=("gone",)) == ("", "steps 30 to 34", None)


def test_a_finding_shows_in_the_metric_of_its_figure() -> None:
    """The button leads to the metric in which the trouble can be seen."""
    recording = dense(["a", "b", "c"], 40)
    figures = {
        "ratio": Figure("update", "ratio"),
        "zeros": Figure("gradient", "zeros"),
        "gradient": Figure("gradient", "l2"),
    }
    for metric, figure in figures.items():
        analysis = Analysis((finding(figure=figure),), (), {}, 40, 3, "x")
        assert build_page(recording, analysis).cards[0].metric == metric


def test_an_early_finding_opens_the_value_view() -> None:
    """A fault in the first tenth leaves no healthy start to compare with."""
    steps = dense(["a"], 100).steps()
    assert default_view([finding(first_step=5)], steps) == "value"
    assert default_view([finding(first_step=None)], steps) == "value"
    assert default_view([finding(first_step=60)], steps) == "change"
    assert default_view([finding(first_step=0, severity="notice")], steps) == "change"
    assert default_view([], steps[:5]) == "value"
    assert view_of(finding(first_step=0, severity="notice"), steps) == "value"


def test_the_strip_shows_the_worst_of_layers_that_share_a_cell() -> None:
    """With more layers than cells no sick layer disappears."""
    names = [f"n.{i}" for i in range(1000)]
    recording = dense(names, 2)
    sick = finding(layer="n.501", layers=("n.501",))
    rows = layer_rows(recording, Analysis((sick,), (), {}, 12, 1000, "x"))
    cells = strip(rows)
    assert len(cells) == STRIP_CELLS
    hit = [cell for cell in cells if cell.level == "warning"]
    assert [cell.layer for cell in hit] == [501]
    assert abs(sum(cell.width for cell in cells) - 100) < 1e-6


def test_a_layer_is_healthy_only_when_the_run_was_judged() -> None:
    """Three steps make no healthy layer, and the page says that checks did not apply."""
    recording = dense(["a", "b"], 3)
    page = page_of(recording)
    assert {cell.level for cell in page.cells} == {"unseen"}
    assert "Too few" in page.calm
    assert {cell.level for cell in page_of(dense(["a", "b"], 40)).cells} == {"healthy"}


@pytest.mark.parametrize(
    ("recording", "absent"),
    [
        (Recording("none", SiteTable(), {}, {}), {"heatmap", "time", "flow", "layer"}),
        (dense(["a", "b"], 1), {"heatmap", "time"}),
        (dense(["a"], 30), {"heatmap", "flow"}),
        (dense([], 0), {"heatmap", "time", "flow", "layer"}),
    ],
    ids=["nothing", "one step", "one layer", "no site"],
)
def test_a_section_without_data_is_left_out(recording: Recording, absent: set[str]) -> None:
    """Degenerate runs give a page without empty plots."""
    page = page_of(recording)
    assert page.sections == {"heatmap", "time", "flow", "layer"} - absent
    assert page.verdict in HtmlReporter().render(recording, analyze(recording)).replace("&#39;", "'")


def test_every_value_non_finite_or_zero_still_gives_a_page() -> None:
    """Runs of NaN from the first step and runs of exact zeros are drawn and never raise."""
    assert page_of(dense(["a", "b"], 30, bad_from=0)).cards
    zeros = page_of(dense(["a", "b"], 30, scale=lambda *_: 0.0))
    json.dumps(zeros.meta, allow_nan=False)


def test_a_thousand_layers_stay_small_and_quick() -> None:
    """A page of 1000 layers stays below 6 MB and 15 s."""
    recording = synthetic(1000, 24)
    analysis = analyze(recording)
    began = time.perf_counter()
    html = HtmlReporter().render(recording, analysis)
    assert time.perf_counter() - began < 15
    assert len(html.encode()) < 6_000_000


def test_the_asset_files_are_part_of_the_package() -> None:
    """Template, style, the script's files, bundle and licence lie in the package, and no script lies there unused."""
    assets = files("gradwatch_html").joinpath("assets")
    names = {Path(str(item)).name for item in assets.iterdir()}
    assert names >= {"page.html.j2", "style.css", PLOTLY, "plotly-LICENSE.txt"}
    assert {Path(str(item)).stem for item in assets.joinpath("page").iterdir()} == set(SCRIPTS)


def test_a_very_long_name_is_shortened_but_not_lost() -> None:
    """A name of 500 characters does not fill the screen; the whole sentence stays at hand."""
    verdict = f"Gradients vanish on the way to {'block.' * 80}end, since step 3."
    html = HtmlReporter().render(dense(["a", "b"], 12), Analysis((), (), {}, 12, 2, verdict))
    shown = re.search(r"<h1[^>]*><bdi>(.*?)</bdi></h1>", html)
    assert shown is not None
    assert len(shown.group(1)) < 120
    assert shown.group(1).endswith("end, since step 3.")
    assert f'title="{verdict}"' in html


def test_the_policy_allows_no_eval_and_no_unknown_script() -> None:
    """Scripts run by their hash only; nothing is evaluated from text."""
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', render(dense(["a"], 3)))
    assert policy is not None
    scripts = re.search(r"script-src ([^;]*);", unescape(policy[1]))
    assert scripts is not None
    assert all(source.startswith("'sha256-") for source in scripts[1].split())
    assert "unsafe-eval" not in policy[1]


def test_numbers_are_escaped_and_kept_whole() -> None:
    """A number with an exponent is one unbreakable piece, and what stands around it is text."""
    assert unbroken("<b> fell to 1.6e-10, then 3e-4.") == (
        '&lt;b&gt; fell to <span class="number">1.6e-10</span>, then <span class="number">3e-4</span>.'
    )
    assert unbroken("layer-1e of b-2") == "layer-1e of b-2"


def test_a_card_holds_what_explain_says_of_its_kind() -> None:
    """Each finding of ours carries its rule's whole page; a kind of somebody else's carries none."""
    html = HtmlReporter().render(dense(["a", "b", "c"], 40), Analysis((finding(),), (), {}, 40, 3, "x"))
    text = unescape(re.sub(r"<[^>]*>", "", html))
    told = explain.page("spike")
    for part in (told.summary, *(text for _, text in told.sections), *(t.name for t in told.thresholds)):
        assert part in text
    foreign = HtmlReporter().render(dense(["b"], 40), Analysis((finding(kind="mine"),), (), {}, 40, 3, "x"))
    assert "How “mine” is judged" not in foreign
    assert 'class="explained"' not in foreign
