"""Makes the picture at the top of the README, from the sick run of the demonstration: ``python -m tests.picture``."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Final

from playwright.sync_api import sync_playwright

import gradwatch
from gradwatch_torch import demo

PICTURE: Final = Path(__file__).parents[1] / ".github" / "report.png"
WIDTH, HEIGHT = 1200, 860
BROWSERS: Final = ("chromium", "chromium-browser", "google-chrome")


def main() -> None:
    """Trains, reports and photographs the first screen of the report."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "sick"
        demo.train(demo.sick_block, run, seed=0)
        photograph(gradwatch.load(run).report(), PICTURE)
    print(PICTURE)


def photograph(page: Path, picture: Path) -> None:
    """Writes what a browser shows of a page before anybody scrolls."""
    installed = next(filter(None, map(shutil.which, BROWSERS)), None)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=installed, args=["--no-sandbox"])
        sheet = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light")
        sheet.goto(page.resolve().as_uri())
        sheet.wait_for_timeout(2000)
        sheet.screenshot(path=picture)
        browser.close()


if __name__ == "__main__":
    main()
