"""What holds for all tests: one thread a process, because several share the cores, and no example has a deadline."""

from __future__ import annotations

import os

from hypothesis import settings

os.environ.setdefault("OMP_NUM_THREADS", "1")

# Machines are noisy: what has to be fast says so in a test of its own, as a median with a guard.
settings.register_profile("noisy", deadline=None)
settings.load_profile("noisy")
