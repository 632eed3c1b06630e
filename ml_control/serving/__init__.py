"""Processes that answer requests; they import as little as they can, to start fast."""
