"""Sites, their order, and what overflow sheds from a record."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gradwatch.record import SIGNALS, Block, Resolved, Site, SiteTable, StepRecord
from gradwatch.statistics import measure


def table(*layers: str) -> SiteTable:
    return SiteTable(Site("gradient", f"{layer}.weight", layer) for layer in layers)


def test_ids_are_stable_and_never_reused() -> None:
    """Adding a known site returns its id; new ones count on."""
    sites = table("a", "b")
    assert sites.add(Site("gradient", "a.weight", "a")) == 0
    assert sites.add(Site("update", "a.weight", "a")) == 2
    assert sites.find("update", "a.weight") == 2
    assert sites.find("weight", "a.weight") is None
    assert len(sites) == 3


def test_layers_follow_the_forward_pass() -> None:
    """Layers that ran are in order of use; the others stay behind the one registered before them."""
    sites = table("head", "a", "a.unused", "b")
    assert sites.layers == ("head", "a", "a.unused", "b")
    sites.set_order(["a", "b", "loss", "head"])
    assert sites.layers == ("a", "a.unused", "b", "head")


@given(st.permutations(list("abcdef")), st.lists(st.sampled_from("abcdef"), unique=True))
def test_every_layer_is_listed_once_whatever_the_order(registered: list[str], order: list[str]) -> None:
    """Setting an order neither loses nor repeats a layer, and keeps the order that was set."""
    sites = table(*registered)
    sites.set_order(order)
    assert sorted(sites.layers) == sorted(registered)
    assert [layer for layer in sites.layers if layer in order] == order


def test_shedding_keeps_lean_gradient_rows() -> None:
    """Updates, weights, activations and histograms go, and are named; gradients and scalars stay."""
    blocks = tuple(Block(signal, np.zeros(1, dtype=np.uint32), measure(np.ones(2))) for signal in SIGNALS)
    pending = Resolved(StepRecord(7, blocks=blocks, facts={"total_norm": 1.0}, logged={"loss": 2.0}))
    assert sorted(pending.shed()) == ["activation", "activation_gradient", "histogram", "update", "weight"]
    record = pending.resolve()
    assert [block.signal for block in record.blocks] == ["gradient"]
    assert record.blocks[0].statistics.histogram is None
    assert record.blocks[0].statistics.zeros is None
    assert (record.step, record.facts, record.logged) == (7, {"total_norm": 1.0}, {"loss": 2.0})
