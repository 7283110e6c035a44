"""The colours of the page, light and dark: the style sheet, the script and the plots take them from here.

The diverging map runs from blue over grey to orange and the sequential one is cividis, both safe for the three kinds of
colour blindness (Nunez, Anderton, Renslow 2018, "Optimizing colormaps with consideration for color vision deficiency").
Dark has a diverging map of its own with a dark middle: a light one glares.
"""

from __future__ import annotations

from typing import Final

COLOURS: Final = {
    "page": ("#f7f6f3", "#141518"),
    "card": ("#ffffff", "#1b1d21"),
    "sunk": ("#f0eee9", "#24272c"),
    "ink": ("#1a1b1e", "#e9e8e4"),
    "soft": ("#5e6066", "#a2a5ab"),
    "line": ("#e2dfd8", "#2f3338"),
    "grid": ("#eceae5", "#282b30"),
    "accent": ("#1f5a92", "#8cc0f5"),
    "second": ("#a85a12", "#eba766"),
    "critical": ("#b5310c", "#ff8a66"),
    "warning": ("#9a5b00", "#ecb04d"),
    "notice": ("#1f6db3", "#79b8f2"),
    "passed": ("#177245", "#67c294"),
    "healthy": ("#b4cfc6", "#3c5a51"),
    "frozen": ("#c9c8c4", "#4a4d52"),
    "unseen": ("#eceae4", "#2a2d31"),
    "absent": ("#c9c8c4", "#4a4d52"),
    "zero": ("#9b9c9e", "#62666c"),
    "bad": ("#c4008f", "#ff5fd0"),
    "tint-critical": ("#f9e3da", "#43261d"),
    "tint-warning": ("#f6e9d0", "#3d301a"),
    "tint-notice": ("#e0ecf7", "#1c3146"),
    "band": ("#dff0e6", "#1d3528"),
}
"""Name to (light, dark)."""

DIVERGING: Final = (
    ("#0a3a75", "#2f78b8", "#8fbbdd", "#dfe5e9", "#ecebe8", "#efe2d3", "#eab073", "#cf6d1c", "#7f2f02"),
    ("#b9e2ff", "#5aaae6", "#2f6592", "#25333f", "#202328", "#3a2c20", "#8d5420", "#dc8434", "#ffdcb0"),
)
CIVIDIS: Final = (
    *("#00224e", "#123570", "#3b496c", "#575d6d", "#707173"),
    *("#8a8678", "#a59c74", "#c3b369", "#e1cc55", "#fee838"),
)
ELEMENTS: Final = (
    ("#e6eef6", "#9fc3e2", "#4f8fc4", "#1f5a92", "#0b2f5c"),
    ("#22303d", "#2b5377", "#3f86bf", "#8cc0f5", "#e2f1ff"),
)
"""From few elements to many; the background shows where there is none."""


def style_variables() -> str:
    """Returns the colours as variables of the style sheet."""
    lines = (f"--{name}: light-dark({light}, {dark});" for name, (light, dark) in COLOURS.items())
    return ":root { color-scheme: light dark; " + " ".join(lines) + " }"
