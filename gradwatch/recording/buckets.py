"""Dense series of buckets of steps: plain arrays that reporters read, and rules never do."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gradwatch.record import ABSENT, STAGES
from gradwatch.statistics import BINS, NULL, Float, Integer, root_mean_square


@dataclass(frozen=True, slots=True)
class BucketPanel:
    """The series of one signal under one optimizer before the steps that are kept in full: w windows by m sites.

    ``gradwatch.store.buckets`` says what each column is over the samples of a window.

    Attributes:
        signal: one of ``record.SIGNALS``.
        optimizer: index into ``SiteTable.optimizers``.
        first, last: sampled steps that a window begins and ends with, ascending and disjoint, shape [w].
        sites: site ids, ascending, shape [m].
        samples: steps that were sampled, 0 where there is none, int32, shape [w, m].
        stage: positions in ``record.STAGES``, uint8, shape [w, m].
        n, nan, inf: sums over the samples, int64, shape [w, m]; ``NULL`` where not taken.
        nonfinite_max, zeros_max: the largest of one sample, int64, shape [w, m].
        l2, absmax, rms_min, rms_max: float64, shape [w, m]; NaN is null.
        histogram_rows: windows that have histograms, as positions, shape [h].
        histogram: mean counts c of a sample as round(8 log2(1 + c)), uint8, shape [h, m, 64]; ``counts`` gives c.
        units: the largest of one sample, shape [4, w, m] in the order of ``UnitCounts``, or None.
    """

    signal: str
    optimizer: int
    first: Integer
    last: Integer
    sites: npt.NDArray[np.uint32]
    samples: npt.NDArray[np.int32]
    stage: npt.NDArray[np.uint8]
    n: Integer
    nan: Integer
    inf: Integer
    nonfinite_max: Integer
    zeros_max: Integer
    l2: Float
    absmax: Float
    rms_min: Float
    rms_max: Float
    histogram_rows: Integer
    histogram: npt.NDArray[np.uint8]
    units: npt.NDArray[np.int64] | None = None

    def absent(self) -> npt.NDArray[np.bool_]:
        """Tells where every sample's gradient was None, shape [w, m]."""
        absent: npt.NDArray[np.bool_] = (self.stage == STAGES.index(ABSENT)) & (self.samples > 0)
        return absent

    def counts(self, columns: npt.NDArray[np.intp]) -> Float:
        """Returns the mean histograms of a sample of some sites, each bin right to 4.4 %, shape [h, columns, 64]."""
        return np.asarray(np.exp2(self.histogram[:, columns] / 8.0) - 1.0)

    def rms(self) -> Float:
        """Returns the root of the mean square over all elements of all samples, shape [w, m]."""
        finite = self.n - np.maximum(self.nan, 0) - np.maximum(self.inf, 0)
        return root_mean_square(self.l2, finite)

    def elements(self) -> Float:
        """Returns the elements of a sample, their mean where that varies, shape [w, m]; NaN where there is none."""
        return np.where(self.samples > 0, np.maximum(self.n, 0) / np.maximum(self.samples, 1), np.nan)


def empty_buckets(
    signal: str, optimizer: int, windows: Integer, sites: npt.NDArray[np.uint32], histograms: Integer, *, units: bool
) -> BucketPanel:
    """Returns a panel of nulls; ``histograms`` names the windows that will have histograms."""
    shape = (len(windows), len(sites))

    def counts() -> Integer:
        return np.full(shape, NULL, dtype=np.int64)

    def values() -> Float:
        return np.full(shape, np.nan)

    return BucketPanel(
        signal,
        optimizer,
        first=np.full(len(windows), np.iinfo(np.int64).max),
        last=np.full(len(windows), -1, dtype=np.int64),
        sites=sites,
        samples=np.zeros(shape, dtype=np.int32),
        stage=np.zeros(shape, dtype=np.uint8),
        n=counts(),
        nan=counts(),
        inf=counts(),
        nonfinite_max=counts(),
        zeros_max=counts(),
        l2=values(),
        absmax=values(),
        rms_min=values(),
        rms_max=values(),
        histogram_rows=np.searchsorted(windows, histograms).astype(np.int64),
        histogram=np.zeros((len(histograms), len(sites), BINS), dtype=np.uint8),
        units=np.full((4, *shape), NULL, dtype=np.int64) if units else None,
    )
