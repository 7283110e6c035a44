"""How many weights an output of a torch layer sums over."""

from __future__ import annotations

from typing import Final

from torch import Tensor, nn

_OUTPUTS_FIRST: Final = (
    nn.Linear,
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.RNNBase,
    nn.RNNCellBase,
    nn.MultiheadAttention,
)
_TRANSPOSED: Final = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_TABLES: Final = (nn.Embedding, nn.EmbeddingBag)
_INPUTS_FIRST: Final = "Conv1D"
"""The linear layer of GPT-2 in Hugging Face's transformers, known by its name."""


def fan_in(weight: Tensor, module: nn.Module) -> int | None:
    """Returns the fan-in of a weight, see ``gradwatch.record.Site``; None for a layer or a weight it does not know.

    Shapes, k the sizes of the kernel and g the groups: [out, in] of linear and recurrent layers; [out, in / g, *k] of
    convolutions, so a depthwise one sums over its kernel alone; [in, out / g, *k] of transposed convolutions, with
    groups of in / g inputs and out / g outputs; [rows, features] of tables, of which each output is one element.
    """
    if weight.ndim < 2 or not weight.numel():
        return None
    if isinstance(module, _TABLES):
        return 1
    outputs = _outputs(weight, module)
    return None if outputs is None else weight.numel() // outputs


def _outputs(weight: Tensor, module: nn.Module) -> int | None:
    if isinstance(module, _TRANSPOSED):
        return weight.shape[1] * module.groups
    if type(module).__name__ == _INPUTS_FIRST:
        return weight.shape[-1]
    return weight.shape[0] if isinstance(module, _OUTPUTS_FIRST) else None
