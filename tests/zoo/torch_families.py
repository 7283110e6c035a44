"""Which torch network a family is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from tests.zoo.recipe import Recipe
from tests.zoo.torch_chains import Chain, Convolutional, Residual
from tests.zoo.torch_composites import Adapted, Adversarial, Bag, Experts, Multitask, Policy, Tied, Variational
from tests.zoo.torch_network import Network
from tests.zoo.torch_sequences import Recurrent, Transformer

NETWORKS: Final[dict[str, Callable[[Recipe], Network]]] = {
    "linear": Chain,
    "logistic": Chain,
    "mlp": Chain,
    "plain": Chain,
    "cnn": Convolutional,
    "resnet": Residual,
    "rnn": Recurrent,
    "gru": Recurrent,
    "lstm": Recurrent,
    "transformer": Transformer,
    "vae": Variational,
    "gan": Adversarial,
    "policy": Policy,
    "moe": Experts,
    "lora": Adapted,
    "embedding": Bag,
    "tied": Tied,
    "multitask": Multitask,
}
