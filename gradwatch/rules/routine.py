"""Which records the rules need not see: lean gradients that tell nothing new."""

from __future__ import annotations

import math
import statistics
from typing import Final

import numpy as np
import numpy.typing as npt

from gradwatch.record import ABSENT, Block, StepRecord
from gradwatch.rules.history import History, Series
from gradwatch.rules.layout import Mask
from gradwatch.rules.view import loss_of

FROM: Final = 128
"""Step from which records may be passed over: what begins with the run is judged by all of them."""
STRIDE: Final = 4
PAIR: Final = 8
"""Every 4th is seen whatever it holds, so that an onset is off by 3 steps at most, and the one behind every 8th, so
that what turns round from step to step shows."""
EXCESS: Final = 0.5


Ids = npt.NDArray[np.uint32]


class Routine:
    """Passes over five of eight lean gradient records, once a run is settled; ``History`` counts every one of them.

    A record is routine when it holds nothing but lean gradients, of the same sites as the record before, all finite,
    exactly zero in the same sites, with the same loss scale, and when neither the global norm nor the loss exceeds the
    median of the last ``history.RECENT`` by ``EXCESS`` of it. So whatever jumps, stops or breaks is seen at its very
    step, and what grows by 2.5 % a step or more at each step (1.5 = 1.025^16, half of the records behind).
    """

    def __init__(self, history: History) -> None:
        self._history = history
        self._sites: dict[str, Ids] = {}
        self._zero: Mask = np.zeros(0, dtype=np.bool_)
        self._scale: float | None = None
        self._passed = 0
        self._highest_norm = self._highest_loss = -math.inf

    def norm(self, record: StepRecord) -> float | None:
        """Returns the global gradient norm of a routine record; None for one that the rules have to see."""
        norm = self._routine_norm(record)
        if norm is None:
            self._remember(record)
        else:
            self._passed += 1
        return norm

    def span(self) -> int:
        """Returns how many records the one that is seen now stands for."""
        span, self._passed = self._passed + 1, 0
        return span

    def _routine_norm(self, record: StepRecord) -> float | None:
        due = record.step < FROM or record.step % STRIDE == 0 or record.step % PAIR == 1
        if due or record.skipped or self._history.spoilt:
            return None
        lean = _lean(record)
        if lean is None or not self._like_before(record, lean):
            return None
        l2 = lean.statistics.l2
        norm = math.sqrt(float(np.dot(l2, l2)))
        return norm if self._usual(norm, record) else None

    def _like_before(self, record: StepRecord, lean: Block) -> bool:
        rows = lean.statistics
        return (
            all(_same(self._sites.get(block.stage), block.sites) for block in record.blocks)
            and len(record.blocks) == len(self._sites)
            and record.facts.get("loss_scale") == self._scale
            and not np.count_nonzero(rows.nan)
            and not np.count_nonzero(rows.inf)
            and np.array_equal(rows.absmax == 0, self._zero)
        )

    def _usual(self, norm: float, record: StepRecord) -> bool:
        """Tells whether norm and loss are known (no number fails a comparison) and not far above recent ones."""
        loss = loss_of(record.logged)
        return norm <= self._highest_norm and (loss is None or loss <= self._highest_loss)

    def _remember(self, record: StepRecord) -> None:
        if record.step < FROM:
            return
        lean = [block for block in record.blocks if block.signal == "gradient"]
        self._sites = {block.stage: block.sites for block in lean}
        self._scale = record.facts.get("loss_scale")
        self._highest_norm, self._highest_loss = _limit(self._history.norm), _limit(self._history.loss)
        self._zero = next((block.statistics.absmax == 0 for block in lean if block.stage != ABSENT), self._zero)


def _lean(record: StepRecord) -> Block | None:
    """Returns the one block of lean gradients, beside which only absent ones may stand."""
    found = [block for block in record.blocks if block.stage != ABSENT]
    lean = len(found) == 1 and found[0].signal == "gradient" and found[0].statistics.histogram is None
    return found[0] if lean else None


def _limit(series: Series) -> float:
    """Returns from where on a value is an outlier; nothing is usual before there are values."""
    if not series.recent:
        return -math.inf
    usual = statistics.median(series.recent)
    return usual + EXCESS * abs(usual)


def _same(known: Ids | None, sites: Ids) -> bool:
    return known is sites or (known is not None and np.array_equal(known, sites))
