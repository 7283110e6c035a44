"""The learning rate of a step, where the optimizer's state holds it."""

from __future__ import annotations

from typing import Any, Final

import jax.numpy as jnp

from gradwatch_jax.names import Path
from gradwatch_jax.pairing import Leaves

_HOLDER: Final = "hyperparams"
_RATE: Final = "learning_rate"


def learning_rate(before: Leaves, after: Leaves) -> Any:
    """Returns the largest rate that ``optax.inject_hyperparams`` keeps in a state, a float32 scalar, or None.

    The state that leaves a step holds the rate that it used, and so does one that stays in place.

    Args:
        before: the arrays of ``(args, kwargs)`` when the step began.
        after: the arrays of ``((args, kwargs), result)`` when it ended.
    """
    entered = any(_is_rate(path) for path in before)
    returned = [leaf for path, leaf in after.items() if _is_rate(path) and path[0].idx == 1]
    rates = returned or [leaf for path, leaf in after.items() if _is_rate(path)]
    scalars = [rate for rate in rates if rate.shape == () and jnp.issubdtype(rate.dtype, jnp.floating)]
    if not entered or not scalars:
        return None
    return jnp.max(jnp.stack([jnp.asarray(rate, jnp.float32) for rate in scalars]))


def _is_rate(path: Path) -> bool:
    names = [str(getattr(key, "key", getattr(key, "name", key))) for key in path]
    return _HOLDER in names and _RATE in names[names.index(_HOLDER) :]
