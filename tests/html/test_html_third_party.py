"""A reporter of somebody else's, installed beside gradwatch, is found by its name and used."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gradwatch.errors import GradwatchError
from gradwatch.testing import example_run

README = Path(__file__).parents[2] / "reports" / "README.md"


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the path that looks as pip leaves it: the package of the README, and its metadata."""
    text = README.read_text(encoding="utf-8")
    code = re.search(r"```python\n(.*?)```", text, flags=re.S)
    points = re.search(r"```toml\n(.*?)```", text, flags=re.S)
    assert code is not None
    assert points is not None
    group, line = re.findall(r'"(gradwatch\.reporters)"\]\n(\S+ = ".*")', points[1])[0]
    site = tmp_path / "site-packages"
    package, metadata = site / "gradwatch_markdown", site / "gradwatch_markdown-1.0.dist-info"
    package.mkdir(parents=True)
    metadata.mkdir()
    (package / "__init__.py").write_text(code[1], encoding="utf-8")
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: gradwatch-markdown\nVersion: 1.0\n", "utf-8")
    (metadata / "entry_points.txt").write_text(f"[{group}]\n{line.replace(chr(34), '')}\n", encoding="utf-8")
    assert len(code[1].splitlines()) <= 30
    monkeypatch.syspath_prepend(str(site))
    return package


def test_an_installed_reporter_is_found_and_used(installed: Path, tmp_path: Path) -> None:
    """run.report(reporter=NAME) writes what the other package's reporter returns, under its suffix."""
    run = example_run(tmp_path / "run", layers=6, steps=60, fault="vanishing")
    path = run.report(reporter="markdown")
    assert path == run.path / "report.md"
    text = path.read_text(encoding="utf-8")
    assert text.startswith(f"**{run.analysis.verdict}**")
    assert f"- {run.analysis.findings[0].severity}: " in text
    assert installed.is_dir()


def test_without_it_the_message_names_what_is_installed(tmp_path: Path) -> None:
    """A reporter that is not installed is refused in one sentence that lists the others."""
    run = example_run(tmp_path / "run", layers=2, steps=5)
    with pytest.raises(GradwatchError, match="html") as caught:
        run.report(reporter="markdown")
    assert "markdown" in str(caught.value)
