"""Gradients too small for float16: entry after entry falls into its subnormal range, and from there to 0."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from gradwatch.findings import Figure, Finding
from gradwatch.rules.history import History
from gradwatch.rules.persistence import Persistence
from gradwatch.rules.rule import count, in_depth_order, number, too_few, without_loss
from gradwatch.rules.silence import share
from gradwatch.rules.view import Rows, StepView
from gradwatch.statistics import LOWEST_EXPONENT, Float

LARGEST: Final = 65504.0
NORMAL: Final = -14
SUBNORMAL: Final = -24
"""Largest number of float16, and exponents of its smallest normal and its smallest number (IEEE 754)."""
HEADROOM: Final = 8.0
"""Steps may have gradients that many times larger than those seen, before a recommended scale overflows."""
ZEROS: Final = 0.5
"""Share of entries that are 0, over all weight matrices, from which on training loses most of its signal."""
SMALL: Final = 0.9
"""Share of entries that are 0 or subnormal, by which a matrix counts as lost."""
SOME: Final = 0.2
"""Share of zeros that a lost matrix has at least."""
ROOM: Final = -10
"""Exponent of the largest gradient up to which a scale of 1,000 and more is free: above it, what is small below is a
gradient that vanishes along depth, which no scale mends by itself."""
WHOLE: Final = 0.9
LEARNS: Final = -0.02
"""Change of the loss since the start, above which it did not get better."""
SOLVED: Final = -0.9
"""Change of the loss since the start, at which small gradients are those of a solved task."""


@dataclass(frozen=True, slots=True)
class _Sample:
    """What one step shows: the matrices that are lost, zeros and subnormals over all, the largest entry, the scale."""

    step: int
    lost: tuple[int, ...]
    zeros: float
    tiny: float
    largest: float
    scale: float


class Underflow:
    """Finds float16 training in which gradients are too small for the format.

    Formula: over the weight matrices whose parameters or activations are float16, ``ZEROS`` of the entries or more are
    0 *and* the matrices that hold half of the entries or more are lost: ``SMALL`` of their entries are 0 or below
    2^-14 of the loss scale, ``SOME`` exactly 0; and the largest entry anywhere is below 2^``ROOM``, so that scaling
    would help. On 5 of 8 samples, the latest among them unless a logged loss got no better, while the run has not
    converged. Zeros of dead units, masks and unseen rows do not
    do it: beside them some entry is of ordinary size.
    Severity: critical when nine tenths are 0 and the loss, if logged, does not improve; notice when it fell by nine
    tenths all the same; else warning. Never for float32 and bfloat16, whose range ends at 1e-38.
    Source: Micikevicius et al. 2018, Mixed Precision Training, section 3.2.
    Advice: a loss scale, which is computed from the largest gradient seen.
    """

    kind = "underflow"

    def __init__(self, history: History) -> None:
        self.alarmed = False
        self._history = history
        self._small = Persistence()
        self._seen: _Sample | None = None

    def observe(self, view: StepView) -> None:
        """Takes the next step."""
        rows = view.gradient
        if rows is None or view.skipped or rows.any_bad or not rows.full:
            return
        sample = _sample(view, rows)
        if sample is None or self._history.converged():
            return
        sick = sample.zeros >= ZEROS and _outweigh(view, sample) and sample.largest * sample.scale < 2.0**ROOM
        if sick:
            self._seen = sample
        self._small.observe(view.step, sick)
        self.alarmed = self.alarmed or self._small.ever

    def findings(self) -> list[Finding]:
        """Returns at most one finding."""
        if self._seen is None or not self._small.ever:
            return []
        # Gradients that grew since may be those of a run that went astray on what was left of them.
        lost = (self._history.loss_change() or LEARNS) > LEARNS
        return [self._finding(self._seen)] if self._small.holds or lost else []

    def not_applied(self) -> str | None:
        """Needs a few counts of zeros where gradients are computed in float16; the range of other formats is wide."""
        if not bool((self._history.layout.half & self._history.layout.matrix).any()):
            return too_few("gradient", self._history.samples["gradient"], self._small.k)
        return too_few("gradient", self._small.samples, self._small.k)

    def _finding(self, sample: _Sample) -> Finding:
        layout, history = self._history.layout, self._history
        names = in_depth_order(layout, layout.layer_of[list(sample.lost)])
        confidence, reason = without_loss(history)
        change = history.loss_change()
        if change is not None and not history.loss_is_flat():
            confidence, reason = "medium", "the loss still improves"
        return Finding(
            kind=self.kind,
            severity=self._severity(sample),
            title=f"Gradients underflow in float16 in {count(len(names), 'layer')}",
            layer=None,
            layers=names,
            first_step=self._small.onset,
            last_step=self._small.last,
            evidence=self._evidence(sample),
            cause="The loss is not scaled, or by too little: what is below 6e-8 rounds to 0 on the way back."
            if sample.scale == 1
            else f"The loss scale of {number(sample.scale)} is too small: what is below 6e-8 after it rounds to 0.",
            advice=self._advice(sample),
            check="After the fix fewer than a tenth of the gradient's entries are 0 in layers whose units answer.",
            confidence=confidence,
            confidence_reason=reason,
            figure=Figure("gradient", "zeros"),
        )

    def _severity(self, sample: _Sample) -> str:
        change = self._history.loss_change()
        if change is not None and change < SOLVED:
            return "notice"
        stuck = change is None or self._history.loss_is_flat()
        return "critical" if sample.zeros >= WHOLE and stuck else "warning"

    def _evidence(self, sample: _Sample) -> tuple[str, ...]:
        loss = self._history.loss
        evidence = [
            f"{sample.zeros:.0%} of the entries of the weight gradients are exactly 0; {ZEROS:.0%} are too many.",
            f"The largest entry anywhere is {number(sample.largest)}, and {sample.tiny:.0%} of the entries lie between "
            f"{number(2.0**SUBNORMAL / sample.scale)} and {number(2.0**NORMAL / sample.scale)}, where float16 loses "
            "digits."
            if sample.largest > 0
            else "No weight has a gradient, although the loss depends on the outputs; the smallest number of float16 "
            "is 6.0e-8.",
        ]
        if loss.count:
            evidence.append(f"The loss went from {number(loss.start())} to {number(loss.now())}.")
        return tuple(evidence)

    def _advice(self, sample: _Sample) -> tuple[str, ...]:
        if sample.largest > 0:
            scale = 2.0 ** np.floor(np.log2(LARGEST / (HEADROOM * sample.largest)))
            first = f"Scale the loss before the backward pass, by {number(float(scale))} or with a dynamic scaler."
        else:
            first = "Scale the loss before the backward pass with a dynamic scaler, which begins at 65536."
        return (
            first,
            "Use bfloat16, whose range is that of float32, and keep parameters in float32.",
            "Look whether the loss is divided or weighted more than it should be.",
        )


def _sample(view: StepView, rows: Rows) -> _Sample | None:
    """Reads the matrices of float16 off a step; None where there is none."""
    layout = view.layout
    at = np.flatnonzero(layout.matrix & layout.half & (rows.n > 0) & (rows.zeros >= 0))
    if len(at) == 0:
        return None
    scale = max(view.facts.get("loss_scale", 1.0), 1.0)
    zeros = share(rows.zeros, rows.n)[at]
    tiny = np.fmax(share(rows.subnormal, rows.n)[at], _below(rows, scale)[at])
    lost = at[(zeros + tiny >= SMALL) & (zeros >= SOME)]
    weight = rows.n[at] / rows.n[at].sum()
    largest = rows.absmax[layout.trained & np.isfinite(rows.absmax)]
    return _Sample(
        view.step,
        tuple(lost.tolist()),
        float(zeros @ weight),
        float(tiny @ weight),
        float(largest.max(initial=0.0)),
        scale,
    )


def _outweigh(view: StepView, sample: _Sample) -> bool:
    numel, chosen = view.layout.numel, view.layout.matrix & view.layout.half
    return bool(2 * numel[list(sample.lost)].sum() >= numel[chosen].sum())


def _below(rows: Rows, scale: float) -> Float:
    """Returns the share of entries that are not 0 and, times the scale, below the smallest normal number."""
    limit = NORMAL - round(np.log2(scale)) - LOWEST_EXPONENT + 1
    below: Float = rows.histogram[:, : max(limit, 0)].sum(axis=1) / np.maximum(rows.n, 1)
    return below
