"""How many weights an output sums over, by torch's layers, held against outputs that are counted."""

from __future__ import annotations

import itertools
import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from gradwatch_torch.targets import parameters, site

sizes = st.integers(1, 5)


def fans(module: nn.Module) -> dict[str, int | None]:
    return {found.name: site("weight", found, "", "trained").fan_in for found in parameters({"": module})}


def weights_behind_an_output(layer: nn.Module, weight: torch.Tensor, inputs: torch.Tensor) -> float:
    """Counts, with every weight and input at 1, what an output in the middle sums: its value."""
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.fill_(float(parameter is weight))
        outputs: torch.Tensor = layer(inputs)
    middle: list[slice | int] = [size // 2 for size in outputs.shape[2:]]
    return float(outputs[(0, slice(None), *middle)].max())


@settings(max_examples=25)
@given(inputs=sizes, outputs=sizes, groups=sizes, kernel=st.sampled_from([(1,), (3,), (3, 1), (3, 3), (1, 3, 3)]))
def test_a_convolution_sums_over_its_group_and_kernel(
    inputs: int, outputs: int, groups: int, kernel: tuple[int, ...]
) -> None:
    """Of any groups, depthwise too, plain or transposed, fan-in is what a forward pass of ones sums."""
    plain = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[len(kernel) - 1]
    transposed = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)[len(kernel) - 1]
    for kind in (plain, transposed):
        layer = kind(inputs * groups, outputs * groups, kernel, groups=groups)  # type: ignore[arg-type]
        found = fans(layer)
        assert found["bias"] is None
        ones = torch.ones(1, inputs * groups, *(7 for _ in kernel))
        assert found["weight"] == inputs * math.prod(kernel) == weights_behind_an_output(layer, layer.weight, ones)
        assert found["weight"] * outputs * groups == layer.weight.numel()


@given(inputs=sizes, outputs=sizes)
def test_fan_in_times_outputs_is_the_size_of_a_matrix(inputs: int, outputs: int) -> None:
    """Linear, recurrent and attention layers, and a linear layer stored as GPT-2's, sum over their inputs."""
    layer = nn.Linear(inputs, outputs)
    assert fans(layer) == {"weight": inputs, "bias": None}
    assert weights_behind_an_output(layer, layer.weight, torch.ones(1, inputs)) == inputs
    assert fans(Conv1D(inputs, outputs)) == {"weight": inputs}
    for gates, kind in ((1, nn.RNN), (4, nn.LSTM), (3, nn.GRU)):
        recurrent = kind(inputs, outputs)
        assert recurrent.weight_ih_l0.shape == (gates * outputs, inputs)
        found = fans(recurrent)
        assert (found["weight_ih_l0"], found["weight_hh_l0"], found["bias_ih_l0"]) == (inputs, outputs, None)
    assert fans(nn.GRUCell(inputs, outputs))["weight_ih"] == inputs
    assert fans(nn.LSTM(inputs, 6, proj_size=2))["weight_hr_l0"] == 6
    assert fans(nn.MultiheadAttention(inputs, 1))["in_proj_weight"] == inputs


def test_rows_that_are_looked_up_sum_nothing() -> None:
    """Each output of a table is one of its elements, however many rows and features it has."""
    for rows, features in itertools.product((1, 7), (1, 5)):
        assert fans(nn.Embedding(rows, features)) == {"weight": 1}
        assert fans(nn.EmbeddingBag(rows, features)) == {"weight": 1}


def test_what_is_not_known_stays_unknown() -> None:
    """Vectors, empty weights and parameters of other layers have no fan-in."""
    assert fans(Conv1D(0, 4)) == {"weight": None}
    assert fans(nn.LayerNorm((3, 4))) == {"weight": None, "bias": None}
    own = nn.Module()
    own.weight = nn.Parameter(torch.zeros(3, 4))
    assert fans(own) == {"weight": None}


class Conv1D(nn.Module):
    """The linear layer of GPT-2, inputs first."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(inputs, outputs))
