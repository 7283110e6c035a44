"""What every test of the torch adapter starts from."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from gradwatch import native


@pytest.fixture(autouse=True)
def _reproducible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADWATCH_STRICT", "1")
    torch.manual_seed(0)


@pytest.fixture(params=["in C", "with torch's operations"])
def reading(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Runs a test with and without the C library."""
    monkeypatch.setenv("GRADWATCH_NATIVE", "1" if request.param == "in C" else "0")
    native._library.cache_clear()
    if request.param == "in C" and not native.available():
        pytest.skip("there was no C compiler when gradwatch was installed")
    yield
    monkeypatch.undo()
    native._library.cache_clear()
