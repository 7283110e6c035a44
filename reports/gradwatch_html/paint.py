"""Paints the page: one template, one style sheet, one script, and plotly.js, all inside the file."""

from __future__ import annotations

import base64
import functools
import gzip
import hashlib
from collections.abc import Sequence
from importlib.resources import files
from typing import Any, Final, Protocol

import jinja2
from markupsafe import Markup

from gradwatch_html.encode import json_island
from gradwatch_html.page import Page
from gradwatch_html.palette import style_variables
from gradwatch_html.words import SEVERITY_SHAPES, middle_ellipsis, short_words, unbroken, whole

PLOTLY: Final = "plotly-cartesian-4.1.1.min.js.gz"
"""The bundle ``plotly.js-cartesian-dist-min`` of npm, compressed; of the plotly package's version."""

PLOTLY_SHA256: Final = "79542150855a52c567260e3137095dbe2b744e6d702a5cabe67da246942fba7a"
"""SHA-256 of the bundle before compression."""

SCRIPTS: Final = (
    *("base", "plots", "steps", "tables", "rows", "heatmap", "lanes", "flow"),
    *("layer", "brush", "find", "moving", "main"),
)
"""The files of ``assets/page`` that are the page's script, in the order in which they are joined."""


class WithData(Protocol):
    """What is painted: whatever its template shows of it, and what its script needs, as JSON data."""

    @property
    def meta(self) -> dict[str, Any]:
        """Plain data without non-finite numbers."""
        ...


def paint(page: Page, *, created: str = "") -> str:
    """Returns the page as HTML, the same text for the same data.

    Args:
        page: what to show.
        created: when the report was made, as it is to be written in the footer; "" leaves it out.
    """
    return fill("page.html.j2", ("style.css",), [f"page/{name}.js" for name in SCRIPTS], page, created)


def fill(template: str, styles: Sequence[str], scripts: Sequence[str], page: WithData, created: str) -> str:
    """Returns a template of ``assets`` filled with a page, with its style sheets, scripts, data and plotly.js inside.

    The scripts are joined inside one function, so that the page has no name of ours but in it.
    """
    parts = "".join(_asset(name).decode() for name in scripts)
    script = f"'use strict';\n(() => {{\n{parts}}})();"
    return _template(template).render(
        page=page,
        created=created,
        shapes=SEVERITY_SHAPES,
        colours=Markup(style_variables()),  # noqa: S704
        style=Markup("".join(_asset(name).decode() for name in styles)),  # noqa: S704  our own files, no text of a run
        script=Markup(script),  # noqa: S704
        meta=Markup(json_island(page.meta)),  # noqa: S704  <, > and & are escaped in it
        policy=_policy(script),
        plotly=base64.b64encode(_asset(PLOTLY)).decode("ascii"),
    )


def _policy(script: str) -> str:
    """Returns the content security policy: two known scripts, and no request to anywhere."""
    sources = " ".join(f"'sha256-{_digest(text)}'" for text in (script.encode(), _bundle()))
    return (
        f"default-src 'none'; script-src {sources}; style-src 'unsafe-inline'; img-src data: blob:; "
        "connect-src 'none'; base-uri 'none'; form-action 'none'"
    )


def _threshold(value: float) -> str:
    """Writes a rule's limit: whole where it is whole."""
    return whole(int(value)) if value.is_integer() and abs(value) < 1e6 else f"{value:g}".replace("e-0", "e-")


def _digest(data: bytes) -> str:
    return base64.b64encode(hashlib.sha256(data).digest()).decode("ascii")


@functools.cache
def _asset(name: str) -> bytes:
    return files("gradwatch_html").joinpath("assets", name).read_bytes()


@functools.cache
def _bundle() -> bytes:
    return gzip.decompress(_asset(PLOTLY))


@functools.cache
def _template(name: str) -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    filters = {"ellipsis": middle_ellipsis, "short_words": short_words, "numbers": unbroken, "threshold": _threshold}
    environment.filters.update(filters, whole=whole)
    return environment.from_string(_asset(name).decode())
