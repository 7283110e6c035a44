"""Tests of gradwatch, in the order of its rooms."""
