"""The oracle: whether a plant did harm and a healthy run is sound, from plain records alone.

It knows no rule of any tool. A faulty case counts when its twin learns, the kind's mark shows beside the twin, and
something is lost: progress of the loss, a layer that no longer moves, or units that no longer answer.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from tests.zoo import harm
from tests.zoo.families import FAMILIES
from tests.zoo.fault import Planted
from tests.zoo.recipe import Recipe
from tests.zoo.trace import Trace

LEARNS: Final = 0.03
"""Share of its first loss that a sound run has to lose."""
STILL: Final = 0.02
"""Share of the twin's travel below which a layer counts as not learning."""


@dataclass(frozen=True, slots=True)
class Ruling:
    """What the oracle found.

    Attributes:
        reason: why the case does not count, or "".
        layers: culprits by name; empty for the whole run.
        onset: the step at which it begins.
    """

    reason: str = ""
    layers: tuple[str, ...] = ()
    onset: int = 0

    @property
    def confirmed(self) -> bool:
        """Whether the case counts."""
        return not self.reason


def sound(recipe: Recipe, trace: Trace) -> str:
    """Returns why a run without a plant is no healthy one, or ""."""
    # Under a dynamic loss scaler, gradients that are not finite are how it finds its scale.
    if harm.first_nonfinite(trace) is not None and not (recipe.scaler and np.isfinite(trace.losses).all()):
        return "something is not finite"
    return _learning(recipe, trace) or _parts(recipe, trace) or _spikes(recipe, trace)


def _spikes(recipe: Recipe, trace: Trace) -> str:
    """What happens to a healthy run has to show, and the run to survive it."""
    steps = [event.step for event in recipe.events if event.size > 1]
    if any(harm.peak(trace, step) < 2 for step in steps):
        return "no spike to survive"
    return "" if all(harm.survived(trace, step) for step in steps) else "a spike leaves a mark"


def _learning(recipe: Recipe, trace: Trace) -> str:
    if FAMILIES[recipe.family].learns:
        before, after = harm.start_loss(trace), harm.end_loss(trace)
        if after > before - LEARNS * abs(before):
            return "it does not learn"
    elif recipe.family == "policy" and np.mean(trace.accuracies[-15:]) < np.mean(trace.accuracies[:15]) + 0.05:
        return "it does not learn"
    return ""


def _parts(recipe: Recipe, trace: Trace) -> str:
    still = [
        layer for i, layer in enumerate(trace.chain) if i not in recipe.untrained and harm.travel(trace, layer) == 0
    ]
    if still and recipe.trap != "unused-expert":
        return "a layer does not move"
    if any(harm.silent(trace, layer) >= 0.5 for layer in trace.units):
        return "half of a layer is dead"
    return ""


def rule(kind: str, planted: Planted, sick: Trace, twin: Trace) -> Ruling:
    """Decides about a plant from the records of the run and of its twin."""
    reason = sound(planted.twin, twin)
    if reason:
        return Ruling(f"twin: {reason}")
    onset = _onset(kind, planted, sick)
    if onset is None:
        return Ruling(f"no mark of {kind}")
    names = tuple(sick.chain[i] for i in planted.culprits)
    if not MARKS[kind](planted, sick, twin, onset):
        return Ruling(f"no mark of {kind}")
    if not HARMS.get(kind, _loss_lost)(planted, sick, twin, onset):
        return Ruling("no harm")
    return Ruling("", names, onset)


def _onset(kind: str, planted: Planted, sick: Trace) -> int | None:
    if kind == "nonfinite":
        return harm.first_nonfinite(sick)
    if kind == "dead-units" and planted.onset:
        since = [harm.silent_since(sick, sick.chain[i]) for i in planted.culprits]
        return min((step for step in since if step is not None), default=None)
    return planted.onset


Check = Callable[[Planted, Trace, Trace, int], bool]


def _loss_lost(planted: Planted, sick: Trace, twin: Trace, onset: int) -> bool:
    """Whether a share of the twin's progress since the onset is lost."""
    end, healthy = harm.end_loss(sick), harm.end_loss(twin)
    start = float(np.mean(twin.losses[onset : onset + 3]))
    progress = max(start - healthy, LEARNS * abs(start))
    if not FAMILIES[planted.twin.family].learns:
        return not math.isfinite(end)
    if planted.sick.target_scale != 1.0:
        factor = planted.sick.target_scale**2
        end = end / factor
    return end > healthy + harm.HURT * progress


def _layer_lost(planted: Planted, sick: Trace, twin: Trace, onset: int) -> bool:
    """Whether a culprit learns less than a share of what it learns in the twin; for a whole run: any layer."""
    layers = [sick.chain[i] for i in planted.culprits] or list(sick.chain)
    return any(harm.travel(sick, layer) < STILL * harm.travel(twin, layer) for layer in layers)


