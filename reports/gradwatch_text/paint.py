"""Colour for those who ask for it."""

from __future__ import annotations

from typing import Final

STYLES: Final = {"critical": "31;1", "warning": "33;1", "notice": "36", "healthy": "32", "strong": "1", "faint": "2"}
"""A style and its parameters for Select Graphic Rendition (ECMA-48, section 8.3.117)."""


class Paint:
    """Puts a style around a text, or leaves the text as it is."""

    def __init__(self, *, color: bool) -> None:
        self._color = color

    def __call__(self, text: str, style: str) -> str:
        """Returns the text in a style; one that has no style of its own stays plain."""
        if not self._color or style not in STYLES or not text:
            return text
        return f"\x1b[{STYLES[style]}m{text}\x1b[0m"
