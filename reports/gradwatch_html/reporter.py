"""The reporter: a run as one HTML file that opens offline."""

from __future__ import annotations

from gradwatch.comparison import Comparison
from gradwatch.findings import Analysis
from gradwatch.recording import Recording
from gradwatch_html.compare_page import paint_comparison
from gradwatch_html.page import build_page
from gradwatch_html.paint import paint


class HtmlReporter:
    """Renders a run as one self-contained HTML page that makes no request.

    Args:
        created: when the report was made, written in the footer as given; the page is the same for the same input.
    """

    suffix = ".html"

    def __init__(self, *, created: str = "") -> None:
        self.created = created

    def render(self, recording: Recording, analysis: Analysis) -> str:
        """Returns the whole page."""
        return paint(build_page(recording, analysis), created=self.created)

    def render_comparison(self, comparison: Comparison) -> str:
        """Returns the page that shows two or more runs side by side."""
        return paint_comparison(comparison, created=self.created)
