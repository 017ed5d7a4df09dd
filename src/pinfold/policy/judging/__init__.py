"""Verdicts from rules."""
