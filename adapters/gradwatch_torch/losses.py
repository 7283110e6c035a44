"""The roots of a step's backward passes: the loss whose gradient the step applies."""

from __future__ import annotations

from typing import Any, Final

from torch import Tensor

from gradwatch.scalars import Reader
from gradwatch_torch.arrival import is_capturing
from gradwatch_torch.device import HostCopy, scalar_reader

_MOST_PASSES: Final = 4096


class Losses:
    """Collects the scalar roots since the last step; their sum is what the accumulated gradient is the gradient of.

    Attributes:
        wanted: whether the running step is captured, so that its loss will be asked for.
    """

    def __init__(self) -> None:
        self.wanted = True
        self._roots: list[Reader] = []
        self._known = True
        self._stale = False
        self._readers: set[str] = set()

    def listen(self, args: tuple[Any, ...], _: dict[str, Any]) -> None:
        """Takes the arguments of a ``Tensor.backward``; a root that is no scalar makes the step's loss unknown."""
        if not self.wanted or is_capturing():
            return
        root = args[0]
        if self._stale:
            self._roots, self._known, self._stale = [], True, False
            self._readers.clear()
        self._known &= isinstance(root, Tensor) and root.numel() == 1 and len(self._roots) < _MOST_PASSES
        if self._known:
            self._roots.append(scalar_reader(root))

    def read(self, optimizer: str, scale: HostCopy | None) -> dict[str, Reader]:
        """Returns a reader of the loss, divided by the loss scale; empty when it is not known or not new."""
        roots = tuple(self._roots)
        if not roots or not self._known or optimizer in self._readers:
            return {}
        self._readers.add(optimizer)
        if len(roots) == 1 and scale is None:
            return {"loss": roots[0]}
        return {"loss": lambda: sum(root() for root in roots) / (1.0 if scale is None else scale.scalar())}

    def end_step(self) -> None:
        """Makes the next backward pass begin anew."""
        self._stale = True
