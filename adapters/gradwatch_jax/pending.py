"""A captured step whose numbers may still be on a device."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import jax
import numpy as np
import numpy.typing as npt

from gradwatch.record import Block, StepRecord
from gradwatch.scalars import Reader, read
from gradwatch.schedule import Plan
from gradwatch.statistics import Statistics, concatenate, merge
from gradwatch_jax.captured import Captured, Gradients, Ring
from gradwatch_jax.feedback import Feedback
from gradwatch_jax.host import statistics, total_norm
from gradwatch_jax.kernel import Rows
from gradwatch_jax.packing import Packed
from gradwatch_jax.sites import Sites

MICRO: Final = "micro-batch"
Ids = npt.NDArray[np.uint32]


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

    Attributes:
        plan: what was captured.
        captured: that, and perhaps more.
        sites: where its rows belong.
        feedback: tells whether the parameters' rows can be believed; until it is known, the step is not ready.
        write: which of the call's gradients is meant, where it makes several steps.
        logged: the user's scalars.
    """

    step: int
    optimizer: int
    time: float
    plan: Plan
    captured: Captured | Packed
    sites: Sites
    feedback: Feedback
    write: int | None
    logged: Mapping[str, Reader]

    def fetch(self) -> None:
        """Starts the copies to the host."""
        for array in self.captured.arrays():
            array.copy_to_host_async()

    def ready(self) -> bool:
        """Tells without waiting whether every number has arrived."""
        decided = self.feedback.decided or not self._follows_parameters()
        return decided and all(array.is_ready() for array in self.captured.arrays())

    def resolve(self) -> StepRecord:
        """Returns the record."""
        captured = self.captured.unpacked()
        gradients = list(self._gradients(captured))
        blocks = _gradient_blocks(gradients)
        facts = _total_norm(blocks)
        if captured.rate is not None and self.write is None:
            facts["learning_rate"] = float(np.asarray(captured.rate).reshape(-1)[0])
        if self.feedback.confirmed:
            blocks.extend(self._parameter_blocks(captured))
        if self.write is None:
            blocks.extend(self._activation_blocks(captured))
        logged = read(self.logged)
        if "loss" not in logged and len(gradients) == 1:
            loss = gradients[0].loss()
            logged |= {} if loss is None else {"loss": loss}
        return StepRecord(self.step, self.optimizer, self.time, False, tuple(blocks), facts, logged)

    def shed(self) -> tuple[str, ...]:
        """Drops updates, weights and activations; the gradient's histogram goes as well."""
        layout, plan = self.captured.layout, self.plan
        taken = {*layout.activations} if self.write is None else set()
        taken |= {"update", "weight"} if layout.trained is not None else set()
        dropped = tuple(sorted(taken & plan.signals)) + (("histogram",) if plan.histogram and layout.gradients else ())
        self.plan = Plan(plan.gradient, False, plan.signals & {"gradient"})
        self.captured = self.captured.of(self.plan)
        return dropped

    def _follows_parameters(self) -> bool:
        return self.captured.layout.trained is not None and (self.plan.update or self.plan.weight)

    def _gradients(self, captured: Captured) -> Iterator[GradientPart]:
        if self.plan.gradient:
            for at, ring, place in zip(
                self.sites.gradients, captured.gradients, captured.layout.gradients, strict=True
            ):
                yield GradientPart(*at, ring, place, self.write, self.plan.histogram)

    def _parameter_blocks(self, captured: Captured) -> Iterator[Block]:
        for signal, rows in (("update", captured.update), ("weight", captured.weight)):
            if rows is not None and signal in self.plan.signals:
                ids, sizes = self.sites.parameters[signal]
                yield Block(signal, ids, statistics(rows, sizes, full=signal == "update"), "unscaled")

    def _activation_blocks(self, captured: Captured) -> Iterator[Block]:
        for signal, rows in captured.activations.items():
            if signal in self.plan.signals:
                yield _merged(signal, *self.sites.activations[signal], rows)


def _gradient_blocks(gradients: Iterable[GradientPart]) -> list[Block]:
    by_stage: dict[str, list[tuple[Ids, Statistics]]] = {}
    for part in gradients:
        found = part.block()
        if found is not None:
            by_stage.setdefault(found[0], []).append((part.ids, found[1]))
    return [
        Block("gradient", _joined([ids for ids, _ in parts]), concatenate([s for _, s in parts]), stage)
        for stage, parts in by_stage.items()
    ]


def _joined(ids: Sequence[Ids]) -> Ids:
    return ids[0] if len(ids) == 1 else np.concatenate(ids)


def _merged(signal: str, ids: Ids, sizes: npt.NDArray[np.int64], rows_of_calls: Rows) -> Block:
    """Returns one row for each layer; a layer that is called several times pools its calls."""
    found = statistics(rows_of_calls, sizes, full=True)
    if len(set(ids.tolist())) == len(ids):
        return Block(signal, ids, found, "unscaled")
    rows: dict[int, Statistics] = {}
    for i, site in enumerate(ids.tolist()):
        row = found.take(np.array([i]))
        rows[site] = merge(rows[site], row) if site in rows else row
    return Block(signal, np.array(list(rows), dtype=np.uint32), concatenate(list(rows.values())), "unscaled")


def _total_norm(blocks: Sequence[Block]) -> dict[str, float]:
    """Returns the norm of all gradients together; of micro-batches there is none."""
    if not blocks or any(block.stage == MICRO for block in blocks):
        return {}
    return {"total_norm": total_norm([block.statistics for block in blocks])}
