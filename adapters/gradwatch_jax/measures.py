"""The two measurements of a step: its gradients, and its parameters before and after. Each obeys the plan's flags."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp

from gradwatch_jax import flags
from gradwatch_jax.kernel import Array, Rows, only_if, reduce


def gradient_rows(gradients: Sequence[Array], plan: Any, *, always: bool, grouped: bool) -> Rows:
    """Returns the rows of gradients; ``always`` leaves out the question whether the plan wants them."""

    def compute() -> Rows:
        return reduce(gradients, full=(plan & flags.HISTOGRAM) != 0, histogram=True, grouped=grouped)

    return compute() if always else cast("Rows", only_if((plan & flags.GRADIENT) != 0, compute))


def parameter_rows(
    old: Sequence[Array], new: Sequence[Array], plan: Any, *, signals: frozenset[str], grouped: bool
) -> tuple[Rows | None, Rows | None]:
    """Returns the rows of the updates, new minus old, and those of the new weights; None for a signal not asked for."""

    def updates() -> Rows:
        return reduce([_wide(b) - _wide(a) for a, b in zip(old, new, strict=True)], full=True, grouped=grouped)

    def weights() -> Rows:
        return reduce(new, full=None, grouped=grouped)

    update = only_if((plan & flags.UPDATE) != 0, updates) if "update" in signals else None
    weight = only_if((plan & flags.WEIGHT) != 0, weights) if "weight" in signals else None
    return update, weight


compiled_gradient_rows = functools.partial(jax.jit, static_argnames=("always", "grouped"))(gradient_rows)
"""The same for steps that are not compiled as a whole."""

compiled_parameter_rows = functools.partial(jax.jit, static_argnames=("signals", "grouped"))(parameter_rows)
"""The same for steps that are not compiled as a whole."""


def _wide(x: Array) -> Array:
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))
