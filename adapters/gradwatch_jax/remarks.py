"""What could not be seen, one sentence each, with what to do about it."""

from __future__ import annotations

from typing import Final

PER_EXAMPLE: Final = (
    "gradients are taken per example (vmap of grad) and were not recorded, because reading them would change the "
    "training; take the gradient of the mean loss to have it recorded"
)
MANUAL: Final = (
    "gradients are taken inside shard_map or pmap and were not recorded, because nothing else can leave it; take them "
    "in a jit over sharded arrays to have them recorded"
)
UNKNOWN_LENGTH: Final = (
    "gradients are taken in a loop whose length is not known when it is compiled; of each call only the last one was "
    "recorded, as one step"
)
NO_GRADIENT: Final = (
    "the step takes no gradient with jax.grad or jax.value_and_grad, so none was recorded; decorate the function that "
    "takes it"
)
NOT_FED_BACK: Final = (
    "no update and no weight was recorded, because what the step returns does not go into the next call as its "
    "parameters"
)
OUTER_TRANSFORMATION: Final = (
    "a watched step was called inside jax.jit, grad or vmap; put @gradwatch.watch above @jax.jit, so that it is the "
    "outermost decorator."
)
COMPILED: Final = (
    "cannot watch a step that is compiled already ({kind}); give @gradwatch.watch the function that jax.jit returns, "
    "before lower() and compile()."
)
