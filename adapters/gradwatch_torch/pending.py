"""A captured step whose numbers may still be on a device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from gradwatch import native
from gradwatch.record import ABSENT, ACTIVATION_SIGNALS, Block, SiteTable, StepRecord
from gradwatch.scalars import Reader, read
from gradwatch.statistics import BINS, NULL, Histogram, Statistics, UnitCounts, concatenate, empty, merge
from gradwatch_torch.activations import Capture, Captures
from gradwatch_torch.device import HostCopy
from gradwatch_torch.gradients import Ids
from gradwatch_torch.measure import InC, Measured
from gradwatch_torch.units import UnitMemory, join_alive


@dataclass(slots=True)
class Part:
    """The rows of one parameter signal."""

    signal: str
    sites: Ids
    measured: Measured
    stage: str


@dataclass(slots=True)
class Clip:
    """One call of torch's gradient clipping: the threshold, the norm before it, and which gradient sites it covered."""

    max_norm: Reader
    total_norm: HostCopy
    sites: frozenset[int]


@dataclass(slots=True)
class PendingStep:
    """A step as it leaves the training thread; ``ready`` and ``resolve`` run on the writer thread.

    ``loss_scale`` is that of the step's passes, if any. ``scale`` and ``found_inf`` are set for optimizers that unscale
    inside their own kernel, whose gradients are read before that.
    """

    step: int
    optimizer: int
    time: float
    sites: SiteTable
    memory: UnitMemory
    absent: Ids
    parts: list[Part] = field(default_factory=list)
    captures: Captures = field(default_factory=dict)
    facts: dict[str, Reader] = field(default_factory=dict)
    logged: Mapping[str, Reader] = field(default_factory=dict)
    clips: Sequence[Clip] = ()
    loss_scale: HostCopy | None = None
    scale: HostCopy | None = None
    found_inf: HostCopy | None = None
    skipped: bool = False

    def ready(self) -> bool:
        """Tells without waiting whether every number has arrived."""
        measured = all(part.measured.ready() for part in self.parts)
        return measured and all(capture.ready() for capture in self.captures.values())

    def resolve(self) -> StepRecord:
        """Returns the record; of a skipped step only its number and scalars, because nothing was applied."""
        skipped = self.skipped or (self.found_inf is not None and self.found_inf.scalar() > 0)
        facts = read(self.facts)
        if self.loss_scale is not None:
            facts["loss_scale"] = self.loss_scale.scalar()
        blocks = [] if skipped else [self._block(part) for part in self.parts]
        if not skipped:
            facts |= self._norms(blocks)
            blocks.extend(self._absent_block())
            blocks.extend(self._activation_blocks() if self.captures else ())
        return StepRecord(self.step, self.optimizer, self.time, skipped, tuple(blocks), facts, read(self.logged))

    def shed(self) -> tuple[str, ...]:
        """Drops updates, weights and activations; the gradient's histogram goes as well."""
        dropped = [part.signal for part in self.parts if part.signal != "gradient"]
        self.parts = [replace(part, measured=_Lean(part.measured)) for part in self.parts if part.signal == "gradient"]
        dropped.extend(dict.fromkeys(signal for signal, _ in self.captures))
        self.captures = {}
        return tuple(dropped)

    def _block(self, part: Part) -> Block:
        statistics = part.measured.resolve()
        if part.signal == "gradient" and self.scale is not None:
            statistics = unscale(statistics, self.scale.scalar())
        return Block(part.signal, part.sites, statistics, part.stage)

    def _absent_block(self) -> list[Block]:
        if not len(self.absent):
            return []
        return [Block("gradient", self.absent, empty(len(self.absent)).lean(), ABSENT)]

    def _norms(self, blocks: Sequence[Block]) -> dict[str, float]:
        """Returns the global gradient norm before clipping, and the threshold.

        Clipped gradients count with the norm that clipping found; a rank's shards give no global norm.
        """
        clipped: set[int] = set().union(*(clip.sites for clip in self.clips)) if self.clips else set()
        squares = sum(clip.total_norm.scalar() ** 2 for clip in self.clips)
        for block in blocks:
            if block.signal == "gradient":
                if block.stage == "shard":
                    return {}
                l2 = block.statistics.l2
                if clipped:
                    l2 = l2[[i for i, site in enumerate(block.sites.tolist()) if site not in clipped]]
                norm = float(np.dot(l2, l2))
                squares += norm if np.isfinite(norm) else float(np.nansum(np.square(l2)))
        threshold = {"clip_threshold": min(clip.max_norm() for clip in self.clips)} if self.clips else {}
        return {"total_norm": squares**0.5, **threshold}

    def _activation_blocks(self) -> list[Block]:
        return [
            self._activation_block(signal, rows)
            for signal in ACTIVATION_SIGNALS
            if (rows := sorted((site, capture) for (kind, site), capture in self.captures.items() if kind == signal))
        ]

    def _activation_block(self, signal: str, rows: Sequence[tuple[int, Capture]]) -> Block:
        statistics = _all_statistics([capture for _, capture in rows])
        if signal == "activation_gradient" and self.loss_scale is not None:
            statistics = unscale(statistics, self.loss_scale.scalar())
        sites = np.array([site for site, _ in rows], dtype=np.uint32)
        return Block(signal, sites, statistics, "unscaled", self._unit_counts(signal, rows))

    def _unit_counts(self, signal: str, rows: Sequence[tuple[int, Capture]]) -> UnitCounts | None:
        if signal != "activation":
            return None
        columns: list[tuple[int, int, int, int]] = []
        for site, capture in rows:
            alive = join_alive(capture.alive)
            twin = self.sites.find("activation_gradient", self.sites[site].name)
            gradient = self.captures.get(("activation_gradient", twin)) if twin is not None else None
            saturated = int(sum(part.scalar() for part in capture.saturated)) if capture.saturated else NULL
            columns.append(
                (
                    NULL if alive is None else len(alive),
                    self.memory.count(site, alive),
                    NULL if twin is None or gradient is None else self._silent_deltas(twin, gradient),
                    saturated,
                )
            )
        return UnitCounts(*np.array(columns, dtype=np.int64).T)

    def _silent_deltas(self, site: int, capture: Capture) -> int:
        return self.memory.count(site, join_alive(capture.alive))


