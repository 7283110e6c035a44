"""The plain record of any program."""

from __future__ import annotations

from tests.zoo.program import build
from tests.zoo.recipe import Recipe
from tests.zoo.trace import Trace


def record(recipe: Recipe) -> Trace:
    """Trains a recipe and returns its plain record."""
    program = build(recipe)
    if program.framework == "torch":
        from tests.zoo import torch_program, torch_trace

        assert isinstance(program, torch_program.TorchProgram)
        return torch_trace.trace_of(program)
    from tests.zoo import jax_program, jax_trace

    assert isinstance(program, jax_program.JaxProgram)
    return jax_trace.trace_of(program)
