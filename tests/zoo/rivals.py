"""The rule sets of six rivals, each a small function over the plain record.

The thresholds are those of the tools' sources and documentation; a name of theirs is translated to one of the kinds.
A rule that needs what no training loop gives, such as validation data, is left out. None of them names a step; where a
rule is about a step, that step is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

import numpy as np

from tests.zoo.tools import Claim
from tests.zoo.trace import Row, Trace, layer_of

Rival = Callable[[Trace], list[Claim]]
EVERY: Final = 10
"""AutoTrainer and SageMaker Debugger look at intervals; here at every tenth step."""


def autotrainer(trace: Trace) -> list[Claim]:
    """AutoTrainer (ICSE 2021): ratios of first to last kernel, and only when the accuracy is below 0.7 or unknown.

    vanish: ratio < 1e-3 and first < 1e-4; explode: ratio > 70; dying ReLU: >= 70 % of all entries 0; loss: NaN or
    >= 1e3; oscillating: the accuracy swings by 0.03 in a fifth of the intervals.
    """
    poor = not np.mean(trace.accuracies[-5:]) >= 0.7
    return autotrainer_ungated(trace) if poor else []


def autotrainer_ungated(trace: Trace) -> list[Claim]:
    """The same rules without the gate of the accuracy."""
    claims, kernels = [], _kernels(trace)
    for t in range(0, trace.steps, EVERY):
        first, last = _norm(trace, kernels[0], t), _norm(trace, kernels[-1], t)
        ratio = first / last if last > 0 else 0.0
        if ratio < 1e-3 and first < 1e-4:
            claims.append(Claim("vanishing", True, (layer_of(kernels[0]),), t))
        if ratio > 70:
            claims.append(Claim("exploding", True, (layer_of(kernels[0]),), t))
        if _zero_share(trace, t) >= 0.7:
            claims.append(Claim("dead-units", True, (), t))
    claims += [Claim("nonfinite", True, (), t) for t, x in enumerate(trace.losses) if not abs(x) < 1e3][:1]
    return _once(claims + _swings(trace))


def sagemaker(trace: Trace) -> list[Claim]:
    """SageMaker Debugger's built-in rules on gradients, updates and outputs (``smdebug_rules``)."""
    claims = []
    for t in range(0, trace.steps, EVERY):
        for name, row in _gradients(trace, t):
            claims += _if(row.mean_abs < 1e-7, "vanishing", name, t)
            claims += _if(row.nonfinite > 0, "nonfinite", name, t)
        for name in _kernels(trace):
            step, weight = trace.updates[name][t], trace.weights[name][t]
            ratio = step.mean_abs / (weight.mean_abs + 1e-9)
            claims += _if(ratio > 10, "update-too-large", name, t) + _if(ratio < 1e-8, "update-too-small", name, t)
        for layer, rows in trace.outputs.items():
            claims += _if(len(rows) > t and rows[t].nonfinite > 0, "nonfinite", f"{layer}.", t)
    for layer, units in trace.units.items():
        active = np.mean([row.active for row in units], axis=0) if units else np.ones(1)
        dead = trace.activation == "relu" and np.mean(active < 0.01) > 0.5
        claims += _if(bool(dead), "dead-units", f"{layer}.", 0)
    return _once(claims + _unchanged(trace))


def deep_diagnosis(trace: Trace) -> list[Claim]:
    """DeepDiagnosis (ICSE 2022): its symptoms that need no validation data; 0 counts as a numerical error."""
    claims = []
    for t in range(trace.steps):
        claims += _if(not np.isfinite(trace.losses[t]), "nonfinite", "", t)
        for name, row in _gradients(trace, t):
            claims += _if(row.mean_abs < 1e-7, "vanishing", name, t) + _if(row.nonfinite > 0, "nonfinite", name, t)
        for layer, units in trace.units.items():
            low = len(units) > t and trace.activation == "relu" and units[t].low >= 0.7
            claims += _if(low, "dead-units", f"{layer}.", t)
        for layer, shares in trace.pre.items():
            bounded = trace.activation in ("tanh", "sigmoid") and layer in trace.units
            claims += _if(bounded and len(shares) > t and shares[t] > 0.5, "saturated", f"{layer}.", t)
        for layer, rows in trace.outputs.items():
            wide = len(rows) > t and rows[t].std ** 2 > 10
            claims += _if(bool(wide), "exploding", f"{layer}.", t)
        for name in _kernels(trace):
            ratio = trace.updates[name][t].l2 / max(trace.weights[name][t].l2, 1e-12)
            claims += _if(ratio > 1e-1, "update-too-large", name, t) + _if(ratio < 1e-5, "update-too-small", name, t)
    return _once(claims)


def blog(trace: Trace) -> list[Claim]:
    """The rule of tutorials: the norm of a parameter's gradient below 1e-6, above 1e3, or not finite."""
    claims = []
    for t in range(trace.steps):
        for name, row in _gradients(trace, t):
            claims += _if(row.l2 < 1e-6, "vanishing", name, t) + _if(row.l2 > 1e3, "exploding", name, t)
            claims += _if(row.nonfinite > 0, "nonfinite", name, t)
    return _once(claims)