@dataclass(frozen=True, slots=True)
class _Lean:
    """A measurement without what overflow sheds."""

    whole: Measured

    def ready(self) -> bool:
        return self.whole.ready()

    def resolve(self) -> Statistics:
        return self.whole.resolve().lean()


def unscale(statistics: Statistics, scale: float) -> Statistics:
    """Divides by a loss scale. The histogram moves by octaves when the scale is a power of two, else it is dropped."""
    exponent = float(np.log2(scale))
    histogram = statistics.histogram
    if histogram is not None:
        histogram = _shift(histogram, int(exponent)) if exponent == int(exponent) else None
    return replace(
        statistics,
        l2=statistics.l2 / scale,
        sum=statistics.sum / scale,
        absmax=statistics.absmax / scale,
        histogram=histogram,
    )


_OPEN_BINS: Final = (0, BINS - 1)


def _shift(histogram: Histogram, octaves: int) -> Histogram:
    """Moves counts down by octaves. What lay in an open end bin stays there when it cannot have left it."""
    target = np.clip(np.arange(BINS) - octaves, *_OPEN_BINS)
    shifted = np.zeros_like(histogram)
    for source, destination in enumerate(target.tolist()):
        shifted[:, destination] += histogram[:, source]
    return shifted


def _all_statistics(captures: Sequence[Capture]) -> Statistics:
    """Joins the captures of all sites, those that C made at once: a site each would cost as much as its reading."""
    single = [capture.measured[0] for capture in captures if len(capture.measured) == 1]
    reduced = [measured.reduced for measured in single if isinstance(measured, InC)]
    if reduced and len(reduced) == len(captures):
        return native.join(reduced).statistics()
    return concatenate([_join_passes(capture) for capture in captures])


def _join_passes(capture: Capture) -> Statistics:
    passes = [measured.resolve() for measured in capture.measured]
    joined = passes[0]
    for other in passes[1:]:
        joined = merge(joined, other)
    return joined
