"""Layers that no gradient reaches although they are to be trained."""

from __future__ import annotations

from typing import Final

import numpy as np

from gradwatch.findings import Figure, Finding
from gradwatch.rules.barren import Barren
from gradwatch.rules.gaps import PERSIST, Gaps
from gradwatch.rules.history import History
from gradwatch.rules.layout import Index, Layout, Mask
from gradwatch.rules.rule import (
    at_start,
    called,
    count,
    in_depth_order,
    listing,
    number,
    padded,
    stretches,
    too_few,
)
from gradwatch.rules.siblings import Siblings
from gradwatch.rules.view import StepView

UNDERFLOW: Final = 1e-30
"""Below this rms the next layer's gradient is about to round to 0: exact zeros under it are a vanishing gradient."""
UNSEEN: Final = 128
"""Steps after which a layer counts as run although no activation was captured since its gap began."""


class Disconnected:
    """Finds parameters that require a gradient and get None, or exactly 0 from the first step on.

    Formula: gradient None, or absmax == 0, at ``gaps.PERSIST`` consecutive steps at which some other parameter has a
    gradient, and for longer than ``gaps.CYCLES`` times any earlier gap. Deterministic, no statistics. Exact zeros count
    for weights only, in layers of which no parameter has a gradient, and not below a layer whose gradient itself is
    near underflow (``UNDERFLOW``): that is vanishing.
    A head that had gradients and does not run now is given three times its active spell.
    Or: no parameter at all has had a gradient yet (``barren.py``).
    Severity: critical for parameters in an optimizer; notice for those in none, and for a layer that never ran while a
    sibling of the same shapes did (experts, heads); warning when these siblings are links of a chain (``siblings.py``).
    Source: one of the commonest silent faults in collections of real programs (Jiang et al., TrainCheck, OSDI 2025).
    Advice: remove the cut, or take the layers out of the optimizer.
    """

    kind = "disconnected"

    def __init__(self, history: History) -> None:
        self.alarmed = False
        self._history = history
        self._gaps = Gaps()
        self._samples = 0
        self._barren = Barren(history)
        self._kin = Siblings()
        self._absent: Mask = np.zeros(0, dtype=np.bool_)
        self._rms = np.zeros(0)
        self._ran: Index = np.zeros(0, dtype=np.int64)
        self._last_activation = -1
        self._last_step: int | None = None

    def observe(self, view: StepView) -> None:
        """Takes the next step."""
        self._see_activations(view)
        self._kin.observe(view)
        rows = view.gradient
        if rows is None or view.skipped:
            return
        zero = (rows.absmax == 0) & (rows.bad == 0)
        blocked = rows.absent | zero
        flowing = rows.present & ~zero
        if not np.count_nonzero(flowing):
            self._barren.observe(view)
            return
        self._barren.end()
        self._samples += 1
        self._gaps.observe(view, blocked, flowing)
        self._absent, self._rms, self._last_step = rows.absent, rows.rms, view.step
        if not self.alarmed and np.count_nonzero(blocked):
            self.alarmed = bool(self._affected(view.layout).any())

    def findings(self) -> list[Finding]:
        """Returns one finding for each stretch of neighbouring layers."""
        layout = self._history.layout
        if self._barren.holds:
            return [self._barren.finding(self.kind)]
        if self._samples < PERSIST:
            return []
        affected = self._affected(layout)
        layers = {int(i) for i in layout.layer_of[affected]}
        owners = {int(i) for i in layout.layer_of[layout.trained | layout.missing]} | layers
        order = [layer for layer in layout.depth.tolist() if layer in owners]
        return [self._finding(layout, affected, stretch) for stretch in stretches(order, layers)]

    def not_applied(self) -> str | None:
        """Needs a few gradients."""
        return too_few("gradient", self._history.samples["gradient"], PERSIST)

    def _see_activations(self, view: StepView) -> None:
        if view.activation is not None:
            self._ran = padded(self._ran, len(view.layout.layers), -1)
            self._ran[view.activation.present] = view.step
            self._last_activation = view.step

    def _affected(self, layout: Layout) -> Mask:
        lasting = self._gaps.lasting()
        size = len(layout.parameters)
        lasting = padded(lasting, size, False)
        absent = padded(self._absent, size, False)
        if not lasting.any():
            return lasting
        concerned = (layout.trained | layout.missing) & lasting
        ever = padded(self._gaps.ever, size, False)
        blocked = concerned & ~absent & layout.weight & ~ever & ~self._reached(layout)
        gone = concerned & absent
        affected = gone | blocked
        for i in np.flatnonzero(affected).tolist():
            if (gone[i] and ever[i] and not self._outlasts_spell(layout, i)) or (
                blocked[i] and self._underflows(layout, i)
            ):
                affected[i] = False
        return affected

    def _reached(self, layout: Layout) -> Mask:
        """Returns the parameters of layers in which some parameter has a gradient: there, only the input is 0."""
        size = len(layout.parameters)
        flowing = padded(self._gaps.ever, size, False) & (padded(self._gaps.run, size, 0) == 0)
        return np.isin(layout.layer_of, layout.layer_of[flowing])

    def _outlasts_spell(self, layout: Layout, parameter: int) -> bool:
        """Tells whether a parameter that had gradients lost them for good: its layer still runs, or long ago."""
        run, since = int(self._gaps.run[parameter]), int(self._gaps.since[parameter])
        if self._last_activation < since:
            return self._last_activation < 0 or run >= UNSEEN
        runs = self._runs(int(layout.layer_of[parameter]), since)
        return runs or run >= 3 * int(self._gaps.active[parameter])

    def _runs(self, layer: int, since: int = 0) -> bool:
        return layer < len(self._ran) and int(self._ran[layer]) >= since

    def _underflows(self, layout: Layout, parameter: int) -> bool:
        rank = layout.rank()
        layer = int(layout.layer_of[parameter])
        above = layout.matrix & (rank[layout.layer_of] > rank[layer])
        rms = padded(self._rms, len(above), np.nan)
        flowing = np.flatnonzero(above & (rms > 0))
        if len(flowing) == 0:
            return False
        nearest = flowing[np.argmin(rank[layout.layer_of[flowing]])]
        return float(rms[nearest]) < UNDERFLOW

    def _finding(self, layout: Layout, affected: Mask, stretch: list[int]) -> Finding:
        inside = affected & np.isin(layout.layer_of, stretch)
        never_ran = self._last_activation >= 0 and not any(self._runs(layer) for layer in stretch)
        culprit = stretch[0] if never_ran else stretch[-1]
        siblings = self._siblings(layout, culprit) if never_ran else []
        chained = self._kin.chained(layout, siblings)
        sibling = layout.layers[siblings[0]] if siblings and not chained else None
        trained = bool((inside & layout.trained).any())
        absent = bool(self._absent[inside].any())
        # The gradient is lost at the end of the stretch: from there back.
        names = in_depth_order(layout, stretch, culprit) if never_ran else layout.names(stretch[::-1])
        return Finding(
            kind=self.kind,
            severity="notice" if not trained or (siblings and not chained) else "warning" if chained else "critical",
            title=_title(called(names[0]), len(names), never_ran),
            layer=names[0],
            layers=names,
            first_step=int(self._gaps.since[inside].min()),
            last_step=self._last_step,
            evidence=self._evidence(layout, inside, stretch, absent=absent, siblings=siblings, chained=chained),
            cause=_cause(called(names[0]), absent=absent, never_ran=never_ran, sibling=sibling),
            advice=_advice(called(names[0]), absent=absent, never_ran=never_ran),
            check=f"After the fix {called(names[0])} has a gradient above 0 from the first step on.",
            figure=Figure("gradient", "rms", "step" if self._gaps.ever[inside].all() else "depth"),
        )

    def _evidence(
        self,
        layout: Layout,
        inside: Mask,
        stretch: list[int],
        *,
        absent: bool,
        siblings: list[int],
        chained: bool,
    ) -> tuple[str, ...]:
        parameters = [layout.parameters[int(i)] for i in np.flatnonzero(inside)]
        steps = int(self._gaps.run[inside].min())
        state = "None (not part of the graph)" if absent else "exactly 0"
        share = layout.numel[inside].sum() / max(layout.numel[layout.trained | layout.missing].sum(), 1)
        evidence = [
            f"The gradient of {listing(parameters)} is {state} at {count(steps, 'step')} in a row, "
            f"from step {int(self._gaps.since[inside].min())} on; {PERSIST} are enough.",
            f"That is {share:.0%} of the parameters to be trained.",
        ]
        after = self._next_connected(layout, stretch)
        if after is not None:
            evidence.append(
                f"The next layer towards the output, {called(after[0])}, has a gradient of rms {number(after[1])}."
            )
        if chained:
            names = layout.names(siblings)
            evidence.append(f"{listing(names)}, of the same shapes, run one after another at every step.")
        elif siblings:
            evidence.append(f"{called(layout.layers[siblings[0]])}, a layer of the same shapes, does get a gradient.")
        return tuple(evidence)

    def _next_connected(self, layout: Layout, stretch: list[int]) -> tuple[str, float] | None:
        rank = layout.rank()
        rms = padded(self._rms, len(layout.parameters), np.nan)
        live = np.flatnonzero((rank[layout.layer_of] > rank[stretch[-1]]) & (rms > 0))
        if len(live) == 0:
            return None
        nearest = live[np.argmin(rank[layout.layer_of[live]])]
        return layout.layers[int(layout.layer_of[nearest])], float(rms[nearest])

    def _siblings(self, layout: Layout, layer: int) -> list[int]:
        """Returns the layers with the same parameter shapes that do get a gradient."""
        ever = padded(self._gaps.ever, len(layout.parameters), False)
        return self._kin.of(layout, layer, {int(i) for i in layout.layer_of[ever]})


