"""A sink for tests, which keeps in memory what the recorder hands over."""

from __future__ import annotations

from gradwatch.record import StepRecord


class MemorySink:
    """Keeps records in memory; complete once the recorder is closed.

    With ``gradwatch.recording.from_records`` they become a recording, without any file::

        sink, sites = MemorySink(), SiteTable(optimizers=())
        recorder = Recorder([sink], Guard())
        ...
        recording = from_records(sink.records, sites)

    Attributes:
        records: in the order in which they came.
    """

    def __init__(self) -> None:
        self.records: list[StepRecord] = []

    def open(self) -> None:
        """Has nothing to open."""

    def __call__(self, record: StepRecord) -> None:
        """Keeps the record."""
        self.records.append(record)

    def tick(self) -> None:
        """Has nothing to do by time."""

    def close(self) -> None:
        """Has nothing to close."""
