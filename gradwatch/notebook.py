"""What a notebook shows of a finding or a watch: a small card of static HTML.

It has no script and no style sheet, and takes text and background from the notebook: a notebook's dark theme is none of
the browser's. The severities' colours have a contrast of 3:1 or more on white and on near-black.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Final

_COLOURS: Final = {"critical": "#d9480f", "warning": "#b27300", "notice": "#2f7fc2"}
_MARKS: Final = {"critical": "▲", "warning": "■", "notice": "●"}
_CALM: Final = "#7f7f7f"
_BOX: Final = (
    "border:1px solid {0};border-left-width:5px;border-radius:4px;padding:8px 14px;margin:4px 0;max-width:60em;"
    "font:14px/1.45 system-ui,sans-serif;color:inherit;overflow-wrap:anywhere"
)


def card(title: str, rows: Iterable[tuple[str, Sequence[str]]], *, severity: str = "", place: str = "") -> str:
    """Returns a card as HTML; every text is escaped.

    Args:
        title: the card's sentence.
        rows: (name, its paragraphs) of each part, left out where there is none; several become a numbered list where
            the name is "Do this".
        severity: one of ``findings.SEVERITIES``, or "" for none.
        place: a line under the title, or "".
    """
    mark = f'<span style="color:{_COLOURS[severity]}">{_MARKS[severity]}</span> ' if severity else ""
    parts = [f"<div><strong>{mark}{_text(title)}</strong></div>"]
    parts += [f'<div style="opacity:.75">{_text(place)}</div>'] if place else []
    parts += [
        f'<div style="margin-top:6px"><em>{_text(name)}</em>{_body(name, texts)}</div>' for name, texts in rows if texts
    ]
    return f'<div class="gradwatch" style="{_BOX.format(_COLOURS.get(severity, _CALM))}">{"".join(parts)}</div>'


def _body(name: str, texts: Sequence[str]) -> str:
    if name == "Do this" and len(texts) > 1:
        return f'<ol style="margin:0;padding-left:1.6em">{"".join(f"<li>{_text(text)}</li>" for text in texts)}</ol>'
    return "".join(f"<div>{_text(text)}</div>" for text in texts)


def _text(text: str) -> str:
    """Escapes a text and keeps its direction to itself."""
    return f"<bdi>{escape(text)}</bdi>"
