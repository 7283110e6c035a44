"""A file of roll-ups, and the steps for which it stands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gradwatch.record import STAGES
from gradwatch.statistics import Integer
from gradwatch.store.buckets import BucketRows, merged
from gradwatch.store.read import BucketFile


@dataclass(frozen=True, slots=True)
class Span:
    """A file of roll-ups and the steps of each optimizer for which it stands.

    Attributes:
        file: the file.
        before: optimizer to the step at which something finer begins, shape [256].
        after: the last step for which something coarser stands.
        sites, optimizers: the run's ids of those in the file.
    """

    file: BucketFile
    before: Integer
    sites: npt.NDArray[np.uint32]
    optimizers: npt.NDArray[np.uint8]
    after: int = -1

    def rows(self, wanted: Sequence[str] | None = None) -> BucketRows:
        """Loads the buckets that begin within the span, or some of their columns, with the run's ids."""
        return self.chosen(self.file.load(wanted))

    def chosen(self, rows: BucketRows) -> BucketRows:
        """Returns what there is of rows as the file has them within the span, with the run's ids."""
        known = (rows["site"] < len(self.sites)) & (rows["optimizer"] < len(self.optimizers)) & (rows["step_lo"] >= 0)
        rows = rows if known.all() else rows.take(np.flatnonzero(known))
        columns = {
            **rows.columns,
            "site": self.sites[rows["site"]],
            "optimizer": self.optimizers[rows["optimizer"]],
            "stage": np.where(rows["stage"] < len(STAGES), rows["stage"], STAGES.index("unknown")).astype(np.uint8),
        }
        rows = BucketRows(columns, rows.histogram_rows, rows.histogram)
        begun = (rows["step_lo"] < self.before[rows["optimizer"]]) & (rows["step_lo"] > self.after)
        return merged(rows if begun.all() else rows.take(np.flatnonzero(begun)), self.file.width)