def torchmortem(trace: Trace) -> list[Claim]:
    """torchmortem: ratios over the second half of the run, updates outside [1e-5, 1e-1], half of the units."""
    half, kernels = trace.steps // 2, _kernels(trace)
    claims = _over_depth(trace, half)
    for name in kernels:
        rows = [row for row in trace.gradients.get(name, []) if row is not None]
        norms = np.asarray([row.l2 for row in rows])
        claims += _if(bool(norms.size) and bool(np.nanmax(norms) > 1e3), "exploding", name, 0)
        claims += _if(bool(norms.size) and bool(np.mean(norms < 1e-8) >= 0.3), "vanishing", name, 0)
        pairs = zip(trace.updates[name], trace.weights[name], strict=True)
        ratio = float(np.median([step.mean_abs / max(weight.mean_abs, 1e-12) for step, weight in pairs]))
        claims += _if(ratio > 1e-1, "update-too-large", name, 0) + _if(ratio < 1e-5, "update-too-small", name, 0)
    for layer, units in trace.units.items():
        dead = float(np.mean([np.mean(~row.active) > 0.5 for row in units])) if units else 0.0
        full = float(np.mean([row.saturated > 0.5 for row in units])) if units else 0.0
        claims += _if(dead > 0.5, "dead-units", f"{layer}.", 0) + _if(full > 0.5, "saturated", f"{layer}.", 0)
    losses = np.asarray(trace.losses)
    jump = [t for t in range(5, len(losses)) if losses[t] > 2 * np.mean(losses[max(0, t - 20) : t])]
    return _once(claims + [Claim("spike", True, (), t) for t in jump[:1]])


def torchlens(trace: Trace) -> list[Claim]:
    """TorchLens's ``gradient_flow_audit`` by the norms of parameters, at the end of the run."""
    claims, t = [], trace.steps - 1
    for name, row in _gradients(trace, t):
        claims += _if(0 < row.l2 < 1e-7, "vanishing", name, t) + _if(row.l2 > 1e4, "exploding", name, t)
        claims += _if(row.nonfinite > 0, "nonfinite", name, t) + _if(row.l2 == 0, "disconnected", name, t)
    return _once(claims)


RIVALS: Final[dict[str, Rival]] = {
    "AutoTrainer": autotrainer,
    "AutoTrainer, no gate": autotrainer_ungated,
    "SageMaker Debugger": sagemaker,
    "DeepDiagnosis": deep_diagnosis,
    "blog rule": blog,
    "torchmortem": torchmortem,
    "TorchLens": torchlens,
}


def _over_depth(trace: Trace, half: int) -> list[Claim]:
    """Mean norm at the last layer over that at the first, from 100 on."""
    known = [layer for layer in trace.chain if len(trace.deltas.get(layer, ())) > half]
    if len(known) < 2:
        return []
    first, last = (float(np.nanmean([row.l2 for row in trace.deltas[x][half:]])) for x in (known[0], known[-1]))
    return _if(first == 0 or last / first >= 100, "vanishing", f"{known[0]}.", half)


def _swings(trace: Trace) -> list[Claim]:
    """Oscillation: the accuracy swings by 0.03 and more in a fifth of the intervals."""
    means = np.asarray([np.mean(trace.accuracies[t : t + 5]) for t in range(0, trace.steps - 4, 5)])
    steps = np.diff(means)
    turns = (np.sign(steps[1:]) != np.sign(steps[:-1])) & (np.abs(steps[1:]) >= 0.03) & (np.abs(steps[:-1]) >= 0.03)
    return _if(turns.size > 0 and bool(np.mean(turns) >= 0.2), "oscillating", "", 0)


def _unchanged(trace: Trace) -> list[Claim]:
    """UnchangedTensor: three saved steps with the same values to rtol 1e-5, atol 1e-8."""
    claims = []
    for name in _kernels(trace):
        steps, weights = trace.updates[name], trace.weights[name]
        still = [step.absmax <= 1e-8 + 1e-5 * weight.mean_abs for step, weight in zip(steps, weights, strict=True)]
        runs = [t for t in range(2, len(still)) if all(still[t - 2 : t + 1])]
        claims += [Claim("frozen", True, (layer_of(name),), t - 2) for t in runs[:1]]
    return claims


def _kernels(trace: Trace) -> list[str]:
    """The parameters that are no biases and no single numbers, in the order of the network."""
    known = [name for layer in trace.chain for name in trace.of_layer(layer)]
    return [name for name in known if "bias" not in name and trace.weights[name][0].n > 1]


def _gradients(trace: Trace, t: int) -> Iterator[tuple[str, Row]]:
    for name in _kernels(trace):
        rows = trace.gradients.get(name, [])
        row = rows[t] if len(rows) > t else None
        if row is not None:
            yield name, row


def _norm(trace: Trace, name: str, t: int) -> float:
    row = trace.gradients[name][t] if name in trace.gradients else None
    return 0.0 if row is None else row.l2


def _zero_share(trace: Trace, t: int) -> float:
    rows = [row for _, row in _gradients(trace, t)]
    return sum(row.zeros * row.n for row in rows) / max(sum(row.n for row in rows), 1)


def _if(true: bool, kind: str, name: str, step: int) -> list[Claim]:
    return [Claim(kind, True, (layer_of(name),) if name else (), step)] if true else []


def _once(claims: list[Claim]) -> list[Claim]:
    """Joins the claims of a kind: its layers in the order in which they were named, and the first step."""
    found: dict[str, Claim] = {}
    for claim in sorted(claims, key=lambda claim: claim.step or 0):
        known = found.get(claim.kind)
        layers = (*known.layers, *claim.layers) if known else claim.layers
        found[claim.kind] = Claim(claim.kind, True, tuple(dict.fromkeys(layers)), known.step if known else claim.step)
    return list(found.values())
