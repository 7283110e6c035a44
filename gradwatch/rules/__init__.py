"""The rules, one file a kind: pure folds over the steps of one optimizer, with what they share beside them."""

from __future__ import annotations

from typing import Final

from gradwatch.rules.clipping import Clipping
from gradwatch.rules.dead_units import DeadUnits
from gradwatch.rules.disconnected import Disconnected
from gradwatch.rules.exploding import Exploding
from gradwatch.rules.frozen import Frozen
from gradwatch.rules.nonfinite import NonFinite
from gradwatch.rules.oscillating import Oscillating
from gradwatch.rules.plumbing import Plumbing
from gradwatch.rules.rule import Rule
from gradwatch.rules.saturated import Saturated
from gradwatch.rules.spike import Spike
from gradwatch.rules.underflow import Underflow
from gradwatch.rules.update_too_large import UpdateTooLarge
from gradwatch.rules.update_too_small import UpdateTooSmall
from gradwatch.rules.vanishing import Vanishing

RULES: Final[tuple[type[Rule], ...]] = (
    NonFinite,
    DeadUnits,
    Saturated,
    Underflow,
    Disconnected,
    Frozen,
    Vanishing,
    Exploding,
    UpdateTooLarge,
    UpdateTooSmall,
    Oscillating,
    Spike,
    Clipping,
    Plumbing,
)
"""Every kind that is judged; a new one is a file and a line here."""

__all__ = ["RULES", "Rule"]
