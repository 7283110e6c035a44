"""Units that are 0 for every example and therefore get no gradient: most often those of ReLU."""

from __future__ import annotations

from collections import deque
from typing import Final

import numpy as np

from gradwatch.findings import Figure, Finding
from gradwatch.rules.history import History
from gradwatch.rules.layout import Index, Layout, Mask
from gradwatch.rules.passages import Passages, passages
from gradwatch.rules.rule import at_start, called, count, in_depth_order, number, padded, too_few, without_loss
from gradwatch.rules.silence import Silence, silence, without_gradient
from gradwatch.rules.view import StepView
from gradwatch.statistics import Float

SHARE: Final = 0.5
"""Share of a layer's units from which on it is sick. Source: the rule DeadRelu of SageMaker Debugger."""
SAMPLES: Final = 3
SPAN: Final = 8
"""Samples in a row, and the steps that they span at least, on which units have to be silent."""
FEWEST: Final = 4
"""Units that have to be dead, unless all are: half of a bottleneck of four units is no statistic."""
NEARLY: Final = 0.75
"""Share from which on a layer cannot do its part, however well the others learn."""
LEARNS: Final = -0.5
"""Change of the loss since the start, at which a layer that keeps some of its units is a notice."""
SLOWLY: Final = 0.25
"""Share at the sample before, from which on units fall silent one after another: some of them may only answer rarely,
which one batch cannot tell from death. Then counts over several batches decide, or a share of ``NEARLY``."""
REVIVED: Final = 0.4
"""Share below which a layer counts as revived; between this and ``SHARE`` it stays what it was."""
BATCHES: Final = 8
"""Sampled batches over which adapters count silent units (``statistics.UnitCounts``)."""
LARGE: Final = 0.1
"""Update ratio that can throw a layer's biases so far down that no example reaches its units again."""
RECENT: Final = 4
"""Samples of updates before the onset among which a large one is looked for."""
EARLY: Final = 3


