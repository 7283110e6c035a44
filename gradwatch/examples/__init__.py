"""Runs that need no framework."""
