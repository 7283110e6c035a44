"""Text put into lines: what a terminal would obey is made visible, what is too wide is wrapped."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator


def columns(text: str) -> int:
    """Counts the columns that a terminal gives a text: two for wide characters, none for combining ones."""
    return sum(_columns_of(character) for character in text)


def wrap(text: str, width: int) -> list[str]:
    """Breaks a text between its words into lines of at most ``width`` columns; a longer word is broken where it must.

    An empty text is one empty line.
    """
    lines, line = [], ""
    for word in text.split():
        for piece in _pieces(word, width):
            if line and columns(line) + 1 + columns(piece) > width:
                lines.append(line)
                line = piece
            else:
                line = f"{line} {piece}" if line else piece
    return [*lines, line]


def hang(label: str, text: str, width: int) -> list[str]:
    """Wraps a text behind a label: the label stands in the first line, all lines of the text begin in one column."""
    indent = columns(label)
    first, *rest = wrap(text, width - indent)
    return [label + first, *(" " * indent + line for line in rest)]


def _pieces(word: str, width: int) -> Iterator[str]:
    piece = ""
    for character in word:
        if piece and columns(piece) + _columns_of(character) > width:
            yield piece
            piece = ""
        piece += character
    yield piece


def _columns_of(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
