"""A real browser for the tests of the page."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
Sheet = Callable[..., "Page"]


def missing(reason: str) -> None:
    """Skips, or fails where a browser is required."""
    if os.environ.get("GRADWATCH_REQUIRE_BROWSER") == "1":
        pytest.fail(f"GRADWATCH_REQUIRE_BROWSER=1, but {reason}.")
    pytest.skip(reason)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """A running Chromium: that of GRADWATCH_CHROMIUM, of the system, or playwright's own."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        missing("playwright is not installed")
    with sync_playwright() as playwright:
        found = os.environ.get("GRADWATCH_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
        path = found or playwright.chromium.executable_path
        if not Path(path).exists():
            missing("no Chromium was found; install one, or set GRADWATCH_CHROMIUM to its path")
        browser = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium: Browser, tmp_path: Path) -> Iterator[Sheet]:
    """Opens a report offline; at the end no script failed, nothing was requested, and no canary was set."""
    opened: list[tuple[Any, list[str], list[str]]] = []

    def open_(html: str, *, link: str = "", scripts: bool = True, **options: Any) -> Page:
        path = tmp_path / f"report-{len(opened)}.html"
        path.write_text(html, encoding="utf-8")
        settings = {"viewport": {"width": 1280, "height": 800}, "java_script_enabled": scripts, **options}
        context = chromium.new_context(**settings)
        context.set_offline(True)
        page, failures, requests = context.new_page(), list[str](), list[str]()
        page.on("console", lambda message: failures.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: failures.append(str(error)))
        page.on("dialog", lambda dialog: failures.append(f"dialog: {dialog.message}"))
        context.on("request", lambda request: requests.append(request.url))
        page.goto(f"{path.as_uri()}{link}")
        opened.append((page, failures, requests))
        if scripts:
            wait_for(page, "document.documentElement.dataset.ready === 'true'")
        return page

    yield open_
    for page, failures, requests in opened:
        canary = page.evaluate("window.__xss ?? null")
        page.context.close()
        assert failures == []
        assert canary is None
        assert [url for url in requests if not url.startswith(("file:", "data:", "blob:"))] == []


@pytest.fixture(scope="session")
def deep_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real run of more than 200 layers, trained by the first process of tests that asks for it."""
    from tests.html.deep_training import train

    shared = tmp_path_factory.getbasetemp()
    place = (shared.parent if "PYTEST_XDIST_WORKER" in os.environ else shared) / "deep"
    try:
        place.mkdir()
    except FileExistsError:
        return _made_by_another(place / "done", place / "run")
    train(place / "run")
    (place / "done").touch()
    return place / "run"


def _made_by_another(done: Path, run: Path, seconds: float = 280) -> Path:
    until = time.monotonic() + seconds
    while not done.exists():
        if time.monotonic() > until:
            pytest.fail(f"another process of tests has not made {run} within {seconds:g} s")
        time.sleep(0.2)
    return run


def wait_for(page: Page, expression: str, seconds: float = 20) -> None:
    """Waits until an expression is true; playwright's own waiting needs eval, which the page's policy forbids."""
    for _ in range(int(seconds * 20)):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"not true within {seconds:g} s: {expression}")
