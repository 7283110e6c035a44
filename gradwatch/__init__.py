"""Which layer does not learn, since which step, why, and what to do."""
