"""A step that rings have recorded, on its way to the writer thread."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from gradwatch.record import Block, StepRecord
from gradwatch.scalars import Reader, read
from gradwatch.statistics import Statistics, concatenate
from gradwatch_jax.host import statistics, total_norm
from gradwatch_jax.kernel import Rows

Groups = dict[tuple[str, str], list[tuple[npt.NDArray[np.uint32], Statistics]]]


@dataclass(frozen=True, slots=True)
class RowSites:
    """The sites of a ring's rows.

    Attributes:
        signal: ``gradient`` or ``update``.
        ids: of the sites.
        rows: index of each site's row.
        sizes: elements of each site.
    """

    signal: str
    ids: npt.NDArray[np.uint32]
    rows: npt.NDArray[np.intp]
    sizes: npt.NDArray[np.int64]


@dataclass(slots=True)
class PendingRows:
    """The rows of one step, on the host already; the arithmetic is left to the writer thread."""

    step: int
    optimizer: int
    time: float
    parts: Sequence[tuple[RowSites, str, Rows]]
    logged: Mapping[str, Reader] = field(default_factory=dict)

    def ready(self) -> bool:
        """Always true."""
        return True

    def resolve(self) -> StepRecord:
        """Returns the record."""
        blocks = tuple(_blocks(self.parts))
        return StepRecord(
            self.step, self.optimizer, self.time, blocks=blocks, facts=_total_norm(blocks), logged=read(self.logged)
        )

    def shed(self) -> tuple[str, ...]:
        """Drops updates."""
        dropped = dict.fromkeys(sites.signal for sites, _, _ in self.parts if sites.signal != "gradient")
        self.parts = [part for part in self.parts if part[0].signal == "gradient"]
        return tuple(dropped)


def _blocks(parts: Iterable[tuple[RowSites, str, Rows]]) -> Iterable[Block]:
    groups: Groups = {}
    for sites, stage, rows in parts:
        taken = Rows(rows.floats[sites.rows], rows.integers[sites.rows])
        groups.setdefault((sites.signal, stage), []).append((sites.ids, statistics(taken, sites.sizes, full=False)))
    for (signal, stage), group in groups.items():
        ids = np.concatenate([ids for ids, _ in group])
        yield Block(signal, ids, concatenate([values for _, values in group]), stage)


def _total_norm(blocks: Sequence[Block]) -> dict[str, float]:
    """Returns the norm of all gradients before clipping; one device's part gives none."""
    gradients = [block for block in blocks if block.signal == "gradient"]
    if not gradients or any(block.stage in ("local", "shard") or "after" in block.stage for block in gradients):
        return {}
    return {"total_norm": total_norm([block.statistics for block in gradients])}
