"""Tests of ``pinfold.syscalls``, a module a file."""
