"""Non-finite numbers: which step, and which module made the first of them."""

from __future__ import annotations

from typing import Final

import numpy as np

from gradwatch.findings import Figure, Finding
from gradwatch.rules.history import History
from gradwatch.rules.origin import Origin, locate
from gradwatch.rules.rule import count
from gradwatch.rules.view import StepView

SKIPS: Final = 20
"""Skipped steps in a row: a loss scaler that starts at 2^16 reaches 1 after 16 halvings, so more are no search."""
RECOVERED: Final = 20
"""Finite steps after the last non-finite one that show that training went on."""


class NonFinite:
    """Finds the first step with a non-finite loss, gradient, update or weight, and its origin.

    Formula: any NaN or infinity counted in a parameter's gradient, update or value, or a logged loss that is not
    finite; for runs without parameter gradients, in an activation gradient. Deterministic, no threshold. A non-finite
    activation alone (a mask of -inf) is no finding.
    Steps that a loss scaler skipped do not count unless more than ``SKIPS`` come in a row.
    Severity: critical; warning when ``RECOVERED`` finite steps followed.
    Source: the origin is the first module in forward order with a non-finite output, else the last in backward order
    whose incoming gradient is finite (the practice of anomaly detection in autograd systems); see ``origin.py``.
    Advice: guard the operation that fails at 0, the data, or the range of the format.
    """

    kind = "nonfinite"

    def __init__(self, history: History) -> None:
        self.alarmed = False
        self._history = history
        self._origin: Origin | None = None
        self._onset: int | None = None
        self._last: int | None = None
        self._finite_since = 0
        self._skips = 0
        self._most_skips = 0
        self._first_skip: int | None = None
        self._scale: float | None = None

    def observe(self, view: StepView) -> None:
        """Takes the next step."""
        if view.skipped:
            self._skip(view)
            return
        self._skips = 0
        if not _spoilt(view):
            self._finite_since += view.span if view.captured else 0
            return
        self.alarmed = True
        self._finite_since = 0
        self._last = view.step
        if self._origin is None:
            self._onset, self._origin = view.step, locate(view)

    def findings(self) -> list[Finding]:
        """Returns at most one finding."""
        if self._origin is not None:
            return [self._spoilt_finding(self._origin)]
        return [self._scaler_finding()] if self._most_skips > SKIPS else []

    def not_applied(self) -> str | None:
        """Needs any captured step or a logged loss."""
        if self._history.captured or self._history.loss_logged:
            return None
        return "No step was captured."

    def _skip(self, view: StepView) -> None:
        self._first_skip = view.step if self._skips == 0 else self._first_skip
        self._skips += 1
        self._most_skips = max(self._most_skips, self._skips)
        self._scale = view.facts.get("loss_scale", self._scale)
        if self._skips > SKIPS:
            self.alarmed = True
            self._last = view.step

    def _spoilt_finding(self, origin: Origin) -> Finding:
        recovered = self._finite_since >= RECOVERED
        evidence = list(origin.evidence)
        if recovered:
            evidence.append(f"The {self._finite_since} captured steps after step {self._last} are finite again.")
        return Finding(
            kind=self.kind,
            severity="warning" if recovered else "critical",
            title=origin.title,
            layer=origin.layer,
            layers=origin.layers,
            first_step=self._onset,
            last_step=self._last,
            evidence=tuple(evidence),
            cause=origin.cause,
            advice=origin.advice,
            check="After the fix no non-finite element is counted in any signal, and the loss stays finite.",
            confidence=origin.confidence,
            confidence_reason=origin.confidence_reason,
            figure=Figure("gradient", "nan"),
        )

    def _scaler_finding(self) -> Finding:
        scale = "" if self._scale is None else f" and the scale fell to {self._scale:.3g}"
        return Finding(
            kind=self.kind,
            severity="critical",
            title="The loss scaler skips every step",
            layer=None,
            layers=(),
            first_step=self._first_skip,
            last_step=self._last,
            evidence=(
                f"{count(self._most_skips, 'step')} in a row were skipped{scale}; "
                f"up to {SKIPS} are a normal search for the scale.",
            ),
            cause="The gradients are not finite at any scale, so the fault is in the model or the data.",
            advice=(
                "Run a few steps without mixed precision to see where the first non-finite number appears.",
                "Keep the layers that overflow in float32 or bfloat16.",
            ),
            check="After the fix skipped steps are rare and the scale settles.",
            confidence="high",
            figure=Figure("gradient", "inf"),
        )


def _spoilt(view: StepView) -> bool:
    if view.loss is not None and not np.isfinite(view.loss):
        return True
    rows = [rows for rows in (view.gradient, view.update, view.weight) if rows is not None]
    if rows:
        return any(row.any_bad for row in rows)
    return view.activation_gradient is not None and view.activation_gradient.any_bad
