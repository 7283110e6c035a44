"""The read side that rules and reporters receive: the sites of a run and their series."""

from gradwatch.recording.buckets import BucketPanel
from gradwatch.recording.panels import Panel, Steps, StepTable, empty_panel
from gradwatch.recording.recording import Recording, from_records, load_recording, per_rank

__all__ = [
    "BucketPanel",
    "Panel",
    "Recording",
    "StepTable",
    "Steps",
    "empty_panel",
    "from_records",
    "load_recording",
    "per_rank",
]
