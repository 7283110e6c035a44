"""The page of ``gradwatch live`` in a real browser: it follows a run that is written, and keeps what one looks at."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.core.live_run import Writer, live, url_in
from tests.html.conftest import wait_for

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Frame, Page

pytestmark = pytest.mark.browser

SUMMARY = "document.querySelector('iframe:only-child')?.contentDocument?.querySelector('.summary')?.textContent"
NOT_ANSWERED = "net::ERR_CONNECTION_REFUSED"


@pytest.fixture
def sheet(chromium: Browser) -> Iterator[Page]:
    """A browser page; at the end nothing failed, and nothing but the page's own server and data was asked for."""
    context = chromium.new_context(viewport={"width": 1280, "height": 800})
    page, failures, requests = context.new_page(), list[str](), list[str]()
    page.on("console", lambda message: failures.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: failures.append(str(error)))
    page.on("dialog", lambda dialog: failures.append(f"dialog: {dialog.message}"))
    context.on("request", lambda request: requests.append(request.url))
    yield page
    context.close()
    assert [text for text in failures if NOT_ANSWERED not in text] == []
    assert [url for url in requests if not url.startswith(("http://127.0.0.1:", "data:", "blob:"))] == []


def shown_version(page: Page) -> int:
    return int(page.evaluate("Number(document.documentElement.dataset.version ?? 0)"))


def wait_for_steps(page: Page, steps: int) -> Frame:
    """Waits until so many steps are shown and no newer reading comes, and returns the report's frame."""
    wait_for(page, f"{SUMMARY}?.includes('{steps} ')", 40)
    page.wait_for_timeout(1000)
    newest = page.evaluate("fetch('version').then((answer) => answer.json())")["version"]
    wait_for(page, f"Number(document.documentElement.dataset.version) >= {newest} && {SUMMARY}", 40)
    return page.frames[-1]


def ask(frame: Frame, expression: str) -> Any:
    return frame.evaluate(expression)


def test_the_page_follows_a_run_and_keeps_the_view(tmp_path: Path, sheet: Page) -> None:
    """It waits for the run; then verdict and steps grow, while layer, metric, theme, table and scrolling stay."""
    path = tmp_path / "run"
    with live(path, "--every", "0.2") as (process, lines):
        sheet.goto(url_in(lines))
        wait_for(sheet, "document.getElementById('status').textContent.includes('does not exist yet')")
        writer = Writer(path, fault="vanishing")
        writer.write(25)
        frame = wait_for_steps(sheet, 25)
        ask(frame, "document.getElementById('theme').click()")
        ask(frame, "location.hash = '#l=blocks.7.linear&step=10&metric=absmax&view=value'")
        wait_until(frame, "document.getElementById('layer-name').textContent === 'blocks.7.linear'")
        ask(frame, "document.querySelector('[data-table=flow]').click()")
        sheet.wait_for_timeout(1000)  # the page scrolls smoothly to the layer
        ask(frame, "window.scrollTo({top: 700, behavior: 'instant'})")
        theme = ask(frame, "document.documentElement.dataset.theme")
        writer.write(40)
        frame = wait_for_steps(sheet, 65)
        assert ask(frame, "document.getElementById('layer-name').textContent") == "blocks.7.linear"
        assert ask(frame, "document.getElementById('metric').value") == "absmax"
        assert ask(frame, "document.getElementById('step-text').textContent") == "step 10"
        assert ask(frame, "document.documentElement.dataset.theme") == theme
        assert ask(frame, "document.getElementById('flow-table').hidden") is False
        wait_until(frame, "Math.abs(window.scrollY - 700) < 40")
        wait_for(sheet, "location.hash.includes('l=blocks.7.linear')")
        writer.close()
        wait_for(sheet, "document.getElementById('status').textContent.startsWith('The run has ended.')", 30)
        process.send_signal(signal.SIGINT)
        assert process.wait(15) == 0
        wait_for(sheet, "document.getElementById('status').dataset.state === 'lost'", 30)
        assert ask(sheet.frames[-1], "document.querySelector('h1').textContent")


def wait_until(frame: Frame, expression: str) -> None:
    for _ in range(400):
        if ask(frame, expression):
            return
        frame.page.wait_for_timeout(50)
    raise AssertionError(f"not true within 20 s: {expression}")


def test_a_link_opens_its_layer_and_the_last_step_moves_on(tmp_path: Path, sheet: Page) -> None:
    """The outer address carries the deep link; who looks at the newest step keeps looking at the newest."""
    path = tmp_path / "run"
    writer = Writer(path)
    writer.write(30)
    with live(path, "--every", "0.2") as (_, lines):
        sheet.goto(f"{url_in(lines)}#l=blocks.3.linear&step=29")
        frame = wait_for_steps(sheet, 30)
        assert ask(frame, "document.getElementById('layer-name').textContent") == "blocks.3.linear"
        assert ask(frame, "document.getElementById('step-text').textContent") == "step 29"
        writer.write(12)
        frame = wait_for_steps(sheet, 42)
        assert ask(frame, "document.getElementById('layer-name').textContent") == "blocks.3.linear"
        assert ask(frame, "document.getElementById('step-text').textContent") == "step 41"
        sheet.evaluate("location.hash = '#l=blocks.5.linear'")
        wait_until(frame, "document.getElementById('layer-name').textContent === 'blocks.5.linear'")
    writer.close()


def test_a_search_or_dialog_is_not_torn_away(tmp_path: Path, sheet: Page) -> None:
    """While somebody types or reads the keys the page waits; afterwards it catches up."""
    path = tmp_path / "run"
    writer = Writer(path)
    writer.write(30)
    with live(path, "--every", "0.2") as (_, lines):
        sheet.goto(url_in(lines))
        frame = wait_for_steps(sheet, 30)
        version = shown_version(sheet)
        frame.click("body")
        sheet.keyboard.press("?")
        wait_until(frame, "document.getElementById('keys').open")
        writer.write(12)
        sheet.wait_for_timeout(2500)
        assert shown_version(sheet) == version
        frame.click("#keys button")
        wait_for_steps(sheet, 42)
    writer.close()


def test_no_other_site_can_hold_the_page_or_read_it(tmp_path: Path, sheet: Page) -> None:
    """A page of another origin sees neither the frame nor an answer."""
    writer = Writer(tmp_path / "run")
    writer.write(20)
    with live(tmp_path / "run") as (_, lines):
        url = url_in(lines)
        stranger = sheet.context.new_page()
        stranger.goto("data:text/html,<body></body>")
        read = f"fetch('{url}version').then((answer) => answer.text(), () => 'refused')"
        assert stranger.evaluate(read) == "refused"
        stranger.evaluate(f"document.body.append(Object.assign(document.createElement('iframe'), {{src: '{url}'}}))")
        stranger.wait_for_timeout(1000)
        assert all("gradwatch" not in frame.content() for frame in stranger.frames[1:])
        stranger.close()
    writer.close()
