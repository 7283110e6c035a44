"""Layers whose values lie so far out that the nonlinearity behind them is at its bound and passes no gradient."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np

from gradwatch.findings import Figure, Finding
from gradwatch.rules.history import History
from gradwatch.rules.layout import Index, Layout, Mask
from gradwatch.rules.passages import Passages, passages
from gradwatch.rules.rule import called, count, in_depth_order, number, padded, too_few, without_loss
from gradwatch.rules.saturation import Saturation, saturation
from gradwatch.rules.view import StepView, median
from gradwatch.statistics import Float

SHARE: Final = 0.5
"""Share of outputs at a bound. Source: DeepDiagnosis (Wardat et al. 2022), which takes the same share."""
PASSED: Final = 0.5
"""Share of the gradient's norm that passes the nonlinearity, below which it is lost there: healthy tanh and logistic
layers pass 0.6 and more of what their slope at 0 passes (calibrated)."""
SLOPE: Final = 0.25
"""Of the logistic function at 0; that of tanh is 1."""
SAMPLES: Final = 3
SPAN: Final = 8
"""Samples in a row, and the steps that they span at least."""
SLOWLY: Final = 0.3
"""Share at the sample before, from which on saturation comes by itself, as it does when a small net gets certain."""
SOLVED: Final = -0.9
LEARNS: Final = -0.1
"""Changes of the loss since the start, at which training goes well all the same; the second for logistic functions,
which stand at their bounds by design where they are gates."""
BEHIND: Final = 0.1
"""Update ratio over that of the other layers, below which a layer falls behind."""
LARGE: Final = 3.0
"""Size over the usual one, of weights at the initialisation and of normalised inputs, that explains saturation."""
EARLY: Final = 3


@dataclass(slots=True)
class _Layers:
    """What is known of each layer, shape [l] each: samples in a row, their first, and the latest sample."""

    run: Index = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    since: Index = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    held: Mask = field(default_factory=lambda: np.zeros(0, dtype=np.bool_))
    slowly: Mask = field(default_factory=lambda: np.zeros(0, dtype=np.bool_))
    gates: Mask = field(default_factory=lambda: np.zeros(0, dtype=np.bool_))
    share: Float = field(default_factory=lambda: np.zeros(0))
    passed: Float = field(default_factory=lambda: np.zeros(0))
    size: Float = field(default_factory=lambda: np.zeros(0))
    weight: Float = field(default_factory=lambda: np.zeros(0))
    inputs: Float = field(default_factory=lambda: np.zeros(0))

    def grow(self, size: int) -> None:
        for name in self.__slots__:
            setattr(self, name, padded(getattr(self, name), size, 0))


class Saturated:
    """Finds tanh-like and logistic layers at their bounds *through which the gradient is lost*.

    Formula: ``SHARE`` of the outputs or more within 1 % of a bound, and the gradient before the nonlinearity below
    ``PASSED`` of the one behind it times the nonlinearity's largest slope (``saturation.py``), on ``SAMPLES`` samples
    in a row that span ``SPAN`` steps or more. Not while the run has converged. Where the share came up slowly, only
    with a logged loss that is flat: small nets that get certain end at their bounds. The last layer is left out: a
    confident classifier's outputs belong there. The culprit is the first to saturate, of these the lowest.
    Severity: critical when a logged loss is flat; notice when it fell by nine tenths all the same while the layer keeps
    up with the others, or at a logistic function while the loss falls at all (gates); else warning.
    Sources: Glorot and Bengio 2010; thresholds calibrated on tanh nets of 2 to 16 layers, recurrent and gated ones.
    Advice: the scale of inputs, weights and biases, whichever is out of proportion.
    """

    kind = "saturated"

    def __init__(self, history: History) -> None:
        self.alarmed = False
        self._history = history
        self._known: Passages | None = None
        self._samples = 0
        self._layers = _Layers()
        self._ratio: Float | None = None
        self._last: int | None = None

    def observe(self, view: StepView) -> None:
        """Takes the next step."""
        if self._history.ratio is not None:
            self._ratio = self._history.ratio
        if view.activation is None or view.skipped or view.spoilt or view.activation.any_bad:
            return
        if self._known is None or self._known.version != view.layout.version:
            self._known = passages(view.layout)
        found = saturation(view, self._known)
        self._samples += 1
        self._layers.grow(len(view.layout.layers))
        if found is not None and len(found.share) and not self._history.converged():
            self._take(view, found)

    def findings(self) -> list[Finding]:
        """Returns at most one finding."""
        held = self._layers.held
        if not self._history.loss_is_flat():
            held = held & ~self._layers.slowly
        return [self._finding(np.flatnonzero(held).tolist())] if held.any() else []

    def not_applied(self) -> str | None:
        """Needs activations of a few steps."""
        return too_few("activation", self._samples, SAMPLES)

    def _take(self, view: StepView, found: Saturation) -> None:
        layers, at = self._layers, view.layout.chain
        limit = PASSED * np.where(found.gates, SLOPE, 1.0)
        with np.errstate(invalid="ignore"):
            sick = (found.share >= SHARE) & (found.passed < limit)
        fresh = sick & (layers.run[at] == 0) & ~layers.held[at]
        layers.since[at[fresh]] = view.step
        layers.slowly[at[fresh]] = layers.share[at[fresh]] >= SLOWLY
        layers.run[at] = np.where(sick, layers.run[at] + 1, 0)
        lasts = (layers.run[at] >= SAMPLES) & (view.step - layers.since[at] >= SPAN)
        layers.held[at] = lasts | (layers.held[at] & (found.share >= SHARE))
        layers.share[at], layers.gates[at] = np.nan_to_num(found.share), found.gates
        layers.passed[at], layers.size[at] = found.passed, found.size
        if view.activation_input is not None:
            layers.inputs[at] = view.activation_input.rms[at]
        if view.weight is not None:
            primary = view.layout.primary
            layers.weight[at] = view.weight.rms[primary] / view.layout.initial_rms[primary]
        if layers.held.any():
            self._last, self.alarmed = view.step, True

    def _finding(self, sick: list[int]) -> Finding:
        layout, history, layers = self._history.layout, self._history, self._layers
        rank = layout.rank()
        culprit = min(sick, key=lambda layer: (int(layers.since[layer]), int(rank[layer])))
        names = in_depth_order(layout, sick, culprit)
        confidence, reason = without_loss(history)
        change = history.loss_change()
        if change is not None and not history.loss_is_flat():
            confidence, reason = "medium", "the loss still improves"
        more = "" if len(sick) == 1 else f" and {count(len(sick) - 1, 'more layer')}"
        return Finding(
            kind=self.kind,
            severity=self._severity(layout, culprit, sick),
            title=f"{layers.share[culprit]:.0%} of the outputs of {called(names[0])}{more} are saturated",
            layer=names[0],
            layers=names,
            first_step=int(layers.since[culprit]),
            last_step=self._last,
            evidence=self._evidence(called(names[0]), culprit),
            cause=self._cause(called(names[0]), culprit),
            advice=self._advice(culprit),
            check=f"After the fix {called(names[0])} has less than a tenth of its outputs near a bound.",
            confidence=confidence,
            confidence_reason=reason,
            figure=Figure("activation", "saturated"),
        )

    def _severity(self, layout: Layout, culprit: int, sick: list[int]) -> str:
        change = self._history.loss_change()
        if change is None:
            return "warning"
        if self._history.loss_is_flat():
            return "critical"
        learns = change < LEARNS if self._layers.gates[culprit] else change < SOLVED
        return "notice" if learns and self._keeps_up(layout, culprit, sick) else "warning"

    def _keeps_up(self, layout: Layout, culprit: int, sick: list[int]) -> bool:
        """Tells whether the culprit's weights move about as fast as those of the layers that are not saturated."""
        if self._ratio is None:
            return True
        ratio = padded(self._ratio, len(layout.parameters), np.nan)[layout.primary]
        own, others = ratio[layout.chain == culprit], ratio[~np.isin(layout.chain, sick)]
        return not median(own) < BEHIND * median(others)

    def _evidence(self, name: str, culprit: int) -> tuple[str, ...]:
        layers, loss = self._layers, self._history.loss
        bound = "0 or 1" if layers.gates[culprit] else "-1 or 1"
        evidence = [
            f"{layers.share[culprit]:.0%} of the outputs behind {name} lie within 1 % of {bound}, on "
            f"{count(int(layers.run[culprit]), 'sample')} in a row; {SHARE:.0%} are too many.",
            f"The nonlinearity passes {number(float(layers.passed[culprit]))} of the gradient's norm; one that is not "
            "saturated passes most of it."
            if not layers.gates[culprit]
            else f"The nonlinearity passes {number(float(layers.passed[culprit]))} of the gradient's norm, of which a "
            "logistic function can pass 0.25.",
            f"The values before it have an rms of {number(float(layers.size[culprit]))}.",
        ]
        if self._history.loss_change() is not None:
            evidence.append(f"The loss went from {number(loss.start())} to {number(loss.now())}.")
        return tuple(evidence)

    def _cause(self, name: str, culprit: int) -> str:
        weight, inputs = float(self._layers.weight[culprit]), float(self._layers.inputs[culprit])
        if inputs > LARGE:
            return f"The inputs of {name} have an rms of {number(inputs)}, where about 1 is usual."
        if weight > LARGE:
            return f"The weights of {name} are {number(weight)} times as large as the usual initialisation makes them."
        if self._layers.since[culprit] > EARLY:
            return f"Updates probably drove the weights or biases of {name} too far."
        return f"The biases of {name} probably push its values out of the range in which the nonlinearity answers."

    def _advice(self, culprit: int) -> tuple[str, ...]:
        weight, inputs = float(self._layers.weight[culprit]), float(self._layers.inputs[culprit])
        scale = "Normalise the inputs to mean 0 and variance 1."
        start = "Initialise the weights with variance 1 / fan-in (Glorot), and the biases with 0."
        rate = "Lower the learning rate, or clip the gradient's norm."
        norm = "Put a normalisation layer before the nonlinearity, or use one without bounds, such as GELU."
        if inputs > LARGE:
            return scale, norm
        if weight > LARGE or self._layers.since[culprit] <= EARLY:
            return (start, norm) if self._layers.since[culprit] <= EARLY else (rate, start, norm)
        return rate, norm
