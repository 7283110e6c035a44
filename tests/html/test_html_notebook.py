"""What a notebook shows of a run, a finding and a watch, in a real browser and under a notebook's policies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import gradwatch
from gradwatch.findings import SEVERITIES, Finding
from gradwatch.testing import example_run
from tests.html.test_html_browser import PAYLOADS

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

JUPYTER = "frame-ancestors 'self'; report-uri /api/security/csp-report"
STRICT = "default-src 'none'; style-src 'unsafe-inline'"


class Tags(HTMLParser):
    """Collects tags and attribute names."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}


@pytest.fixture(scope="module")
def sick(tmp_path_factory: pytest.TempPathFactory) -> gradwatch.Run:
    return example_run(tmp_path_factory.mktemp("runs") / "sick", steps=80, fault="vanishing")


@pytest.fixture
def notebook(chromium: Browser) -> Callable[..., Page]:
    """Serves a page with outputs in it, under a policy, and opens it."""

    def open_(html: str, policy: str = "") -> Page:
        page = chromium.new_context().new_page()
        headers = {"Content-Security-Policy": policy} if policy else {}
        body = f"<!doctype html><meta charset=utf-8><body><div class=output>{html}</div>"
        page.route(
            "http://notebook.test/", lambda route: route.fulfill(body=body, headers=headers, content_type="text/html")
        )
        page.on("dialog", lambda dialog: pytest.fail(dialog.message))
        page.goto("http://notebook.test/")
        return page

    return open_


@pytest.mark.browser
@pytest.mark.parametrize("policy", ["", JUPYTER], ids=["no policy", "jupyter"])
def test_a_run_is_its_whole_report_in_a_sandbox(
    notebook: Callable[..., Page], sick: gradwatch.Run, policy: str
) -> None:
    """The frame draws its plots, is high enough to be used, and can reach neither the notebook nor its cookies."""
    page = notebook(sick._repr_html_(), policy)
    frame = page.frames[1]
    frame.wait_for_selector("html[data-ready=true]", state="attached")
    assert frame.inner_text("h1") == sick.verdict
    assert frame.locator("#flow .main-svg").count()
    box = page.locator("iframe").bounding_box()
    assert box is not None
    assert box["height"] == 800
    assert box["width"] > 1000
    assert page.locator("iframe").get_attribute("sandbox") == "allow-scripts"
    refused = (
        "(() => { try { return parent.document.title + document.cookie; } catch (error) { return error.name; } })()"
    )
    assert frame.evaluate(refused) == "SecurityError"
    page.context.close()


@pytest.mark.browser
def test_a_run_under_a_policy_without_scripts_still_shows_its_first_screen(
    notebook: Callable[..., Page], sick: gradwatch.Run
) -> None:
    """Verdict and findings need no script."""
    page = notebook(sick._repr_html_(), f"{STRICT}; frame-src *")
    frame = page.frames[1]
    assert frame.inner_text("h1") == sick.verdict
    assert frame.locator("details.card").first.is_visible()
    page.context.close()


@pytest.mark.browser
def test_a_finding_is_a_card_with_all_it_knows(notebook: Callable[..., Page], sick: gradwatch.Run) -> None:
    """Title, evidence, cause, advice and check are there to read, under a policy that forbids every script."""
    finding = sick.findings[0]
    page = notebook(finding._repr_html_(), STRICT)
    shown = page.inner_text(".gradwatch")
    for text in (finding.title, *finding.evidence, finding.cause, *finding.advice, finding.check, finding.kind):
        assert " ".join(text.split()) in " ".join(shown.split())
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.context.close()


def test_a_card_is_static(sick: gradwatch.Run) -> None:
    """There is no script, no handler, no link and no picture in it; every severity has a mark and a word."""
    for severity in SEVERITIES:
        html = replace(sick.findings[0], severity=severity)._repr_html_()
        found = Tags(html)
        assert found.tags <= {"div", "strong", "span", "em", "ol", "li", "bdi"}
        assert found.attributes <= {"style", "class"}
        assert severity in html
        assert any(mark in html for mark in "▲■●")


@pytest.mark.browser
def test_hostile_text_stays_text(notebook: Callable[..., Page]) -> None:
    """A hundred payloads in every field of a finding: none becomes an element or runs."""
    cards = []
    for payload in PAYLOADS:
        many = (payload, payload)
        cards.append(
            Finding(
                "spike", "warning", payload, payload, many, 3, 4, many, payload, many, payload, "low", payload
            )._repr_html_()
        )
    html = "".join(cards)
    assert Tags(html).tags <= {"div", "strong", "span", "em", "ol", "li", "bdi"}
    page = notebook(html)
    page.wait_for_timeout(300)
    assert page.evaluate("window.__xss ?? null") is None
    assert page.locator(".gradwatch").count() == len(PAYLOADS)
    page.context.close()


@pytest.mark.browser
def test_a_watch_shows_its_state(notebook: Callable[..., Page], tmp_path: Path) -> None:
    """While it trains: the verdict so far, the path and how to open it; closed: the same verdict as the files give."""
    torch = pytest.importorskip("torch")
    model = torch.nn.Linear(4, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    run = tmp_path / "a run's"
    watch = gradwatch.watch(model, optimizer, run=run, report=False)
    for _ in range(15):
        model(torch.randn(8, 4)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    assert "watching" in watch._repr_html_()
    watch.close()
    page = notebook(watch._repr_html_(), STRICT)
    shown = page.inner_text(".gradwatch")
    assert gradwatch.load(run).verdict in shown
    assert str(run) in shown
    assert f"gradwatch.load({str(run)!r})" in shown
    assert "gradwatch report '" in shown
    page.context.close()


def test_a_bare_decorator_shows_that_it_waits() -> None:
    """Before the first call there is no run to tell of."""

    @gradwatch.watch
    def step() -> None: ...

    assert "was not called yet" in getattr(step, "watch")._repr_html_()  # noqa: B009  a type checker sees a Watch here
