"""How far watching moves what a network learns. As a program: the networks given, with batches spread over all devices.

Prints one JSON object: for each network and type what ``moved`` returns. Run in a process of its own, because the
number of devices is fixed at start.
"""

from __future__ import annotations

import functools
import json
import sys
from typing import Any, Final

import jax
import numpy as np

from tests.jax.capturing import capture
from tests.jax.networks import DTYPES, Training
from tests.jax.programs import same

STEPS: Final = 18
"""Steps 0 to 15 of the default schedule capture everything there is, and 16 and 17 less."""

CALM: Final = ("gradient", "update", "weight", "activation")
"""All signals but the one whose reading takes part in the backward pass."""

ROUNDED: Final = {("cnn", "float32"): 1e-6, ("transformer", "float32"): 1e-6, ("transformer", "bfloat16"): 0.05}
"""Networks in which reading the gradients at activations changes the rounding of the backward pass, with the largest
difference of a parameter that is let pass after ``STEPS`` steps of AdamW at 0.01: a few units of the last place.

There are two reasons. A gradient at an activation is written out, so the compiler does not compute it inside a larger
loop. And at the input of a layer norm, which uses it several times beside a residual connection, the norm's own shares
are added up first and the residual's last."""


def moved(network: str, dtype: str, mode: str) -> dict[str, Any]:
    """Trains bare and watched.

    Returns:
        ``all``: the largest difference of a parameter when all signals are captured; 0.0 means that every bit is
        the same. ``calm``: the same for the signals ``CALM``, asked only where ``all`` is not 0.0, and of plain jit
        alone, because it compiles another program. ``signals``: those that were captured.
    """
    training = Training(network, dtype, mode)
    bare = _bare(network, dtype, "jit" if mode == "donated" else mode)
    found, signals = _watched(training, bare)
    calm = _watched(training, bare, signals=CALM)[0] if found and mode == "jit" else 0.0
    return {"all": found, "calm": calm, "signals": signals}


@functools.cache
def _bare(network: str, dtype: str, mode: str) -> Any:
    training = Training(network, dtype, mode)
    return training.run(training.step, STEPS)


def _watched(training: Training, bare: Any, **options: Any) -> tuple[float, list[str]]:
    with capture(training.step, **options) as captured:
        params = training.run(captured.step, STEPS)
    assert captured.notes == []
    assert [record.step for record in captured.records] == list(range(STEPS))
    signals = sorted({block.signal for record in captured.records for block in record.blocks})
    return difference(params, bare), signals


def difference(one: Any, other: Any) -> float:
    """Returns the largest difference between two trees, 0.0 only where every bit is the same."""
    if same(one, other):
        return 0.0
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    sizes = [np.max(np.abs(np.asarray(a, np.float64) - np.asarray(b, np.float64))) for a, b in pairs]
    return max(float(np.max(sizes)), sys.float_info.min)


if __name__ == "__main__":
    print(json.dumps({f"{n} {dtype}": moved(n, dtype, "devices") for n in sys.argv[1:] for dtype in DTYPES}))
