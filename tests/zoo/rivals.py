"""Rival rule sets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from tests.zoo.tools import Claim
from tests.zoo.trace import Trace

RIVALS: Final[dict[str, Callable[[Trace], list[Claim]]]] = {}
