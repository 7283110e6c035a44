"""The two measurements of a step: its gradients, and its parameters before and after. Each obeys the plan's flags."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax

from gradwatch_jax import flags
from gradwatch_jax.kernel import Array, Rows, reduce


def gradient_rows(gradients: Sequence[Array], plan: Any, *, always: bool, grouped: bool) -> Rows:
    """Returns the rows of gradients; ``always`` leaves out the question whether the plan wants them."""
    wanted = True if always else (plan & flags.GRADIENT) != 0
    return reduce(gradients, full=(plan & flags.HISTOGRAM) != 0, histogram=True, grouped=grouped, wanted=wanted)


def parameter_rows(
    old: Sequence[Array], new: Sequence[Array], plan: Any, *, signals: frozenset[str], grouped: bool
) -> tuple[Rows | None, Rows | None]:
    """Returns the rows of the updates, new minus old, and those of the new weights; None for a signal not asked for."""
    update = weight = None
    if "update" in signals:
        update = reduce(new, minus=old, full=True, grouped=grouped, wanted=(plan & flags.UPDATE) != 0)
    if "weight" in signals:
        weight = reduce(new, full=None, grouped=grouped, wanted=(plan & flags.WEIGHT) != 0)
    return update, weight


compiled_gradient_rows = functools.partial(jax.jit, static_argnames=("always", "grouped"))(gradient_rows)
"""The same for steps that are not compiled as a whole."""

compiled_parameter_rows = functools.partial(jax.jit, static_argnames=("signals", "grouped"))(parameter_rows)
"""The same for steps that are not compiled as a whole."""
