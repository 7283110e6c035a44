"""What every test of the torch adapter starts from."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True)
def _reproducible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADWATCH_STRICT", "1")
    torch.manual_seed(0)
