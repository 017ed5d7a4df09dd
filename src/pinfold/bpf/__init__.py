"""Seccomp filters: compiled from decision lists, checked, run and shown, all without a kernel.

``compile_filter`` turns cases by system call number into a program and ``assemble`` turns that into
the bytes that ``seccomp(2)`` takes. ``check``, ``run`` and ``dump_program`` work on any program.
"""

from pinfold.bpf.asm import Insn, assemble, disassemble
from pinfold.bpf.cases import Arg, Case
from pinfold.bpf.compile import compile_filter
from pinfold.bpf.dump import action_name, dump_program
from pinfold.bpf.interp import Result, SeccompData, check, run

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
