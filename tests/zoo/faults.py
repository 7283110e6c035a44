"""All faults by name."""

from __future__ import annotations

from typing import Final

from tests.zoo import faults_signal, faults_training
from tests.zoo.fault import Fault

FAULTS: Final[dict[str, Fault]] = {**faults_signal.FAULTS, **faults_training.FAULTS}
