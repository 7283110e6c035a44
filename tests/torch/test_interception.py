"""Listening to functions of torch beside others who replace them too."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from gradwatch_torch.interception import Interception


class Owner:
    """Has a function to listen to."""

    @staticmethod
    def act(calls: list[str]) -> None:
        """Notes that it ran."""
        calls.append("act")


@pytest.fixture
def interception() -> Iterator[Interception]:
    """Of a function of a class that is as new after the test."""
    original = Owner.act
    yield Interception(Owner, "act")
    Owner.act = staticmethod(original)  # type: ignore[method-assign]


def listener(word: str) -> Any:
    """Notes a word in the list that the function was called with."""
    return lambda args, _: args[0].append(word)


def test_a_function_is_put_back_when_nobody_listens(interception: Interception) -> None:
    """Two listeners are called in order, and the last that leaves restores the function itself."""
    original = Owner.act
    ends = [interception.listen(before=listener("a")), interception.listen(after=listener("b"))]
    calls: list[str] = []
    Owner.act(calls)
    assert calls == ["a", "act", "b"]
    for end in ends:
        end()
    assert Owner.act is original


def test_a_function_that_another_wrapped_meanwhile_tells_a_later_listener_once(interception: Interception) -> None:
    """The replacement within the other's wrapper stays for good, and must not call whoever listens next."""
    end = interception.listen(before=listener("first"))
    ours = Owner.act

    def wrapper(calls: list[str]) -> None:
        calls.append("wrapper")
        ours(calls)

    Owner.act = staticmethod(wrapper)  # type: ignore[method-assign]
    end()
    end = interception.listen(before=listener("second"))
    heard: list[str] = []
    Owner.act(heard)
    assert heard == ["second", "wrapper", "act"]
    end()
    heard.clear()
    Owner.act(heard)
    assert heard == ["wrapper", "act"]
