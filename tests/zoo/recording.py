"""The plain record of any program."""

from __future__ import annotations

from tests.zoo.program import build
from tests.zoo.recipe import Recipe
from tests.zoo.trace import Trace


def record(recipe: Recipe) -> Trace:
    """Trains a recipe and returns its plain record."""
    program = build(recipe)
    if program.framework == "torch":
        from tests.zoo.torch_program import TorchProgram
        from tests.zoo.torch_trace import trace_of as trace_of_torch

        assert isinstance(program, TorchProgram)
        return trace_of_torch(program)
    from tests.zoo.jax_program import JaxProgram
    from tests.zoo.jax_trace import trace_of as trace_of_jax

    assert isinstance(program, JaxProgram)
    return trace_of_jax(program)
