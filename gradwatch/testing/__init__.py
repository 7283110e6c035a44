"""For tests: example runs, and what every adapter, reporter and healthy run must satisfy."""

from gradwatch.testing.adapters import check_adapter
from gradwatch.testing.long import long_run
from gradwatch.testing.reporters import check_reporter
from gradwatch.testing.runs import assert_healthy, example_run
from gradwatch.testing.sinks import MemorySink

__all__ = ["MemorySink", "assert_healthy", "check_adapter", "check_reporter", "example_run", "long_run"]
