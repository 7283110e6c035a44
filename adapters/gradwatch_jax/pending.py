"""A captured step whose numbers may still be on a device."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import jax
import numpy as np
import numpy.typing as npt

from gradwatch.record import Block, StepRecord
from gradwatch.scalars import Reader, read
from gradwatch.schedule import Plan
from gradwatch.statistics import Statistics, concatenate, merge
from gradwatch_jax.captured import Gradients, Ring
from gradwatch_jax.feedback import Feedback
from gradwatch_jax.host import statistics, total_norm
from gradwatch_jax.kernel import Rows

MICRO: Final = "micro-batch"
Ids = npt.NDArray[np.uint32]


@dataclass(frozen=True, slots=True)
class Part:
    """The rows of one signal of one place, with the ids and sizes of its sites."""

    signal: str
    ids: Ids
    sizes: npt.NDArray[np.int64]
    rows: Rows
    full: bool


@dataclass(frozen=True, slots=True)
class GradientPart:
    """The gradients of one place at one step.

    Attributes:
        ids, sizes: of the sites.
        ring: the rows on the device.
        place: how they are to be read.
        write: which of the call's gradients is meant, counted from its first; None for the last or for all.
        full: whether counts and histogram were taken.
    """

    ids: Ids
    sizes: npt.NDArray[np.int64]
    ring: Ring
    place: Gradients
    write: int | None
    full: bool

    def slots(self) -> list[int]:
        """Returns the rows that hold this step's gradient, several for micro-batches, none if it was not taken."""
        if not self.place.kept:
            return [-1]
        count = int(np.asarray(self.ring.count).flat[0])
        if self.place.pooled:
            return list(range(min(count, self.place.kept)))
        last = count - 1 if self.write is None else self.write
        return [last % self.place.kept] if 0 <= last < count else []

    def loss(self) -> float | None:
        """Returns the value that was differentiated; of micro-batches their mean."""
        if self.ring.losses is None or not (slots := self.slots()):
            return None
        losses = np.asarray(self.ring.losses)
        return float(losses) if not losses.ndim else float(np.mean(losses[slots], dtype=np.float64))

    def block(self) -> tuple[str, Statistics] | None:
        """Returns stage and statistics, or None where the step did not take this gradient."""
        slots = self.slots()
        if not slots:
            return None
        if not self.place.kept:
            return self._stage(1), statistics(self.ring.rows, self.sizes, full=self.full)
        host = jax.tree.map(np.asarray, self.ring.rows)
        parts = [statistics(jax.tree.map(lambda x: x[i], host), self.sizes, full=self.full) for i in slots]  # noqa: B023
        joined = parts[0]
        for part in parts[1:]:
            joined = merge(joined, part)
        return self._stage(len(slots)), joined

    def _stage(self, rows: int) -> str:
        if rows * self.place.shards > 1:
            return MICRO
        one_process: bool = getattr(self.ring.rows.floats, "is_fully_addressable", True)
        return "unscaled" if one_process else "reduced"


@dataclass(slots=True)
class PendingStep:
    """A step as it leaves the training thread; ``ready`` and ``resolve`` run on the writer thread.

    ``feedback`` tells whether the parameters' rows can be believed; until it is known, the step is not ready.
    ``rate`` is the learning rate, where it is known.
    """

    step: int
    optimizer: int
    time: float
    plan: Plan
    gradients: Sequence[GradientPart] = ()
    parameters: Sequence[Part] = ()
    activations: Sequence[Part] = ()
    feedback: Feedback = field(default_factory=Feedback)
    logged: Mapping[str, Reader] = field(default_factory=dict)
    suggests: bool = False
    rate: Any = None

    def fetch(self) -> None:
        """Starts the copies to the host, where the arrays are not there already."""
        if jax.default_backend() != "cpu":
            for array in self._arrays():
                array.copy_to_host_async()

    def ready(self) -> bool:
        """Tells without waiting whether every number has arrived."""
        decided = not self.parameters or self.feedback.decided
        return decided and all(array.is_ready() for array in self._arrays())

    def resolve(self) -> StepRecord:
        """Returns the record."""
        blocks = [*self._gradient_blocks()]
        facts = _total_norm(blocks)
        facts |= {} if self.rate is None else {"learning_rate": float(np.asarray(self.rate).reshape(-1)[0])}
        if self.feedback.confirmed:
            for part in self.parameters:
                found = statistics(part.rows, part.sizes, full=part.full)
                blocks.append(Block(part.signal, part.ids, found, "unscaled"))
        blocks.extend(_merged(part) for part in self.activations)
        return StepRecord(self.step, self.optimizer, self.time, False, tuple(blocks), facts, self._scalars())

    def shed(self) -> tuple[str, ...]:
        """Drops updates and weights; the gradient's histogram goes as well."""
        dropped = [part.signal for part in (*self.parameters, *self.activations)]
        if any(part.full for part in self.gradients):
            dropped.append("histogram")
        self.parameters = self.activations = ()
        self.gradients = [GradientPart(p.ids, p.sizes, p.ring, p.place, p.write, full=False) for p in self.gradients]
        return tuple(dropped)

    def _arrays(self) -> Iterator[Any]:
        for gradient in self.gradients:
            yield from _wanted(gradient.ring.rows, full=gradient.full)
            yield from (x for x in (gradient.ring.losses, gradient.ring.count) if x is not None)
        for part in (*self.parameters, *self.activations):
            yield from _wanted(part.rows, full=part.full)
        if self.rate is not None:
            yield self.rate

    def _scalars(self) -> dict[str, float]:
        logged = read(self.logged)
        if self.suggests and "loss" not in logged and len(self.gradients) == 1:
            loss = self.gradients[0].loss()
            logged |= {} if loss is None else {"loss": loss}
        return logged

    def _gradient_blocks(self) -> list[Block]:
        by_stage: dict[str, list[tuple[Ids, Statistics]]] = {}
        if self.plan.gradient:
            for part in self.gradients:
                found = part.block()
                if found is not None:
                    by_stage.setdefault(found[0], []).append((part.ids, found[1]))
        return [
            Block("gradient", np.concatenate([ids for ids, _ in parts]), concatenate([s for _, s in parts]), stage)
            for stage, parts in by_stage.items()
        ]


def _merged(part: Part) -> Block:
    """Returns one row for each layer; a layer that is called several times pools its calls."""
    found = statistics(part.rows, part.sizes, full=True)
    rows: dict[int, Statistics] = {}
    for i, site in enumerate(part.ids.tolist()):
        row = found.take(np.array([i]))
        rows[site] = merge(rows[site], row) if site in rows else row
    return Block(part.signal, np.array(list(rows), dtype=np.uint32), concatenate(list(rows.values())), "unscaled")


def _wanted(rows: Rows, *, full: bool) -> list[Any]:
    columns = rows if full else (rows.floats, rows.integers)
    return [column for column in columns if column is not None]


def _total_norm(blocks: Sequence[Block]) -> dict[str, float]:
    """Returns the norm of all gradients together; of micro-batches there is none."""
    if not blocks or any(block.stage == MICRO for block in blocks):
        return {}
    return {"total_norm": total_norm([block.statistics for block in blocks])}
