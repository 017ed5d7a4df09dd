"""Kernel ABI as data: numbers and struct layouts, in files named after the header they come from.

Nothing here runs. Constants keep the kernel's spelling so that a search finds the man page.
"""
