"""How numbers, steps and names are written on the page."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Final

from markupsafe import Markup, escape

KIND_TITLES: Final = {
    "vanishing": "Vanishing gradients",
    "exploding": "Exploding gradients",
    "nonfinite": "NaN and infinity",
    "dead-units": "Dead units",
    "disconnected": "Disconnected layers",
    "frozen": "Frozen layers",
    "underflow": "Underflow",
    "spike": "Gradient spikes",
    "update-too-large": "Updates too large",
    "update-too-small": "Updates too small",
    "saturated": "Saturated units",
    "oscillating": "Oscillation",
    "clipping": "Clipping",
    "plumbing": "Training-loop plumbing",
}
SEVERITY_SHAPES: Final = {"critical": "▲", "warning": "■", "notice": "●"}
STATUS_WORDS: Final = {
    "trained": "trained",
    "frozen": "frozen: requires no gradient",
    "missing": "in no optimizer",
    "foreign": "in the optimizer but not in the model",
}
_POWER: Final = re.compile(r"\d[\d.,]*e[-+]?\d+")
_SUPERSCRIPT: Final = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def kind_title(kind: str) -> str:
    """Returns a kind of finding in words; an unknown kind stays as it is."""
    return KIND_TITLES.get(kind, kind)


def whole(value: int) -> str:
    """Writes a whole number with thousands separators: ``412,000``."""
    return f"{value:,}"


def counted(value: int, noun: str) -> str:
    """Writes a count and its noun: ``1 layer``, ``12 layers``."""
    return f"{value:,} {noun}{'' if value == 1 else 's'}"


def spelled(first: int, last: int) -> str:
    """Writes a span of steps: ``step 7``, ``steps 7 to 1,200``."""
    return f"step {whole(first)}" if first == last else f"steps {whole(first)} to {whole(last)}"


def power_of_ten(exponent: int) -> str:
    """Writes ``10⁻⁶``."""
    return "10" + str(exponent).translate(_SUPERSCRIPT)


def short(value: float) -> str:
    """Writes a measured number with two significant digits: ``0.031``, ``3.9e-6``, ``12,000``."""
    if not math.isfinite(value):
        return "non-finite"
    if value == 0:
        return "0"
    if 1e-3 <= abs(value) < 1e5:
        digits = max(0, 1 - math.floor(math.log10(abs(value))))
        text = f"{value:,.{digits}f}"
        return text.rstrip("0").rstrip(".") if "." in text else text
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa.removesuffix('.0')}e{int(exponent)}"


def middle_ellipsis(text: str, limit: int) -> str:
    """Shortens a text to ``limit`` characters by leaving out its middle."""
    if len(text) <= limit:
        return text
    tail = (limit - 1) * 3 // 5
    return f"{text[: limit - 1 - tail]}…{text[-tail:]}"


def short_words(text: str, limit: int) -> str:
    """Shortens the words of a sentence that are longer than ``limit``: names of layers, mostly."""
    return " ".join(middle_ellipsis(word, limit) for word in text.split(" "))


def joined(parts: Iterable[str]) -> str:
    """Joins with commas and a final "and"."""
    items = list(parts)
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}" if items else ""


def unbroken(text: object) -> Markup:
    """Escapes a text, and keeps numbers such as ``1.6e-10`` on one line: a browser would break at their minus."""
    whole_text = str(text)
    parts, at = [], 0
    for match in _POWER.finditer(whole_text):
        parts += [escape(whole_text[at : match.start()]), Markup('<span class="number">%s</span>') % match[0]]
        at = match.end()
    return Markup("").join([*parts, escape(whole_text[at:])])
