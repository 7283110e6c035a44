"""Mistakes of the training loop: gradients that are kept, modes, batches of one, raw inputs and targets."""

from __future__ import annotations

from typing import Final

import numpy as np

from gradwatch.findings import Figure, Finding
from gradwatch.rules.batch_norms import SAMPLES, BatchNorms
from gradwatch.rules.history import History
from gradwatch.rules.kept_gradients import KeptGradients
from gradwatch.rules.persistence import Persistence
from gradwatch.rules.rule import called, number, too_few
from gradwatch.rules.scales import FAR, RAW, Scales
from gradwatch.rules.view import StepView
from gradwatch.statistics import Float

LEARNS: Final = 0.1
"""Share of its start by which a loss has to fall for large inputs to be harmless."""


class Plumbing:
    """Finds mistakes of the loop that signals give away.

    Formula: gradients that add up because nothing clears them (``KeptGradients``); batch normalisation in evaluation
    mode or over single examples (``BatchNorms``); inputs of an rms above ``scales.RAW``, targets of more than
    ``scales.FAR`` times the outputs (``Scales``); steps of which some apply the very gradients of
    the step before, and others do not. All but the
    inputs are identities between captured numbers, which hold or do not.
    Severity: warning; notice for a repeated step, and for inputs while the loss falls by ``LEARNS``. Beside a finding
    of another kind it is that finding's cause, and a notice.
    Source: mistakes that silently train on (Jiang et al., TrainCheck, OSDI 2025), and questions of UMLAUT (Schoop et
    al. 2021) on inputs.
    Advice: what to change in the loop.
    """

    kind = "plumbing"

    def __init__(self, history: History) -> None:
        self.alarmed = False
        self._history = history
        self._kept = KeptGradients()
        self._norms = BatchNorms()
        self._scales = Scales()
        self._repeats = Persistence(3, 12)
        self._repeated_before = True
        self._before: tuple[Float, Float, Float] | None = None

    def observe(self, view: StepView) -> None:
        """Takes the next step."""
        self._kept.observe(view)
        self._norms.observe(view)
        self._scales.observe(view)
        self._see_repeat(view)

    def findings(self) -> list[Finding]:
        """Returns one finding for each mistake."""
        found = [*self._kept_gradients(), *self._batch_norm(), *self._scale()]
        if self._repeats.ever and not found:
            found.append(self._repeated())
        return found

    def not_applied(self) -> str | None:
        """Needs gradients."""
        return too_few("gradient", self._history.samples["gradient"], SAMPLES)

    def _see_repeat(self, view: StepView) -> None:
        rows = view.gradient
        if rows is None or view.skipped or view.span > 1:
            self._before = None
            return
        before, here = self._before, (rows.l2, rows.sum, rows.absmax)
        self._before = here
        if before is None or len(before[0]) != len(here[0]) or view.update is None or self._history.still:
            return
        same = all(np.array_equal(one, other, equal_nan=True) for one, other in zip(before, here, strict=True))
        self._repeats.observe(view.step, same and not self._repeated_before and bool((rows.absmax > 0).any()))
        self._repeated_before = same

    def _kept_gradients(self) -> list[Finding]:
        by_sums = self._kept.holds.ever
        if not by_sums and not self._kept.by_updates():
            return []
        history = self._history
        evidence = (
            "The gradient of each bias is that of the step before plus what the backward pass of this step adds."
            if by_sums
            else "Each update changes by the new gradient alone: updates hold the sum of all gradients before."
        )
        return [
            self._finding(
                "Gradients are never cleared, so each step applies the sum of all before",
                (
                    evidence,
                    f"The gradient norm is {number(history.norm.now())}, at the start it was "
                    f"{number(history.norm.start())}.",
                ),
                "The loop does not set the gradients to zero between steps.",
                (
                    "Call zero_grad before each backward pass, or after each step.",
                    "If gradients of several batches are to be summed, clear them after the step that applies the sum.",
                ),
                "After the fix the gradient of a step does not depend on the step before.",
            )
        ]

    def _batch_norm(self) -> list[Finding]:
        norms, layout = self._norms, self._history.layout
        names = layout.names(norms.layers)
        if norms.evaluates():
            return [
                self._finding(
                    "Batch normalisation normalises nothing: the model is in evaluation mode",
                    (
                        f"On all of the first {SAMPLES} samples the outputs of the {len(names)} layers are as large "
                        "as their inputs; with statistics of the batch they would have the rms of their weights.",
                    ),
                    "The model was left in evaluation mode, with the statistics that it was initialised with.",
                    ("Call model.train() before the loop, and again after each evaluation.",),
                    f"After the fix the output of {called(names[0])} has an rms of about 1 at the start.",
                    layers=names,
                )
            ]
        if not norms.single():
            return []
        return [
            self._finding(
                "Batch normalisation runs over batches of a single example",
                (
                    f"The last layer has as many outputs as units on {norms.alone} of {norms.samples} samples: one "
                    "example a batch.",
                ),
                "Statistics of one example are noise, and take away what tells it from others.",
                (
                    "Use larger batches, of 8 examples and more.",
                    "Use group or layer normalisation, which need no batch.",
                ),
                "After the fix a batch has more than one example.",
                layers=names,
            )
        ]

    def _scale(self) -> list[Finding]:
        scales, layout = self._scales, self._history.layout
        found = []
        if scales.raw_inputs():
            name = layout.layers[int(layout.chain[0])]
            change = self._history.loss_change()
            found.append(
                self._finding(
                    f"The inputs of {called(name)} are {number(scales.inputs)} in size, not about 1",
                    (f"Their rms is {number(scales.inputs)}; {RAW:g} is the limit, normalised inputs have 1.",),
                    f"The inputs were not normalised, so the gradient of {called(name)} is as many times too large.",
                    ("Subtract the mean of the inputs and divide them by their spread, computed on the training set.",),
                    "After the fix the rms of the inputs is about 1.",
                    layer=name,
                    layers=(name,),
                    warns=change is not None and change > -LEARNS,
                )
            )
        if scales.far_targets():
            found.append(
                self._finding(
                    "The targets are far larger than the outputs can become",
                    (
                        f"The error is {number(scales.error)} (rms), the output {number(scales.output)}; {FAR:g} times "
                        f"is the limit. The first error was {number(scales.first_error)}.",
                        "The gradient at the output and the loss agree that this is a squared error.",
                    ),
                    "The targets were not normalised.",
                    ("Subtract the mean of the targets and divide them by their spread; undo both in predictions.",),
                    "After the fix the error starts at about 1.",
                )
            )
        return found

    def _repeated(self) -> Finding:
        return self._finding(
            "Steps apply the very gradients of the step before",
            (f"All gradients equal those of the step before in every digit, from step {self._repeats.onset} on.",),
            "The optimizer's step is called more often than the backward pass.",
            ("Call the step once after each backward pass.",),
            "After the fix successive gradients differ.",
            warns=False,
        )

    def _finding(
        self,
        title: str,
        evidence: tuple[str, ...],
        cause: str,
        advice: tuple[str, ...],
        check: str,
        *,
        layer: str | None = None,
        layers: tuple[str, ...] = (),
        warns: bool = True,
    ) -> Finding:
        return Finding(
            kind=self.kind,
            severity="warning" if warns else "notice",
            title=title,
            layer=layer,
            layers=layers,
            first_step=self._history.first_step,
            last_step=self._history.last_step,
            evidence=evidence,
            cause=cause,
            advice=advice,
            check=check,
            figure=Figure("gradient", "l2") if layer is None else Figure("activation", "rms", "depth"),
        )
