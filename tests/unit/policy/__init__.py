"""Names, globs and path rules; no kernel needed."""
