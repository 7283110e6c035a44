"""Two captured runs side by side: the same signal of the same parameter at the same step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from gradwatch.record import Block, Site, StepRecord
from gradwatch.statistics import Histogram, Statistics
from tests.parity.implementations import Run

RELATIVE: Final = 1e-4
LOSS: Final = 1e-5
ZEROS: Final = 1e-3
SHARES: Final = 0.02

Place = tuple[int, str]
"""A layer, counted from the inputs, and what of it: weight, bias, output or input."""


def place(run: Run, site: Site) -> Place | None:
    """Returns what a site is in every framework; None for one that only some have, such as that of a nonlinearity."""
    if site.layer not in run.layers:
        return None
    part = site.name.removeprefix(site.layer).lstrip(".:") or "output"
    return run.layers.index(site.layer), {"kernel": "weight"}.get(part, part)


def places(run: Run, block: Block) -> dict[Place, int]:
    """Returns the row of each place in a block."""
    found = {}
    for row, site in enumerate(block.sites.tolist()):
        at = place(run, run.sites[site])
        if at is not None:
            found[at] = row
    return found


def disagreements(run: Run, oracle: Run, signals: tuple[str, ...]) -> list[str]:
    """Returns a sentence for each number that differs by more than the limits; [] where all agree."""
    found = []
    for record, true in zip(run.records, oracle.records, strict=True):
        if not _close(record.logged["loss"], true.logged["loss"], LOSS):
            found.append(f"step {true.step}: loss {record.logged['loss']}, not {true.logged['loss']}")
        for signal in signals:
            found += _of_signal(run, oracle, record, true, signal)
    return found


def compared(run: Run, oracle: Run, signal: str) -> set[Place]:
    """Returns the places that both runs hold."""
    places_of = [
        {at for record in r.records if (block := record.block(signal)) for at in places(r, block)}
        for r in (run, oracle)
    ]
    return places_of[0] & places_of[1]


def _of_signal(run: Run, oracle: Run, record: StepRecord, true: StepRecord, signal: str) -> Iterator[str]:
    block, expected = record.block(signal), true.block(signal)
    if block is None or expected is None:
        return
    rows, expected_rows = places(run, block), places(oracle, expected)
    for at in rows.keys() & expected_rows.keys():
        one = block.statistics.take(np.array([rows[at]]))
        other = expected.statistics.take(np.array([expected_rows[at]]))
        yield from (f"step {true.step}, {signal} of {at}: {what}" for what in differences(one, other))


def differences(one: Statistics, true: Statistics) -> Iterator[str]:
    """Yields a sentence for each statistic of one site that is not as the oracle has it."""
    for name in ("n", "nan", "inf"):
        if getattr(one, name)[0] != getattr(true, name)[0]:
            yield f"{name} {getattr(one, name)[0]}, not {getattr(true, name)[0]}"
    for name in ("l2", "absmax"):
        if not _close(float(getattr(one, name)[0]), float(getattr(true, name)[0]), RELATIVE):
            yield f"{name} {getattr(one, name)[0]}, not {getattr(true, name)[0]}"
    if abs(one.mean()[0] - true.mean()[0]) > RELATIVE * true.rms()[0]:
        yield f"mean {one.mean()[0]}, not {true.mean()[0]} at rms {true.rms()[0]}"
    for name in ("zeros", "subnormal"):
        given, expected = getattr(one, name), getattr(true, name)
        if given is not None and expected is not None and abs(given[0] - expected[0]) > ZEROS * true.n[0]:
            yield f"{name} {given[0]}, not {expected[0]} of {true.n[0]}"
    if one.histogram is not None and true.histogram is not None:
        apart = distance(one.histogram[0], true.histogram[0])
        if apart > SHARES:
            yield f"histogram shares {apart:.4f} apart"


def distance(one: Histogram, other: Histogram) -> float:
    """Returns the largest distance of two distribution functions (Kolmogorov-Smirnov); 1 where only one is empty."""
    if not one.any() or not other.any():
        return float(one.any() != other.any())
    shares = [np.cumsum(counts, dtype=np.float64) / counts.sum() for counts in (one, other)]
    return float(np.abs(shares[0] - shares[1]).max())


def _close(value: float, true: float, relative: float) -> bool:
    """Compares numbers that may both be null, or the same infinity."""
    return bool(np.isclose(value, true, rtol=relative, atol=0, equal_nan=True))
