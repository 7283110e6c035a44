"""What is compared with bare training: gradwatch's settings, and the rivals."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from tests.bench.networks import Network

FIRST: Final = 128
"""Steps before the steady state."""

WARM_UP: Final = 8


@dataclass(frozen=True, slots=True)
class Row:
    """One way of training a network.

    Attributes:
        key: as on the command line.
        label: as in the table.
        watch: options of ``gradwatch.watch``, or None when gradwatch is not there.
        rival: key into ``torch_rivals.RIVALS`` or ``jax_rivals.TAPS``, or "".
        framework: the only one that it exists in, or "" for both.
        period: steps after which its cost repeats.
        span: which of the network's numbers of steps it is timed over: "steady", "sampled" or "short".
        phased: whether its first ``FIRST`` steps differ from the rest.
        module: what must be importable, or "".
        install: how to get it.
    """

    key: str
    label: str
    watch: Mapping[str, Any] | None = None
    rival: str = ""
    framework: str = ""
    period: int = 1
    span: str = "short"
    phased: bool = False
    module: str = ""
    install: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def installed(self) -> bool:
        """Whether what it needs can be imported."""
        return not self.module or importlib.util.find_spec(self.module) is not None

    def window(self, network: Network, steady: int | None = None) -> tuple[int, int]:
        """Returns how many steps come first, and how many then are the steady state: whole periods where possible."""
        wanted: int = getattr(network, self.span)
        wanted = wanted if steady is None else min(wanted, steady)
        whole = -(-wanted // self.period) * self.period
        affordable = whole <= 4 * wanted or (steady is None and network.short >= 100)
        return (FIRST if self.phased else WARM_UP), (whole if affordable else wanted)


def _ours(key: str, label: str, period: int, span: str = "sampled", **options: Any) -> Row:
    return Row(key, label, options, period=period, span=span)


def _torch(key: str, label: str, period: int = 1, module: str = "", install: str = "", **options: Any) -> Row:
    rival = key.split("/", maxsplit=1)[0]
    return Row(key, label, None, rival, "torch", period, module=module, install=install, options=options)


def _jax(key: str, label: str) -> Row:
    return Row(key, label, None, key, "jax")


BARE: Final = Row("bare", "bare", span="steady")
NOISE: Final = Row("noise", "bare again: the noise", span="steady")
ROWS: Final = {
    row.key: row
    for row in (
        BARE,
        Row("default", "gradwatch, default schedule", {}, period=64, span="steady", phased=True),
        _ours("every-step", "gradwatch, every signal every step", 1, "short", every=1),
        _ours("every-10", "gradwatch, every=10", 10, every=10),
        _ours("every-10-gradient", 'gradwatch, every=10, signals=["gradient"]', 10, every=10, signals=["gradient"]),
        _ours("every-100", "gradwatch, every=100", 100, every=100),
        NOISE,
        _torch("wandb/1", "wandb.watch, log_freq=1, offline", module="wandb", install="wandb", log_freq=1),
        _torch("wandb/1000", "wandb.watch, default, offline", 1000, module="wandb", install="wandb", log_freq=1000),
        _torch("tensorboard/1", "TensorBoard histograms", module="tensorboard", install="tensorboard", every=1),
        _torch(
            "tensorboard/10", "the same, every 10th step", 10, module="tensorboard", install="tensorboard", every=10
        ),
        _torch("grad-norm", "Lightning grad_norm, read every 50th step", 50, module="lightning", install="lightning"),
        _torch("anomaly", "torch.autograd.set_detect_anomaly"),
        _torch("naive", ".grad.norm().item() of each parameter"),
        _jax("norms", "jnp.linalg.norm of each leaf, returned"),
        _jax("io-callback", "five statistics, one io_callback"),
        _jax("debug-callback", "norm, a debug.callback for each leaf"),
    )
}


def rows_for(network: Network, keys: tuple[str, ...]) -> list[Row]:
    """Returns the rows of a network in order: bare, bare again, and those asked for that exist in its framework."""
    wanted = {"bare", "noise", *keys}
    return [row for row in ROWS.values() if row.key in wanted and row.framework in ("", network.framework)]
