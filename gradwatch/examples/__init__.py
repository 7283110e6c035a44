"""Runs that need no framework, and what the demonstrations of all frameworks share."""