def _loss_or_layer_lost(planted: Planted, sick: Trace, twin: Trace, onset: int) -> bool:
    return _loss_lost(planted, sick, twin, onset) or _layer_lost(planted, sick, twin, onset)


def _always(planted: Planted, sick: Trace, twin: Trace, onset: int) -> bool:
    """For marks that are a loss themselves."""
    return True


def _vanishing(planted: Planted, sick: Trace, twin: Trace, onset: int) -> bool:
    return harm.flow(sick, onset) < min(1e-2, 0.1 * harm.flow(twin, onset))


def _exploding(planted: Planted, sick: Trace, twin: Trace, onset: int) -> bool:
    return harm.growth(sick, onset) > 10 * harm.growth(twin, onset)


def _nonfinite(planted: Planted, sick: Trace, twin: Trace, onset: int) -> bool:
    return onset == planted.onset


def _dead(planted: Planted, sick: Trace, twin: Trace, onset: int) -> bool:
    return any(harm.silent(sick, sick.chain[i]) >= 0.5 > 2 * harm.silent(twin, twin.chain[i]) for i in planted.culprits)


def _saturated(planted: Planted, sick: Trace, twin: Trace, onset: int) -> bool:
    pairs = [(harm.saturation(sick, sick.chain[i]), harm.saturation(twin, twin.chain[i])) for i in planted.culprits]
    return any(one >= 0.5 > 2 * other for one, other in pairs)


def _disconnected(planted: Planted, sick: Trace, twin: Trace, onset: int) -> bool:
    layers = [sick.chain[i] for i in planted.culprits]
    return any(harm.without_gradient(sick, layer) and not harm.without_gradient(twin, layer) for layer in layers)


def _frozen(planted: Planted, sick: Trace, twin: Trace, onset: int) -> bool:
    layers = [sick.chain[i] for i in planted.culprits] or list(sick.chain)
    return all(harm.travel(sick, layer) == 0 < harm.travel(twin, layer) for layer in layers)


def _underflow(planted: Planted, sick: Trace, twin: Trace, onset: int) -> bool:
    return harm.flushed(sick) > harm.flushed(twin) + 0.2


def _spike(planted: Planted, sick: Trace, twin: Trace, onset: int) -> bool:
    return harm.peak(sick, onset) > 5 * max(1.0, harm.peak(twin, onset)) and harm.recovered(sick, onset)


def _too_large(planted: Planted, sick: Trace, twin: Trace, onset: int) -> bool:
    tail, other = harm.update_ratios(sick)[onset : onset + 20], harm.update_ratios(twin)[onset : onset + 20]
    largest = float(np.max(tail[:5]))
    return largest > 0.1 and largest > 10 * float(np.median(other))


def _too_small(planted: Planted, sick: Trace, twin: Trace, onset: int) -> bool:
    tail, other = harm.update_ratios(sick)[onset:], harm.update_ratios(twin)[onset:]
    lost = harm.unmoved(sick, onset) > 0.9 > 2 * harm.unmoved(twin, onset)
    return lost or float(np.median(tail)) < 0.05 * float(np.median(other))


def _oscillating(planted: Planted, sick: Trace, twin: Trace, onset: int) -> bool:
    return harm.swing(sick) < -0.5 < harm.swing(twin)


def _clipping(planted: Planted, sick: Trace, twin: Trace, onset: int) -> bool:
    return harm.clipped(sick) < 0.1


def _spike_lost(planted: Planted, sick: Trace, twin: Trace, onset: int) -> bool:
    """Whether the loss stays above the twin's for five steps and more, by a quarter."""
    here, there = np.asarray(sick.losses[onset:]), np.asarray(twin.losses[onset:])
    return int(np.sum(here > 1.25 * there)) >= 5


MARKS: Final[dict[str, Check]] = {
    "vanishing": _vanishing,
    "exploding": _exploding,
    "nonfinite": _nonfinite,
    "dead-units": _dead,
    "disconnected": _disconnected,
    "frozen": _frozen,
    "underflow": _underflow,
    "spike": _spike,
    "update-too-large": _too_large,
    "update-too-small": _too_small,
    "saturated": _saturated,
    "oscillating": _oscillating,
    "clipping": _clipping,
    "plumbing": _always,
}
"""What shows that the plant did what it was meant to do."""

HARMS: Final[dict[str, Check]] = {
    "nonfinite": _always,
    "dead-units": _always,
    "disconnected": _layer_lost,
    "frozen": _layer_lost,
    "vanishing": _loss_or_layer_lost,
    "saturated": _loss_or_layer_lost,
    "underflow": _loss_or_layer_lost,
    "spike": _spike_lost,
}
"""What is lost; for kinds that are not listed, progress of the loss."""
