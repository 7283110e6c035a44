"""Which classes of layers make no non-finite number of ordinary finite input."""

from __future__ import annotations

from typing import Final

_SAFE: Final = frozenset(
    [
        "AdaptiveAvgPool1d",
        "AdaptiveAvgPool2d",
        "AvgPool1d",
        "AvgPool2d",
        "BatchNorm1d",
        "BatchNorm2d",
        "BatchNorm3d",
        "Conv",
        "Conv1d",
        "Conv2d",
        "Conv3d",
        "Dense",
        "Dropout",
        "Dropout1d",
        "Dropout2d",
        "ELU",
        "Embed",
        "Embedding",
        "Flatten",
        "GELU",
        "GRU",
        "GroupNorm",
        "Hardswish",
        "Identity",
        "LSTM",
        "LayerNorm",
        "LeakyReLU",
        "Linear",
        "MaxPool1d",
        "MaxPool2d",
        "Mish",
        "MultiheadAttention",
        "PReLU",
        "RMSNorm",
        "RNN",
        "ReLU",
        "ReLU6",
        "SELU",
        "SiLU",
        "Sigmoid",
        "Softmax",
        "LogSoftmax",
        "Softplus",
        "Tanh",
        "Unflatten",
    ]
)


def suspect(class_name: str) -> bool:
    """Tells whether a layer of this class may fail at finite input: between two layers, the suspect one is named.

    One of unknown class, "", is not suspect: then nothing tells it from the others.
    """
    return class_name != "" and class_name not in _SAFE
