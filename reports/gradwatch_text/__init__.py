"""A run as plain text: for the terminal and for the logs of continuous integration."""

from gradwatch_text.reporter import TextReporter

__all__ = ["TextReporter"]
