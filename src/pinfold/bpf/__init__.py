"""Seccomp filters: compiled from decision lists, checked, run and shown, all without a kernel.

``compile_filter`` turns cases by system call number into a program and ``assemble`` turns that into
the bytes that ``seccomp(2)`` takes. ``check``, ``run`` and ``dump_program`` work on any program.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from pinfold.bpf.asm import Insn, assemble, disassemble
from pinfold.bpf.cases import Arg, Case
from pinfold.bpf.compile import compile_filter

if TYPE_CHECKING:
    from pinfold.bpf.dump import action_name, dump_program
    from pinfold.bpf.interp import Result, SeccompData, check, run

# Nobody who only installs a filter needs these.
_LATER = {
    "Result": "interp",
    "SeccompData": "interp",
    "action_name": "dump",
    "check": "interp",
    "dump_program": "dump",
    "run": "interp",
}

__all__ = [
    "Arg",
    "Case",
    "Insn",
    "Result",
    "SeccompData",
    "action_name",
    "assemble",
    "check",
    "compile_filter",
    "disassemble",
    "dump_program",
    "run",
]


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module 'pinfold.bpf' has no attribute {name!r}")
    return getattr(import_module(f"pinfold.bpf.{_LATER[name]}"), name)
