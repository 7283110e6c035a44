"""JAX for gradwatch: statistics of every gradient as extra outputs of the train step's own program."""

from gradwatch_jax.adapter import JaxAdapter
from gradwatch_jax.gradients import value_and_grad

__all__ = ["JaxAdapter", "value_and_grad"]
