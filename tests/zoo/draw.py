"""A draw: what the generator decides about one case, with a text by which it can be made again."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from typing import Any, Final

import numpy as np

from tests.zoo.families import FAMILIES, LOOPS, RATES
from tests.zoo.faults import FAULTS
from tests.zoo.recipe import Recipe
from tests.zoo.traps import needs_torch, trapped

JAX_SHARE: Final = 0.35
"""Share of JAX in the faults that both frameworks can have; most of such a case's time goes into compiling."""
JAX_SHARE_HEALTHY: Final = 0.6
"""The same of the healthy families that both frameworks have, which are the fewer."""

OWN_SHARE: Final = 0.5
"""Share of the healthy cases whose trap is none of those that every family has."""


@dataclass(frozen=True, slots=True)
class Draw:
    """One case. ``str(draw)`` is its id, and ``Draw.parse`` makes it again."""

    framework: str
    family: str
    fault: str
    trap: str
    data: str
    depth: int
    width: int
    activation: str
    norm: str
    optimizer: str
    rate: float
    seed: int

    def __str__(self) -> str:
        return "/".join(str(value) if value != "" else "-" for value in astuple(self))

    @classmethod
    def parse(cls, text: str) -> Draw:
        """Makes a draw from its id.

        Raises:
            ValueError: for a text that is no id of a draw.
        """
        parts = text.split("/")
        if len(parts) != len(fields(cls)):
            raise ValueError(f"{text!r} has {len(parts)} parts; the id of a draw has {len(fields(cls))}.")
        values = {field.name: _value(str(field.type), part) for field, part in zip(fields(cls), parts, strict=True)}
        return cls(**values)

    @property
    def base(self) -> Recipe:
        """The recipe without its plant."""
        taken = (
            "framework",
            "family",
            "trap",
            "data",
            "depth",
            "width",
            "activation",
            "norm",
            "optimizer",
            "rate",
            "seed",
        )
        values = {name: getattr(self, name) for name in taken}
        init = {"tanh": "glorot", "linear": "default"}.get(self.activation, "he")
        plain = Recipe(
            **values, init="default" if self.family in _DEFAULTS else init, steps=FAMILIES[self.family].steps
        )
        return trapped(plain)


_DEFAULTS: Final = ("transformer", "vae", "gan", "lora", "embedding", "rnn", "gru", "lstm")


def _value(kind: str, part: str) -> Any:
    if kind == "str":
        return "" if part == "-" else part
    return int(part) if kind == "int" else float(part)


def generator(*parts: object) -> np.random.Generator:
    """Returns a generator of random numbers for what is told apart by these parts."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return np.random.default_rng(np.frombuffer(digest, np.uint32))


def faulty(kind: str, random: np.random.Generator, turn: int) -> Draw:
    """Draws a case of a kind: the fault whose turn it is, a family that can have it, and the rest."""
    names = sorted(name for name, fault in FAULTS.items() if fault.kind == kind)
    name = names[turn % len(names)]
    fault = FAULTS[name]
    framework = _framework(random, fault.frameworks, JAX_SHARE)
    families = [family for family in fault.families if framework in FAMILIES[family].frameworks]
    framework, families = (framework, families) if families else ("torch", list(fault.families))
    return _drawn(random, framework, _choice(random, families), name, "")


def healthy(random: np.random.Generator, turn: int) -> Draw:
    """Draws a healthy case: the family whose turn it is, and one of its traps or none."""
    family = list(FAMILIES)[turn % len(FAMILIES)]
    framework = _framework(random, FAMILIES[family].frameworks, JAX_SHARE_HEALTHY)
    traps = [trap for trap in FAMILIES[family].traps if framework == "torch" or not needs_torch(trap)]
    own = [trap for trap in traps if trap not in LOOPS]
    special = own and random.random() < OWN_SHARE
    return _drawn(random, framework, family, "", _choice(random, own if special else traps))


def _drawn(random: np.random.Generator, framework: str, name: str, fault: str, trap: str) -> Draw:
    family = FAMILIES[name]
    allowed = FAULTS[fault].optimizers if fault else ()
    optimizers = [o for o in family.optimizers if o in allowed or not allowed] or list(allowed)
    # One that asks for the loss several times a step has no twin to compare with, and is not in optax in this form.
    plain = [o for o in optimizers if o != "lbfgs" or not (fault or framework != "torch")]
    optimizer = _choice(random, plain)
    norms = [norm for norm in family.norms if framework == "torch" or norm != "batch"]
    low, high = RATES[optimizer]
    return Draw(
        framework=framework,
        family=name,
        fault=fault,
        trap=trap,
        data=_choice(random, family.data),
        depth=int(random.integers(family.depths[0], family.depths[1] + 1)),
        width=int(random.choice(family.widths)),
        activation=_choice(random, family.activations),
        norm=_choice(random, norms),
        optimizer=optimizer,
        rate=float(f"{family.pace * low * (high / low) ** random.random():.3g}"),
        seed=int(random.integers(0, 10**6)),
    )


def _framework(random: np.random.Generator, allowed: tuple[str, ...], share: float) -> str:
    others = [name for name in allowed if name != "torch"]
    return _choice(random, others) if others and random.random() < share else "torch"


def _choice(random: np.random.Generator, options: Sequence[str]) -> str:
    return options[int(random.integers(0, len(options)))]
