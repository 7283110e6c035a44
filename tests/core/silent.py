"""Makes units of a hand-written chain silent: 0 behind the nonlinearity, and without gradient."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from gradwatch.record import Block, StepRecord
from gradwatch.statistics import NULL, UnitCounts, histogram
from tests.core.chain import BATCH, WIDTH, Chain

USUAL = 0.5
"""Share of zeros that ReLU makes of the values of units that are alive."""
Shares = npt.NDArray[np.float64]


def with_silence(
    chain: Chain,
    record: StepRecord,
    share: Mapping[int, float],
    *,
    zeros: Mapping[int, float] | None = None,
    counted: Mapping[int, float] | None = None,
    examples: int = BATCH,
) -> StepRecord:
    """Returns the record with a share of each layer's units silent; below one that is wholly silent nothing learns.

    Args:
        chain: the layers of the record.
        record: of any step; signals that it lacks stay away.
        share: units without gradient by position in the chain, 0 where not given.
        zeros: zeros among the outputs, where they are not those of silent units and ``USUAL`` of the others.
        counted: silent units as an adapter counts them over 8 batches; none are counted by default.
        examples: of the batch.
    """
    silent = np.array([share.get(i, 0.0) for i in range(chain.layers)])
    behind = silent + (1 - silent) * USUAL
    for i, part in (zeros or {}).items():
        behind[i] = part
    changed = [
        _gradient(block, silent, behind)
        if block.signal == "gradient"
        else _activation(block, silent, behind, examples, counted)
        if block.signal == "activation"
        else block
        for block in record.blocks
    ]
    return replace(record, blocks=tuple(changed))


def _gradient(block: Block, silent: Shares, behind: Shares) -> Block:
    values = block.statistics
    whole = np.flatnonzero(silent == 1)
    lost = np.where(np.arange(len(silent)) <= (whole[-1] if len(whole) else -1), 1.0, silent)
    without_input = np.concatenate([[0.0], behind[:-1]]) == 1
    weight = np.where(without_input, 1.0, lost)
    share = np.stack([weight, lost], axis=1).ravel()
    flowing = share < 1
    statistics = replace(
        values, zeros=(share * values.n).astype(np.int64), l2=values.l2 * flowing, absmax=values.absmax * flowing
    )
    return replace(block, statistics=statistics)


def _activation(
    block: Block, silent: Shares, behind: Shares, examples: int, counted: Mapping[int, float] | None
) -> Block:
    values, layers = block.statistics, len(silent)
    rms = values.l2 / np.sqrt(values.n)
    n = np.full(2 * layers, examples * WIDTH)
    zeros = np.concatenate([np.zeros(layers), [0.0], behind[:-1]])
    before = -0.95 * silent * rms[:layers]
    # All values are about as large as their rms; of those that are not silent, half lie above 0.
    above = (rms[:layers] + before) / 2
    mean = np.concatenate([before, [0.0], above[:-1]])
    statistics = replace(
        values,
        n=n,
        l2=rms * np.sqrt(n),
        sum=mean * n,
        zeros=(zeros * n).astype(np.int64),
        histogram=np.stack([histogram(size) for size in rms]) * n[:, None].astype(np.uint32),
    )
    units = None if counted is None else _units(np.array([counted.get(i, 0.0) for i in range(layers)]))
    return replace(block, statistics=statistics, units=units)


def _units(counted: Shares) -> UnitCounts:
    """Returns counts of the outputs, where the gradient is silent, and of the inputs, where the zeros show."""
    layers = len(counted)
    silent = np.concatenate([np.zeros(layers), [0.0], counted[:-1]]) * WIDTH
    null = np.full(layers, NULL)
    delta = np.concatenate([(counted * WIDTH).astype(np.int64), null])
    return UnitCounts(np.full(2 * layers, WIDTH), silent.astype(np.int64), delta, np.full(2 * layers, NULL))
