"""Python functions that are asked about calls."""
