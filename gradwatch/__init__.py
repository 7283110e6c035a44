"""Which layer does not learn, since which step, why, and what to do."""

from gradwatch.errors import GradientFinding, GradwatchError, RunError
from gradwatch.findings import Finding
from gradwatch.run import Run, load
from gradwatch.watch import Watch, watch

__all__ = ["Finding", "GradientFinding", "GradwatchError", "Run", "RunError", "Watch", "load", "watch"]
__version__ = "0.1.0"
