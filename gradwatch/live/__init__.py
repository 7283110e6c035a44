"""``gradwatch live``: follows a run while it trains, by reading its files; on a local page, or in the terminal."""
