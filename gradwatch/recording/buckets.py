"""Dense series of buckets of steps: plain arrays that reporters read, and rules never do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from gradwatch.record import ABSENT, STAGES
from gradwatch.recording.panels import Selected
from gradwatch.statistics import Float, Integer, root_mean_square


@dataclass(frozen=True, slots=True)
class BucketPanel:
    """The series of one signal under one optimizer before the steps that are kept in full: w windows by m sites.

    ``gradwatch.store.buckets`` says what each column is over the samples of a window.

    Attributes:
        signal: one of ``record.SIGNALS``.
        optimizer: index into ``SiteTable.optimizers``.
        first, last: sampled steps that a window begins and ends with, ascending and disjoint, shape [w].
        sites: site ids, ascending, shape [m].
        columns: the columns below, by name; read when they are asked for, as those of ``Panel``.
    """

    signal: str
    optimizer: int
    first: Integer
    last: Integer
    sites: npt.NDArray[np.uint32]
    columns: Mapping[str, Any]

    @property
    def samples(self) -> npt.NDArray[np.int32]:
        """Steps that were sampled, 0 where there is none, int32, shape [w, m]."""
        return self.columns["samples"]  # type: ignore[no-any-return]

    @property
    def stage(self) -> npt.NDArray[np.uint8]:
        """Positions in ``record.STAGES``, shape [w, m]."""
        return self.columns["stage"]  # type: ignore[no-any-return]

    @property
    def n(self) -> Integer:
        """Elements over the samples, int64, shape [w, m]; ``NULL`` where not taken, as in all counts."""
        return self.columns["n"]  # type: ignore[no-any-return]

    @property
    def nan(self) -> Integer:
        """Elements that are NaN over the samples, shape [w, m]."""
        return self.columns["nan"]  # type: ignore[no-any-return]

    @property
    def inf(self) -> Integer:
        """Elements that are infinite over the samples, shape [w, m]."""
        return self.columns["inf"]  # type: ignore[no-any-return]

    @property
    def nonfinite_max(self) -> Integer:
        """The largest number of NaN and infinite elements of one sample, shape [w, m]."""
        return self.columns["nonfinite_max"]  # type: ignore[no-any-return]

    @property
    def zeros_max(self) -> Integer:
        """The largest number of zeros of one sample, shape [w, m]."""
        return self.columns["zeros_max"]  # type: ignore[no-any-return]

    @property
    def l2(self) -> Float:
        """Norm over the samples, float64, shape [w, m]; NaN is null, as in all values."""
        return self.columns["l2"]  # type: ignore[no-any-return]

    @property
    def absmax(self) -> Float:
        """Largest absolute value, shape [w, m]."""
        return self.columns["absmax"]  # type: ignore[no-any-return]

    @property
    def rms_min(self) -> Float:
        """Smallest rms of one sample, shape [w, m]."""
        return self.columns["rms_min"]  # type: ignore[no-any-return]

    @property
    def rms_max(self) -> Float:
        """Largest rms of one sample, shape [w, m]."""
        return self.columns["rms_max"]  # type: ignore[no-any-return]

    @property
    def histogram_rows(self) -> Integer:
        """Windows that have histograms, as positions, shape [h]."""
        return self.columns["histogram_rows"]  # type: ignore[no-any-return]

    @property
    def histogram(self) -> npt.NDArray[np.uint8]:
        """Mean counts c of a sample as round(8 log2(1 + c)), shape [h, m, 64]; ``counts`` gives c."""
        return self.columns["histogram"]  # type: ignore[no-any-return]

    @property
    def units(self) -> npt.NDArray[np.int64] | None:
        """The largest of one sample, shape [4, w, m] in the order of ``UnitCounts``, or None."""
        return self.columns["units"]  # type: ignore[no-any-return]

    def absent(self) -> npt.NDArray[np.bool_]:
        """Tells where every sample's gradient was None, shape [w, m]."""
        absent: npt.NDArray[np.bool_] = (self.stage == STAGES.index(ABSENT)) & (self.samples > 0)
        return absent

    def counts(self, columns: npt.NDArray[np.intp], rows: slice = slice(None)) -> Float:
        """Returns the mean histograms of a sample of some sites, each bin right to 4.4 %, shape [h, columns, 64]."""
        return _COUNTS[self.histogram[rows][:, columns]]

    def at(self, rows: slice | npt.NDArray[np.intp]) -> BucketPanel:
        """Returns the panel of some of its windows, by position, without histograms."""
        columns = Selected(self.columns, rows)
        return BucketPanel(self.signal, self.optimizer, self.first[rows], self.last[rows], self.sites, columns)

    def rms(self) -> Float:
        """Returns the root of the mean square over all elements of all samples, shape [w, m]."""
        finite = self.n - np.maximum(self.nan, 0) - np.maximum(self.inf, 0)
        return root_mean_square(self.l2, finite)

    def elements(self) -> Float:
        """Returns the elements of a sample, their mean where that varies, shape [w, m]; NaN where there is none."""
        return np.where(self.samples > 0, np.maximum(self.n, 0) / np.maximum(self.samples, 1), np.nan)


_COUNTS: Final = np.exp2(np.arange(256) / 8.0) - 1.0