def _title(name: str, layers: int, never_ran: bool) -> str:
    if never_ran:
        return f"{at_start(name)} is never used, so it does not learn"
    if layers == 1:
        return f"{at_start(name)} gets no gradient and cannot learn"
    return f"{layers} layers up to {name} get no gradient and cannot learn"


def _cause(name: str, *, absent: bool, never_ran: bool, sibling: str | None) -> str:
    if never_ran:
        return f"The forward pass never ran {name}" + (f", only its sibling {called(sibling)}." if sibling else ".")
    if absent:
        return f"The graph is cut right after {name}: a detach, a stop of gradients, or a block without gradients."
    return (
        f"The gradient is blocked right after {name}: an operation whose derivative is 0 (rounding, argmax, a "
        "comparison, a dead nonlinearity) or a stop of gradients."
    )


def _advice(name: str, *, absent: bool, never_ran: bool) -> tuple[str, ...]:
    if never_ran:
        return (
            f"Call {name} in the forward pass, or remove it from the model.",
            "If it is unused on purpose, freeze it or leave it out of the optimizer.",
        )
    cut = "detach, no-gradient blocks, item or numpy conversions" if absent else "rounding, argmax, comparisons, casts"
    return (
        f"Look at what happens to the output of {name}: {cut}.",
        "If the layers are to stay fixed, freeze them and leave them out of the optimizer.",
    )
