"""``linux/binfmts.h``: limits on the arguments of a new program."""

from typing import Final

MAX_ARG_STRLEN: Final = 32 * 4096
"""Longest single string, its NUL included."""
