"""Coverage-guided fuzzing; see ``docs/fuzzing.md``."""
