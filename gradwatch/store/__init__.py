"""The run's files: layout, writing while a run trains, sealing, reading, verifying. A byte on disk belongs here."""

from gradwatch.store.writer import StoreWriter

__all__ = ["StoreWriter"]
