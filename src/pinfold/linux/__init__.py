"""Typed wrappers around kernel calls: they raise ``OSError``, retry nothing, decide nothing.

``libc`` is the only module that loads a C library.
"""
