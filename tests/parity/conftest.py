"""What every parity test starts from."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

_NEEDED = ("torch", "jax", "optax", "flax", "equinox", "sklearn")

collect_ignore_glob = [] if all(find_spec(name) for name in _NEEDED) else ["test_*"]


@pytest.fixture(autouse=True)
def _strict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADWATCH_STRICT", "1")
