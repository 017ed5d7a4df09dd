"""Load in short form: many tasks, many sandboxes, a fork bomb, a soak."""