class DeadUnits:
    """Finds layers of which half of the units, or more, are 0 for all examples *and* get a gradient of exactly 0.

    Formula: silent share of a layer (``silence.py``) at least ``SHARE`` on ``SAMPLES`` samples in a row or more that
    span ``SPAN`` steps or more, and not below ``REVIVED`` since. So sparse codes stay unnamed, whose units answer some
    example, and units that a mask, a cut or a zero weight behind them keeps from learning, which are not 0.
    The culprit is the lowest layer that is wholly silent, else the lowest: what lies below a layer that is wholly
    silent gets no gradient because of it.
    Severity: critical when a layer is wholly silent and the loss, if logged, does not improve; notice when less than
    ``NEARLY`` are silent while the loss fell by half; else warning.
    Source: Lu et al. 2019, Dying ReLU and Initialization; thresholds calibrated on plain, convolutional and normalised
    nets, sparse ones and wide ones.
    Advice: learning rate, bias and initialisation, leaky nonlinearities.
    """

    kind = "dead-units"

    def __init__(self, history: History) -> None:
        self.alarmed = False
        self._history = history
        self._known: Passages | None = None
        self._samples = 0
        self._run: Index = np.zeros(0, dtype=np.int64)
        self._batches: Index = np.zeros(0, dtype=np.int64)
        self._since: Index = np.zeros(0, dtype=np.int64)
        self._held: Mask = np.zeros(0, dtype=np.bool_)
        self._slowly: Mask = np.zeros(0, dtype=np.bool_)
        self._share: Float = np.zeros(0)
        self._mean: Float = np.zeros(0)
        self._size: Float = np.zeros(0)
        self._before: Float = np.zeros(0)
        self._stopped: Index = np.zeros(0, dtype=np.int64)
        self._ratios: deque[float] = deque(maxlen=RECENT)
        self._steps: deque[int] = deque([-1], maxlen=BATCHES)
        self._last: int | None = None

    def observe(self, view: StepView) -> None:
        """Takes the next step."""
        if self._history.ratio is not None:
            ratio = self._history.ratio[view.layout.matrix]
            self._ratios.append(float(np.max(ratio, initial=0.0, where=np.isfinite(ratio))))
        if view.gradient is None or view.skipped or view.gradient.any_bad:
            return
        self._grow(view.layout)
        self._follow_stops(view)
        if view.activation is None:
            self._suspect(view)
            return
        found = silence(view, self._ways(view))
        if found is not None:
            self._take(view.step, found)

    def findings(self) -> list[Finding]:
        """Returns at most one finding."""
        return [self._finding()] if self._held.any() else []

    def not_applied(self) -> str | None:
        """Needs activations, or counts of zeros, of a few steps."""
        return too_few("activation", self._samples, SAMPLES)

    def _ways(self, view: StepView) -> Passages:
        if self._known is None or self._known.version != view.layout.version:
            self._known = passages(view.layout)
        return self._known

    def _grow(self, layout: Layout) -> None:
        size = len(layout.layers)
        if len(self._run) >= size:
            return
        for name, fill in (
            ("_run", 0),
            ("_batches", 0),
            ("_since", 0),
            ("_held", False),
            ("_slowly", False),
            ("_stopped", -1),
        ):
            setattr(self, name, padded(getattr(self, name), size, fill))
        for name in ("_share", "_mean", "_size", "_before"):
            setattr(self, name, padded(getattr(self, name), size, 0.0))

    def _follow_stops(self, view: StepView) -> None:
        """Keeps the step since which the weight gradient of each layer of the chain is exactly 0, or -1."""
        assert view.gradient is not None
        stopped = view.gradient.absmax[view.layout.primary] == 0
        if not np.count_nonzero(stopped):
            self._stopped[:] = -1
            return
        known = self._stopped[view.layout.chain]
        self._stopped[view.layout.chain] = np.where(stopped, np.where(known < 0, view.step, known), -1)

    def _suspect(self, view: StepView) -> None:
        """Raises the alarm where gradients stop of which only activations can tell why: they come next."""
        if self.alarmed or view.gradient is None or not view.gradient.full:
            return
        stopped = without_gradient(view, self._ways(view))
        at = view.layout.chain
        self.alarmed = bool(((stopped >= SHARE) & (self._run[at] == 0))[:-1].any())

    def _take(self, step: int, found: Silence) -> None:
        self._samples += 1
        at = self._history.layout.chain
        lasting, run = found.lasting, self._run[at]
        seen = np.isfinite(found.batch)
        self._batches[at] = np.where(found.batch >= SHARE, self._batches[at] + 1, np.where(seen, 0, self._batches[at]))
        alone = (self._batches[at] > BATCHES) | (~seen & (self._batches[at] == 0))
        counted = np.isfinite(lasting) & (alone | (lasting > found.batch))
        share = np.where(counted, lasting, found.batch)
        self._slowly[at] = np.where(run == 0, self._share[at] >= SLOWLY, self._slowly[at])
        sure = counted | ~self._slowly[at] | (share >= NEARLY)
        sick = (share >= SHARE) & ((share == 1) | (share * found.units >= FEWEST)) & sure
        self._begin(step, at, share, sick & (run == 0), counted)
        run = np.where(sick, run + 1, np.where(np.isnan(share), run, 0))
        lasts = (run >= SAMPLES) & (step - self._since[at] >= SPAN)
        self._run[at] = run
        self._held[at] = lasts | (self._held[at] & ~(share < REVIVED))
        self._share[at] = np.where(np.isnan(share), self._share[at], share)
        self._mean[at], self._size[at] = found.mean, found.size
        self._steps.append(step)
        if self._held.any():
            self._last, self.alarmed = step, True

    def _begin(self, step: int, at: Index, share: Float, fresh: Mask, counted: Mask) -> None:
        """Dates what begins: now, at the first batch counted, or when the weights' gradients stopped before it."""
        stopped = self._stopped[at]
        since = np.where((share == 1) & (stopped > self._steps[-1]), stopped, step)
        since = np.where(counted, np.minimum(since, self._steps[0]), since)
        self._since[at[fresh]] = np.maximum(since, 0)[fresh]
        self._before[at[fresh]] = max(self._ratios, default=0.0)

    def _finding(self) -> Finding:
        layout, history = self._history.layout, self._history
        rank = layout.rank()
        sick = sorted(np.flatnonzero(self._held).tolist(), key=lambda layer: int(rank[layer]))
        culprit = next((layer for layer in sick if self._whole(layer)), sick[0])
        whole = self._whole(culprit)
        names = in_depth_order(layout, [*sick, *(self._below(layout, culprit) if whole else ())], culprit)
        confidence, reason = without_loss(history)
        learns = (history.loss_change() or 0.0) < LEARNS
        if learns:
            confidence, reason = "medium", "the loss still improves"
        return Finding(
            kind=self.kind,
            severity=self._severity(culprit, learns),
            title=_title(called(names[0]), float(self._share[culprit]), len(sick)),
            layer=names[0],
            layers=names,
            first_step=int(self._since[sick].min()),
            last_step=self._last,
            evidence=self._evidence(layout, culprit, sick),
            cause=self._cause(layout, culprit),
            advice=self._advice(culprit),
            check=f"After the fix fewer than a tenth of the units of {called(names[0])} are silent.",
            confidence=confidence,
            confidence_reason=reason,
            figure=Figure("activation", "silent_units"),
        )

    def _whole(self, layer: int) -> bool:
        """Tells whether no gradient passes a layer any more."""
        return bool(self._share[layer] == 1 or (self._share[layer] >= NEARLY and self._stopped[layer] >= 0))

    def _severity(self, culprit: int, learns: bool) -> str:
        if self._whole(culprit):
            stuck = self._history.loss_change() is None or self._history.loss_is_flat()
            return "critical" if stuck else "warning"
        return "notice" if learns and self._share[culprit] < NEARLY else "warning"

    def _below(self, layout: Layout, culprit: int) -> list[int]:
        """Returns the layers towards the input that get no gradient either."""
        rank = layout.rank()
        return [layer for layer in layout.chain.tolist() if rank[layer] < rank[culprit] and self._stopped[layer] >= 0]

    def _evidence(self, layout: Layout, culprit: int, sick: list[int]) -> tuple[str, ...]:
        name = called(layout.layers[culprit])
        evidence = [
            f"{self._share[culprit]:.0%} of the units of {name} are 0 for every example and get a gradient of exactly "
            f"0, on {count(int(self._run[culprit]), 'sample')} in a row; {SHARE:.0%} are too many.",
        ]
        mean, size = float(self._mean[culprit]), float(self._size[culprit])
        if mean < 0:
            evidence.append(
                f"Before the nonlinearity its values average {number(mean)}, and their sizes {number(size)}: "
                f"{'all' if mean < -0.9 * size else 'most'} of them lie below 0."
            )
        if len(sick) > 1:
            others = [layer for layer in sick if layer != culprit]
            low, high = float(self._share[others].min()), float(self._share[others].max())
            share = f"{low:.0%}" if f"{low:.0%}" == f"{high:.0%}" else f"{low:.0%} to {high:.0%}"
            evidence.append(f"In {count(len(others), 'other layer')} {share} of the units are silent.")
        change = self._history.loss_change()
        if change is not None:
            evidence.append(
                f"The loss went from {number(self._history.loss.start())} to {number(self._history.loss.now())}."
            )
        return tuple(evidence)

    def _cause(self, layout: Layout, culprit: int) -> str:
        name = called(layout.layers[culprit])
        if self._since[culprit] > EARLY and self._before[culprit] > LARGE:
            return (
                f"An update of {number(float(self._before[culprit]))} times the weights' size just before probably "
                f"threw {name} so far down that no example reaches its units any more."
            )
        if self._since[culprit] > EARLY:
            return f"The biases or weights of {name} were driven so low that no example reaches its units any more."
        return f"The initial biases, weights or inputs of {name} keep its units below 0 from the start on."

    def _advice(self, culprit: int) -> tuple[str, ...]:
        leaky = "Use a nonlinearity with a slope everywhere, such as leaky ReLU or GELU."
        if self._since[culprit] > EARLY:
            return (
                "Lower the learning rate, warm it up, or clip the gradient's norm.",
                leaky,
                "Go back to weights from before this step: dead units do not come back by themselves.",
            )
        return (
            "Start the biases at 0 and the weights with He initialisation (variance 2 / fan-in).",
            "Normalise the inputs to mean 0 and variance 1.",
            leaky,
        )


def _title(name: str, share: float, layers: int) -> str:
    units = "All units" if share == 1 else f"{share:.0%} of the units"
    more = "" if layers == 1 else f" and {count(layers - 1, 'more layer')}" if share == 1 else ""
    return f"{units} of {name}{more} are dead" if share == 1 else f"{at_start(units)} of {name} are dead"
