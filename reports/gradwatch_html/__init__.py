"""The HTML report of a run: one self-contained page."""

from gradwatch_html.reporter import HtmlReporter

__all__ = ["HtmlReporter"]
