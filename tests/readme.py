"""What the README holds, for the tests that run it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[1]
NEEDS_README: Final = pytest.mark.skipif(
    not (ROOT / "README.md").exists(), reason="only the tests are here, without a README"
)


def blocks(language: str, section: str | None = None) -> list[str]:
    """Returns the code blocks of a language, in the section of a title or in the whole page."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    if section is not None:
        text = text.split(f"\n## {section}\n")[1].split("\n## ")[0]
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
