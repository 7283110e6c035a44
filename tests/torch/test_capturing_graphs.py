"""While a CUDA graph is being captured nothing is computed; CUDA's own answer is replaced here."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from gradwatch_torch.device import HostCopy, OnDevice
from tests.torch.capturing import capture


@pytest.fixture
def graph(monkeypatch: pytest.MonkeyPatch) -> dict[str, bool]:
    """Returns a switch for what torch answers when it is asked whether it is capturing a graph."""
    state = {"capturing": False}
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: state["capturing"])
    return state


def test_what_would_arrive_is_null(graph: dict[str, bool]) -> None:
    """Statistics are over no elements, numbers are NaN, and units count as alive."""
    graph["capturing"] = True
    found = OnDevice([torch.ones(3), torch.ones(2)], counts=True, histogram=False)
    assert found.ready()
    statistics = found.resolve()
    assert statistics.n.tolist() == [0, 0]
    assert np.isnan(statistics.l2).all()
    assert statistics.zeros is not None
    assert statistics.histogram is None
    assert np.isnan(HostCopy(torch.ones((), device="meta")).scalar())
    assert HostCopy(torch.zeros(2, dtype=torch.bool, device="meta")).tensor().tolist() == [True, True]
    assert HostCopy(torch.ones((), dtype=torch.long, device="meta")).scalar() == 0


def test_a_captured_step_is_no_step(graph: dict[str, bool]) -> None:
    """Steps and layers are counted again once the capture is over, from 0 and with their numbers."""
    model = nn.Sequential(nn.Linear(4, 3), nn.Tanh())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    norms = []
    with capture(model, optimizer) as captured:
        for step in range(3):
            graph["capturing"] = step == 0
            optimizer.zero_grad()
            model(torch.randn(5, 4)).square().mean().backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1e9)
            optimizer.step()
            weight = model[0].weight
            assert isinstance(weight, nn.Parameter)
            assert weight.grad is not None
            norms.append(float(weight.grad.norm()))
    assert [record.step for record in captured.records] == [0, 1]
    assert all(np.isfinite([*record.facts.values(), *record.logged.values()]).all() for record in captured.records)
    assert captured.series("gradient", "0.weight", "l2") == pytest.approx(norms[1:])
    panel = captured.recording.panel("activation", 0)
    assert panel is not None
    assert np.isfinite(panel.l2).all()
