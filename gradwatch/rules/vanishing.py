"""Gradients that shrink from layer to layer until the layers next to the input hardly learn."""

from __future__ import annotations

from collections import deque
from typing import Final, cast

import numpy as np

from gradwatch.findings import Figure, Finding
from gradwatch.rules.depth import largest_jump, trend
from gradwatch.rules.extinct import Extinct
from gradwatch.rules.faded import Faded
from gradwatch.rules.history import History
from gradwatch.rules.layout import Layout, Mask
from gradwatch.rules.persistence import Persistence
from gradwatch.rules.profile import Profile, gradient_profile
from gradwatch.rules.rule import called, count, in_depth_order, number, too_few, without_loss
from gradwatch.rules.view import StepView, median
from gradwatch.statistics import Float

CHAIN: Final = 5
"""Layers that own a weight matrix, below which a trend along depth says nothing; a drop does from two on."""
DROP: Final = 3.0
"""Decades from the layers next to the output to those next to the input."""
TREND_DROP: Final = 2.5
SLOPE: Final = 0.1
"""Decades per layer: ReLU layers of Glorot's scale lose 0.1505, which is chi = 1/2 (Schoenholz et al. 2017), and those
of a finite width a little more or less."""
TAU: Final = 0.6
RATIO: Final = 1e-5
RELATIVE_RATIO: Final = 0.01
"""Update ratio of the affected layers, by itself and over that of the layers next to the output."""
ABYSS: Final = 5.0
"""Decades beyond which float32 rounding (6e-8) and batch noise of the upper layers drown what arrives below, so that
an optimizer that rescales gradients moves these layers at random."""
EARLY: Final = 10
_SQUASHING: Final = ("Sigmoid", "Tanh", "Hardsigmoid", "Hardtanh", "Softsign")


