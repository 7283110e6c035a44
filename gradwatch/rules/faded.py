"""Gradients that reach few positions of a sequence: the form of vanishing that a recurrence hides in its sums."""

from __future__ import annotations

from typing import Final

import numpy as np

from gradwatch.findings import Figure, Finding
from gradwatch.rules.history import SETTLED, History
from gradwatch.rules.layout import Layout, Mask
from gradwatch.rules.persistence import Persistence
from gradwatch.rules.rule import called, in_depth_order, number
from gradwatch.rules.view import Rows, StepView
from gradwatch.statistics import HIGHEST_EXPONENT, LOWEST_EXPONENT, Float

FAR: Final = 4.0
"""Decades below a layer's rms gradient from which on an entry counts as not reached."""
FADED: Final = 0.5
"""Share of a layer's entries that are not reached. Entries of one distribution are not spread like this: 1 in 10,000 of
a Gaussian lie ``FAR`` decades below its rms. A memory that keeps a fifth a step leaves 76 % of 24 steps there."""
ENOUGH: Final = 16
"""Entries other than 0 that a share needs."""
ALIVE: Final = 0.25
"""Share of all entries that are other than 0, below which units died or masks hold the gradient back."""
TOP: Final = 0.1
"""Share at the last layer above which it is the examples that differ: a few with large errors beside many that are
solved, as in learning from rare rewards, where the loss does not tell."""
PATIENCE: Final = 2 * SETTLED
"""Long memories are learnt after a plateau."""
_RECURRENT: Final = ("RNN", "LSTM", "GRU", "Cell")


class Faded:
    """Finds layers at which most entries of the gradient are far smaller than the rest, while nothing is learnt.

    Formula: of the entries of the gradient at a layer's outputs (or inputs) that are not 0, ``FADED`` or more lie
    ``FAR`` decades below the layer's rms, and at the last layer ``TOP`` or fewer, on 5 of 8 samples; and the logged
    loss is flat (``History.loss_is_flat``) over ``PATIENCE`` values of it.
    The culprit is the last such layer in forward order: there the gradient still comes in, and below it is lost; or
    the recurrent one that reads it, when all time steps pass within that.
    Summed over the time steps a parameter's gradient does not show it: the last steps keep it large (Pascanu et al.
    2013, section 2.2). A net that has learnt its examples shows the same spread over the examples, with a loss that
    fell.
    """

    def __init__(self, history: History) -> None:
        self._history = history
        self._spread = Persistence()
        self._shares: Float = np.zeros(0)

    def observe(self, view: StepView) -> None:
        """Takes the next step."""
        if view.activation_gradient is None or view.skipped or view.spoilt:
            return
        shares = self._share(view)
        known = shares[np.isfinite(shares)]
        spread = len(known) > 0 and bool(known[-1] <= TOP) and bool((known >= FADED).any())
        self._spread.observe(view.step, spread)
        if spread:
            self._shares = shares

    def findings(self) -> list[Finding]:
        """Returns at most one finding."""
        if not self._spread.holds or self._history.loss.count < PATIENCE or not self._history.loss_is_flat():
            return []
        layout, shares = self._history.layout, self._shares
        affected = layout.chain[: len(shares)][shares >= FADED]
        culprit = _culprit(layout, int(np.flatnonzero(shares >= FADED)[-1]))
        name = called(layout.layers[culprit])
        where = "time steps" if _recurrent(layout, culprit) else "positions"
        loss = self._history.loss
        return [
            Finding(
                kind="vanishing",
                severity="warning",
                title=f"Gradients vanish over the {where} of {name}",
                layer=layout.layers[culprit],
                layers=in_depth_order(layout, affected, culprit),
                first_step=self._spread.since,
                last_step=self._spread.last,
                evidence=(
                    f"Of the gradient's entries that pass {name}, {np.nanmax(shares):.0%} are more than "
                    f"{10**FAR:,.0f} times smaller than their root mean square; {FADED:.0%} are too many.",
                    f"The loss went from {number(loss.start())} to {number(loss.now())}.",
                ),
                cause=f"Each step back through the {where} shrinks the gradient, so what came early in a sequence has "
                "no influence on the weights: the recurrent weight is too small, or a forget gate is closed.",
                advice=(
                    "Start the recurrent weight as an orthogonal matrix (spectral radius 1), and an LSTM's forget bias "
                    "at 1 to 3.",
                    "Use a gated cell (LSTM, GRU), or give the output a shorter way to early steps: attention, or a "
                    "mean over all steps.",
                    "If the task needs only the last steps, look elsewhere: at the learning rate or the data.",
                ),
                check=f"After the fix fewer than {FADED:.0%} of these entries lie that far below, and the loss falls.",
                confidence="high",
                figure=Figure("activation_gradient", "rms", "depth"),
            )
        ]

    def _share(self, view: StepView) -> Float:
        """Returns the larger share at the outputs and the inputs of each layer of the chain, shape [c]."""
        outputs, inputs = view.activation_gradient, view.activation_gradient_input
        assert outputs is not None
        found = _unreached(outputs, view.layout)
        return found if inputs is None else np.fmax(found, _unreached(inputs, view.layout))


def _culprit(layout: Layout, last: int) -> int:
    """Returns the layer at the last affected place of the chain, or the recurrent one that reads its outputs."""
    here, behind = int(layout.chain[last]), layout.chain[last + 1 : last + 2]
    reads = not _recurrent(layout, here) and len(behind) == 1 and _recurrent(layout, int(behind[0]))
    return int(behind[0]) if reads else here


def _recurrent(layout: Layout, layer: int) -> bool:
    return any(word in layout.class_of[layer] for word in _RECURRENT)


def _unreached(rows: Rows, layout: Layout) -> Float:
    """Returns the share of entries that are not 0 and lie ``FAR`` decades below the rms, null where unknown."""
    chain = layout.chain
    histogram, rms = rows.histogram[chain], rows.rms[chain]
    entries = histogram.sum(axis=1)
    known: Mask = (entries >= ENOUGH) & (entries >= ALIVE * rows.n[chain]) & (rms > 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        # Bin i ends at 2^(i - 40): whole bins below the limit count.
        last = np.floor(np.log2(rms) - FAR * np.log2(10.0)) - LOWEST_EXPONENT
    known &= (last >= 0) & (last <= HIGHEST_EXPONENT - LOWEST_EXPONENT)
    below = np.cumsum(histogram, axis=1)
    at = np.where(known, last, 0).astype(np.int64)
    return np.where(known, below[np.arange(len(chain)), at] / np.maximum(entries, 1), np.nan)
