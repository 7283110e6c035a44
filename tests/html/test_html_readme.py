"""The page "write a reporter" is run as it stands."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from gradwatch.testing import check_reporter

README = Path(__file__).parents[2] / "reports" / "README.md"


def test_the_example_of_the_page_is_a_reporter() -> None:
    """The code blocks run, and the reporter they make keeps every promise."""
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.S)
    assert len(blocks) == 2
    names: dict[str, Any] = {}
    exec("\n".join(blocks), names)
    names["test_markdown_reporter"]()
    check_reporter(names["MarkdownReporter"](limit=1))
