"""One step as the rules see it: dense arrays of each signal, built once per record and shared by all rules."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from gradwatch import statistics
from gradwatch.record import ABSENT, Block, StepRecord
from gradwatch.rules.layout import NOWHERE, Index, Layout, Mask
from gradwatch.statistics import BINS, NULL, Float, Integer


class Rows:
    """One signal at one step along one axis of the layout, null where nothing was captured.

    Attributes:
        n: elements reduced, -1 where there is no row, shape [m].
        l2, sum, absmax: of the finite elements, NaN is null, shape [m].
        bad: non-finite elements, shape [m].
        absent: gradients that were None, shape [m].
        zeros, subnormal, units, silent_units, silent_delta_units, saturated: the counts of these names, -1 where not
            taken, shape [m]; they and the histogram are read when a rule first asks for them.
        histogram: counts by octave, 0 where not taken, shape [m, 64].
    """

    def __init__(self, blocks: Iterable[Block], slots: Index, size: int) -> None:
        self._blocks = tuple(blocks)
        self._slots = slots
        values: Float = np.empty((3, size))
        values.fill(np.nan)
        self.l2, self.sum, self.absmax = values
        self.n: Integer = np.full(size, -1)
        self.bad: Integer = np.zeros(size, dtype=np.int64)
        self.absent: Mask = np.zeros(size, dtype=np.bool_)
        for block in self._blocks:
            self._scatter(block, slots[block.sites])
        self.rms: Float = self.l2 / np.sqrt(np.maximum(self.n - self.bad, 1))
        self.any_bad = bool(np.count_nonzero(self.bad))

    def _scatter(self, block: Block, at: Index) -> None:
        values, here = block.statistics, np.flatnonzero(at != NOWHERE)
        if len(here) < len(at):
            at = at[here]
            for name in ("l2", "sum", "absmax", "n"):
                getattr(self, name)[at] = getattr(values, name)[here]
            self.bad[at] = values.nan[here] + values.inf[here]
        else:
            self.l2[at], self.sum[at], self.absmax[at] = values.l2, values.sum, values.absmax
            self.n[at], self.bad[at] = values.n, values.nan + values.inf
        if block.stage == ABSENT:
            self.absent[at] = True

    @property
    def present(self) -> Mask:
        """Sites that have elements, shape [m]."""
        return self.n > 0

    @property
    def full(self) -> bool:
        """Whether zeros were counted at any site; on most steps they are not."""
        return any(block.statistics.zeros is not None for block in self._blocks)

    @cached_property
    def zeros(self) -> Integer:
        """Elements that are exactly 0."""
        return self._counts([(block, block.statistics.zeros) for block in self._blocks])

    @cached_property
    def subnormal(self) -> Integer:
        """Elements below the smallest normal number of their format, and not 0."""
        return self._counts([(block, block.statistics.subnormal) for block in self._blocks])

    @cached_property
    def units(self) -> Integer:
        """Units of a layer."""
        return self._unit_counts("units")

    @cached_property
    def silent_units(self) -> Integer:
        """Units that were 0 on every sample of the last 8 sampled batches."""
        return self._unit_counts("silent_units")

    @cached_property
    def silent_delta_units(self) -> Integer:
        """Units whose gradient was 0 on every sample of the last 8 sampled batches."""
        return self._unit_counts("silent_delta_units")

    @cached_property
    def saturated(self) -> Integer:
        """Elements within 1 % of the bound of a nonlinearity."""
        return self._unit_counts("saturated")

    @cached_property
    def histogram(self) -> Integer:
        """Elements by octave (``statistics.Statistics``)."""
        found = np.zeros((len(self.n), BINS), dtype=np.int64)
        self._spread(found, [(block, block.statistics.histogram) for block in self._blocks])
        return found

    def _unit_counts(self, name: str) -> Integer:
        return self._counts([(block, getattr(block.units, name, None)) for block in self._blocks])

    def _counts(self, columns: list[tuple[Block, Integer | None]]) -> Integer:
        found = np.full(len(self.n), NULL, dtype=np.int64)
        self._spread(found, columns)
        return found

    def _spread(self, found: Integer, columns: Iterable[tuple[Block, npt.NDArray[Any] | None]]) -> None:
        for block, column in columns:
            if column is not None:
                at = self._slots[block.sites]
                found[at[at != NOWHERE]] = column[at != NOWHERE]


class StepView:
    """A step record with its signals as ``Rows``, or None where a signal was not captured at this step.

    ``gradient``, ``update`` and ``weight`` lie along the layout's parameters; ``activation``, ``activation_gradient``
    and their ``_input`` twins along its layers. ``span`` is how many records it stands for, itself included: those
    before it were routine (``routine.py``).
    """

    def __init__(self, record: StepRecord, layout: Layout, span: int = 1) -> None:
        self.step = record.step
        self.span = span
        self.skipped = record.skipped
        self.layout = layout
        self.facts = {name: value for name, value in record.facts.items() if math.isfinite(value)}
        self.logged = record.logged
        self._blocks: dict[str, list[Block]] = {}
        for block in record.blocks:
            if len(block.sites):
                self._blocks.setdefault(block.signal, []).append(block)

    @property
    def captured(self) -> bool:
        """Whether any signal was captured."""
        return bool(self._blocks)

    @property
    def signals(self) -> Iterable[str]:
        """The signals that were captured."""
        return self._blocks.keys()

    @cached_property
    def loss(self) -> float | None:
        """The logged loss, possibly not finite, or None: ``loss``, else the first key that names a training loss."""
        return loss_of(self.logged)

    @cached_property
    def norm(self) -> float | None:
        """The global gradient norm over the finite elements of the record's parameters, or None."""
        if self.gradient is None:
            return None
        squares = np.square(self.gradient.l2)
        return math.sqrt(float(squares[np.isfinite(squares)].sum()))

    @cached_property
    def spoilt(self) -> bool:
        """Whether the loss or a gradient is not finite at a step that was not skipped."""
        if self.skipped:
            return False
        lost = self.loss is not None and not math.isfinite(self.loss)
        return lost or (self.gradient is not None and self.gradient.any_bad)

    @cached_property
    def gradient(self) -> Rows | None:
        """Parameter gradients."""
        return self._parameters("gradient")

    @cached_property
    def update(self) -> Rows | None:
        """What the optimizer added to the parameters."""
        return self._parameters("update")

    @cached_property
    def weight(self) -> Rows | None:
        """The parameters after the step."""
        return self._parameters("weight")

    @cached_property
    def activation(self) -> Rows | None:
        """Outputs of layers."""
        return self._layers("activation", self.layout.output_slot)

    @cached_property
    def activation_input(self) -> Rows | None:
        """Inputs of layers that own parameters."""
        return self._layers("activation", self.layout.input_slot)

    @cached_property
    def activation_gradient(self) -> Rows | None:
        """Gradients of the loss at the outputs of layers."""
        return self._layers("activation_gradient", self.layout.output_slot)

    @cached_property
    def activation_gradient_input(self) -> Rows | None:
        """Gradients of the loss at the inputs of layers that own parameters."""
        return self._layers("activation_gradient", self.layout.input_slot)

    def _parameters(self, signal: str) -> Rows | None:
        blocks = self._blocks.get(signal)
        return Rows(blocks, self.layout.parameter_slot, len(self.layout.parameters)) if blocks else None

    def _layers(self, signal: str, slots: Index) -> Rows | None:
        blocks = self._blocks.get(signal)
        return Rows(blocks, slots, len(self.layout.layers)) if blocks else None


def loss_of(logged: Mapping[str, float]) -> float | None:
    """Returns the training loss among logged scalars: ``loss``, else the first key that names one; None without."""
    if "loss" in logged:
        return logged["loss"]
    return next((value for key, value in logged.items() if _names_loss(key)), None)


def _names_loss(key: str) -> bool:
    key = key.lower()
    return "loss" in key and not any(word in key for word in ("val", "test", "eval"))


def decades(size: Float) -> Float:
    """Returns log10 of sizes, with 0 at -45 (the smallest float32 is 1.4e-45) and null kept."""
    return np.log10(np.maximum(size, 1e-45))


def median(values: Float) -> float:
    """Returns the median of the finite values; null of none."""
    return statistics.median(values[np.isfinite(values)])
