"""Pins: sealed, read-only mappings of our memory in a task that knows nothing of them."""
