"""Two or more runs side by side, as plain data: what is worse, where they differ, and which layer became which."""

from gradwatch.comparison.compared import Compared
from gradwatch.comparison.comparison import Comparison, ComparisonReporter, Pair, compare, reporter_of_comparisons

__all__ = ["Compared", "Comparison", "ComparisonReporter", "Pair", "compare", "reporter_of_comparisons"]
