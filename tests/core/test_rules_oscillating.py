"""The rule on swings at the edge of stability."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gradwatch.findings import Finding
from gradwatch.record import Block
from gradwatch.rules.directions import coordinates, cosine
from gradwatch.rules.view import Rows
from gradwatch.statistics import concatenate, measure
from tests.core.regression import Regression, kinds


def swings(factor: float, **options: Any) -> list[Finding]:
    """Returns the findings of a single layer at a factor times the edge, over all examples at each step."""
    edge = Regression(single=True, **options).edge()
    analysis = Regression(single=True, rate=factor * edge, batch=0, **options).analyze()
    return [finding for finding in analysis.at_least("warning") if finding.kind == "oscillating"]


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("factor", [0.997, 1.0, 1.003])
def test_a_rate_at_the_edge_swings(factor: float, momentum: float) -> None:
    """Descent whose steepest direction neither shrinks nor grows is named, for the whole run, from its start."""
    finding = swings(factor, momentum=momentum, shift=0.5)[0]
    assert (finding.layer, finding.first_step) == (None, 0)
    assert "cosine" in finding.evidence[0]
    assert "Halve" in finding.advice[0]


@pytest.mark.parametrize("factor", [0.05, 0.33, 0.5, 0.8])
def test_below_the_edge_nothing_swings_for_long(factor: float) -> None:
    """The cure, a smaller rate, leaves no finding: without turns, or with turns that die out."""
    assert swings(factor, shift=0.5) == []


def test_the_mean_of_the_inputs_makes_it_steep() -> None:
    """The rate that swings with inputs that have a mean is calm with centred ones."""
    rate = Regression(single=True, shift=2.0).edge()
    assert kinds(Regression(single=True, rate=rate, shift=2.0, batch=0).analyze()) == ["oscillating"]
    assert kinds(Regression(single=True, rate=rate, batch=0).analyze()) == []


def test_without_a_loss_the_turns_are_enough() -> None:
    """Leaving out the loss keeps the kind, with less confidence."""
    assert swings(1.0, logs=False, shift=0.5)[0].confidence == "medium"


@pytest.mark.parametrize("batch", [1, 4, 32])
@pytest.mark.parametrize("seed", range(4))
def test_the_noise_of_batches_is_no_swing(batch: int, seed: int) -> None:
    """Gradients of batches that happen to point against each other make no finding."""
    assert "oscillating" not in kinds(Regression(batch=batch, seed=seed, steps=200).analyze(), "notice")


def test_coordinates_turn_with_the_vector() -> None:
    """A vector and its negative have opposite coordinates; what sums to rounding is not seen."""
    random = np.random.default_rng(0)
    vectors = [random.normal(size=50), random.normal(size=7), np.array([1.0, -1.0])]
    ids = np.arange(3, dtype=np.uint32)

    def rows(factor: float) -> Rows:
        block = Block("gradient", ids, concatenate([measure(factor * vector) for vector in vectors]))
        return Rows([block], np.arange(3), 3)

    here, there = coordinates(rows(1.0)), coordinates(rows(-0.5))
    np.testing.assert_allclose(there[:2], -0.5 * here[:2])
    assert np.isnan(here[2])
    assert cosine(here, there) == pytest.approx(-1)
    assert np.isnan(cosine(here[2:], there[2:]))
