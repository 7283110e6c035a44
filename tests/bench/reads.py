"""The gradient's capture against its floor, one read: inside real steps, in CPU time of the training thread.

One read is one ``torch._foreach_norm`` over the same gradients, cold, as the backward pass left them. Hooks of the
optimizer that run right before and right behind gradwatch's own tell what those took, whatever they do. Odd steps
time the read, even ones the capture, so that neither finds gradients that the other has just read.
"""

from __future__ import annotations

import tempfile
import time
from collections import defaultdict
from statistics import median
from typing import Any, Final

import torch

import gradwatch
from tests.bench import clock, torch_networks
from tests.bench.rows import WARM_UP
from tests.bench.torch_loop import Loop

DENSE: Final = 16
"""Steps at the start that are not timed."""


class Brackets:
    """Seconds that each part of a step took, by name; ``step`` counts the watched steps."""

    def __init__(self, loop: Loop) -> None:
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self.step = 0
        self._optimizer = loop.optimizer
        self._parameters = list(loop.model.parameters())
        self._began = 0.0

    def before_watch(self) -> None:
        """Registers the hooks that run before gradwatch's."""
        self._optimizer.register_step_pre_hook(self._open_capture)
        self._optimizer.register_step_post_hook(self._open_end)

    def behind_watch(self) -> None:
        """Registers the hooks that run behind gradwatch's."""
        self._optimizer.register_step_pre_hook(self._close_capture)
        self._optimizer.register_step_post_hook(self._close_end)

    @property
    def _kind(self) -> str:
        return "warm" if self.step % 2 else "full" if self.step % 8 == 0 else "lean"

    def _open_capture(self, *_: Any) -> None:
        if self.step % 2:
            gradients = [parameter.grad for parameter in self._parameters if parameter.grad is not None]
            self._began = time.thread_time()
            torch._foreach_norm(gradients)
            self._close("read")
            for parameter in self._parameters:
                parameter.grad  # noqa: B018
            self._close("access")
        self._began = time.thread_time()

    def _close_capture(self, *_: Any) -> None:
        self._close(self._kind)

    def _open_end(self, *_: Any) -> None:
        self._began = time.thread_time()

    def _close_end(self, *_: Any) -> None:
        self._close("end")
        self.step += 1

    def _close(self, part: str) -> None:
        now = time.thread_time()
        if self.step >= DENSE:
            self.seconds[part].append(now - self._began)
        self._began = time.thread_time()


def measure(maker: str, steps: int, **arguments: int) -> dict[str, Any]:
    """Trains a network of ``torch_networks``; returns medians over steps, in microseconds.

    ``step`` is a bare step; ``read`` one read; ``lean`` and ``full`` the capture of the gradient without and with
    histogram; ``end`` what ends the step; ``writer`` the CPU time per step of all other threads; ``per_tensor`` what
    the capture of gradients that lie in the cache takes for each, less Python's own access to ``.grad``.
    """
    torch.set_num_threads(1)
    torch.manual_seed(0)
    loop = Loop(*getattr(torch_networks, maker)(**arguments))
    bare = [_thread_seconds(loop) for _ in range(2 * WARM_UP)][WARM_UP:]
    brackets = Brackets(loop)
    brackets.before_watch()
    with (
        tempfile.TemporaryDirectory() as directory,
        gradwatch.watch(loop.model, loop.optimizer, run=directory, report=False, signals=["gradient"]) as watch,
    ):
        brackets.behind_watch()
        writer = _train(loop, steps)
        clock.kinds_found(watch)
    sizes = [parameter.numel() for parameter in loop.model.parameters()]
    parts = {"step": median(bare), **{part: median(seconds) for part, seconds in brackets.seconds.items()}}
    parts["per_tensor"] = (parts["warm"] - parts["access"]) / len(sizes)
    outcome = {part: 1e6 * seconds for part, seconds in {**parts, "writer": writer}.items()}
    return {**outcome, "parameters": sum(sizes), "tensors": len(sizes)}


def _thread_seconds(loop: Loop) -> float:
    began = time.thread_time()
    loop.step()
    return time.thread_time() - began


def _train(loop: Loop, steps: int) -> float:
    """Trains; returns the CPU seconds a step that other threads took, from the end of the dense start on."""
    for step in range(steps):
        if step == DENSE:
            time.sleep(clock.SETTLE)
            began = time.process_time() - time.thread_time()
        loop.step()
    time.sleep(clock.SETTLE)
    return (time.process_time() - time.thread_time() - began) / (steps - DENSE)