class Vanishing:
    """Finds gradients that vanish along depth *and* layers that hardly move because of it.

    Formula: with x the log10 norm of the gradient at the outputs of the layers that own a weight matrix, at least
    ``CHAIN`` of them. Key 1: the largest x in the quarter next to the input lies ``DROP`` below the median of the
    quarter next to the output, or below the largest above a place that shrinks signals and gradients alike by
    ``cut.CUT``; or x falls towards the input by more than ``SLOPE`` a layer (Theil-Sen), by more than
    ``TREND_DROP`` in all, with Kendall's tau above ``TAU``. Key 2, in the layers that lie ``TREND_DROP`` below the
    top: median update ratio below ``RATIO`` and below ``RELATIVE_RATIO`` of the top's; or a drop beyond ``ABYSS``; or a
    logged loss that is flat (``History.loss_is_flat``). Both on 5 of 8 samples, while the global norm has not
    converged.
    Also: gradients that were there and became exactly 0 (``extinct.py``), and that reach few of a sequence's positions
    (``faded.py``).
    Severity: notice for key 1 alone or when it passed; warning; critical when gradients are exactly 0, or the logged
    loss is flat.
    Sources: Glorot and Bengio 2010, He et al. 2015, Schoenholz et al. 2017; thresholds calibrated on plain, residual,
    normalised and recurrent nets.
    Advice: activation and initialisation, then normalisation or residual connections.
    """

    kind = "vanishing"

    def __init__(self, history: History) -> None:
        self.alarmed = False
        self._history = history
        self._extinct = Extinct(history)
        self._faded = Faded(history)
        self._small = Persistence()
        self._both = Persistence()
        self._ratio: Float | None = None
        self._chain = 0
        self._onset: int | None = None
        self._shown: deque[Profile] = deque(maxlen=8)

    def observe(self, view: StepView) -> None:
        """Takes the next step."""
        self._extinct.observe(view)
        self._faded.observe(view)
        if self._history.ratio is not None:
            self._ratio = self._history.ratio
        if view.skipped or (view.gradient is not None and view.gradient.any_bad):
            return
        profile = gradient_profile(view, self._history, self._ratio)
        if profile is None:
            return
        self._chain = max(self._chain, profile.seen())
        if profile.seen() < 2 or self._history.converged():
            return
        small = vanishes(profile)
        stuck = small and self._stuck(profile)
        self._small.observe(view.step, small)
        if self._both.observe(view.step, stuck) and self._onset is None:
            # The loss shows late that nothing is learnt; the gradients were small before.
            self._onset = self._small.since
        if small:
            self._shown.append(profile)

    def findings(self) -> list[Finding]:
        """Returns at most one finding."""
        found = self._extinct.findings()
        if not found and not self._both.ever:
            found = self._faded.findings()
        return found or ([self._finding()] if self._small.ever else [])

    def not_applied(self) -> str | None:
        """Needs a chain of layers and a few samples."""
        source = "activation_gradient" if self._history.sees_inside else "gradient"
        few = too_few(source, self._history.samples[source], self._small.k)
        if few is not None or self._small.samples >= self._small.k:
            return few
        if self._chain < 2:
            return f"Only {count(self._chain, 'layer')} with a weight matrix; a drop along depth needs 2."
        return None

    def _stuck(self, profile: Profile) -> bool:
        if profile.top() - profile.bottom() > ABYSS or self._history.loss_is_flat():
            return True
        affected = affected_layers(profile)
        ratio = median(profile.ratio[affected])
        top = median(profile.ratio[-max(1, len(affected) // 4) :])
        return ratio < RATIO and ratio < RELATIVE_RATIO * top

    def _finding(self) -> Finding:
        both, history = self._both.ever, self._history
        persistence = self._both if both else self._small
        onset = self._onset if both else self._small.onset
        passed = both and not self._both.holds
        layout = history.layout
        profile = self._typical()
        affected = np.flatnonzero(affected_layers(profile))
        if len(affected) == 0:
            affected = np.arange(profile.size.size // 2)
        place = _culprit(profile, int(affected[0]))
        names = in_depth_order(layout, profile.layers[affected], int(profile.layers[place]))
        change = history.loss_change()
        flat = self._history.loss_is_flat()
        confidence, reason = without_loss(history)
        if both and change is not None and not flat:
            confidence, reason = "medium", "the loss still improves"
        return Finding(
            kind=self.kind,
            severity="notice" if not both or passed else "critical" if flat else "warning",
            title=_title(len(names), profile.seen(), called(names[0]), both),
            layer=names[0],
            layers=names,
            first_step=onset,
            last_step=persistence.last,
            evidence=self._evidence(profile, affected, layout, passed),
            cause=_cause(layout, profile, place, onset),
            advice=_advice(layout, profile),
            check=f"After the fix the gradient at {called(names[0])} stays within 2 decades of that at the output.",
            confidence=confidence,
            confidence_reason=reason,
            figure=Figure("activation_gradient" if "outputs" in profile.measured else "gradient", "rms", "depth"),
        )

    def _typical(self) -> Profile:
        """Returns the median of the last profiles that showed the drop, over the chain of the latest of them."""
        latest = self._shown[-1]
        alike = [profile for profile in self._shown if np.array_equal(profile.layers, latest.layers)]
        return Profile(
            latest.step,
            latest.layers,
            _medians(alike, "size"),
            _medians(alike, "lost_inside"),
            _medians(alike, "ratio"),
            latest.measured,
            latest.cut,
        )

    def _evidence(self, profile: Profile, affected: np.ndarray, layout: Layout, passed: bool) -> tuple[str, ...]:
        line = trend(profile.size)
        seen = np.flatnonzero(np.isfinite(profile.size))
        first, last = (called(layout.layers[int(profile.layers[i])]) for i in (seen[0], seen[-1]))
        drop = float(profile.size[seen[-1]] - profile.size[seen[0]])
        evidence = [
            f"The {profile.measured} falls by {drop:.1f} decades from {last} to {first} ({TREND_DROP} to {DROP:g} "
            f"are too many)" + (f", {line.slope:.2f} decades per layer." if line.slope > SLOPE else "."),
        ]
        if profile.cut is not None:
            evidence.append(profile.cut.measured(_at(layout, profile, profile.cut.place)))
        ratio = median(profile.ratio[affected])
        if np.isfinite(ratio):
            top = median(profile.ratio[-max(1, len(profile.ratio) // 4) :])
            evidence.append(
                f"An update changes the affected layers by {number(ratio)} of their size, the layers next to the "
                f"output by {number(top)}; below {number(RATIO)} a layer hardly learns."
            )
        if ratio == 0:
            evidence.append("The updates are exactly 0: they are smaller than the rounding of the weights.")
        change = self._history.loss_change()
        if change is not None:
            evidence.append(
                f"The loss went from {number(self._history.loss.start())} to {number(self._history.loss.now())}."
            )
        if passed:
            evidence.append(f"It has passed: the last step that shows it is step {self._both.last}.")
        return tuple(evidence)


def vanishes(profile: Profile) -> bool:
    """Tells whether a profile falls towards the input by far more than healthy nets do (key 1)."""
    drop = profile.top() - profile.bottom()
    if drop > DROP:
        return True
    if drop < TREND_DROP - 1 or profile.seen() < CHAIN:
        return False
    line = trend(_thinned(profile.size))
    spread = line.slope * (len(_thinned(profile.size)) - 1)
    return spread > TREND_DROP and spread / max(profile.seen() - 1, 1) > SLOPE and line.tau > TAU


def affected_layers(profile: Profile) -> Mask:
    """Returns the layers whose gradient lies ``TREND_DROP`` decades or more below the top, shape [c]."""
    with np.errstate(invalid="ignore"):
        return profile.size <= profile.top() - TREND_DROP


def _thinned(size: Float, most: int = 64) -> Float:
    """Returns at most 64 evenly spaced layers: pairs grow with the square."""
    return size if len(size) <= most else size[np.linspace(0, len(size) - 1, most).astype(np.int64)]


def _culprit(profile: Profile, lowest: int) -> int:
    """Returns the layer of the one steep drop if most of the fall is there, else the lowest affected layer."""
    drops = np.diff(profile.size)
    jump = largest_jump(drops)
    total = profile.top() - profile.bottom()
    if jump is None or jump.size < max(0.7, 0.5 * total) or jump.size < 3 * jump.next:
        return lowest
    inside = profile.lost_inside[jump.index + 1]
    return jump.index + 1 if np.isfinite(inside) and inside > 0.5 * jump.size else jump.index


def _medians(profiles: list[Profile], name: str) -> Float:
    stacked = np.stack([getattr(profile, name) for profile in profiles])
    finite = np.isfinite(stacked)
    if finite.all():
        return cast("Float", np.median(stacked, axis=0))
    known = finite.any(axis=0)
    result = np.full(stacked.shape[1], np.nan)
    if known.any():
        result[known] = np.nanmedian(stacked[:, known], axis=0)
    return result


def _title(affected: int, seen: int, name: str, stuck: bool) -> str:
    if not stuck:
        return f"Gradients get small towards the input, most at {name}"
    which = "One layer hardly learns" if affected == 1 else f"{affected} of {seen} layers hardly learn"
    return f"{which}: gradients vanish towards {name}"


def _squashing(layout: Layout) -> list[str]:
    return [name for name in dict.fromkeys(layout.class_of) if name in _SQUASHING]


def _cause(layout: Layout, profile: Profile, place: int, onset: int | None) -> str:
    early = onset is not None and onset <= EARLY
    squashing = _squashing(layout)
    name = _at(layout, profile, place)
    if profile.cut is not None:
        return profile.cut.cause(_at(layout, profile, profile.cut.place))
    if not early:
        return f"It began during training, so a layer near {name} probably saturated or its weights shrank."
    if squashing:
        return (
            f"Each {squashing[0]} passes on only part of the gradient, and the initialisation does not make up for it; "
            "over many layers the parts multiply."
        )
    small = "The initialisation is too small for the activation and the depth"
    # Functions between the layers, as JAX has them, have no class.
    unseen = len(np.unique(layout.layer_of)) == len(layout.layers)
    return small + (", or the activation squashes" if unseen else "") + ": each layer passes on too little gradient."


def _at(layout: Layout, profile: Profile, place: int) -> str:
    return called(layout.layers[int(profile.layers[place])])


def _advice(layout: Layout, profile: Profile) -> tuple[str, ...]:
    if profile.cut is not None:
        return profile.cut.advice(_at(layout, profile, profile.cut.place))
    squashing = _squashing(layout)
    if squashing:
        swap = f"Use an activation whose slope is near 1, such as ReLU or GELU, in place of {' and '.join(squashing)}"
        first = f"{swap}, with He initialisation (variance 2 / fan-in)."
    else:
        first = "Match the initialisation to the activation: He (variance 2 / fan-in) for ReLU, Glorot for tanh."
    return (
        first,
        "Add residual connections or a normalisation layer between the layers.",
        f"Try fewer layers than {profile.seen()}.",
    )
