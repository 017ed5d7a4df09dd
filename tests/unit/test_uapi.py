"""Numbers and layouts against what gcc prints from the machine's own headers."""

import struct
import subprocess
from pathlib import Path

import pytest

from pinfold.uapi import bpf, fs, landlock, mman, prctl, procmap, ptrace, seccomp

INCLUDES = """
#define _GNU_SOURCE
#include <stdio.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <linux/types.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/landlock.h>
#include <linux/memfd.h>
#include <linux/openat2.h>
#include <linux/seccomp.h>
"""
MODULES = (bpf, fs, landlock, mman, prctl, procmap, ptrace, seccomp)

# Literal values from the interface's definition, for what is in no released header.
PROPOSED = {
    "SECCOMP_IOCTL_NOTIF_PIN_INSTALL": 0x40202105,
    "SECCOMP_IOCTL_NOTIF_PIN_INSTALL_V1": 0xC0282105,
    "SECCOMP_IOCTL_NOTIF_SEND_REDIRECT": 0x40782106,
}
PREFIXES = (
    "SECCOMP_",
    "BPF_",
    "LANDLOCK_",
    "PTRACE_",
    "PR_",
    "CAP_",
    "CLONE_",
    "MAP_",
    "PROT_",
    "AUDIT_",
    "MFD_",
    "F_",
    "AT_",
    "RESOLVE_",
)


def _constants() -> dict[str, int]:
    return {
        name: value
        for module in MODULES
        for name, value in vars(module).items()
        if name.startswith(PREFIXES) and isinstance(value, int)
    }


def test_constants_equal_the_headers(tmp_path: Path) -> None:
    names = _constants()
    lines = "".join(
        f'#ifdef {name}\nprintf("{name} %llu\\n", (unsigned long long)(__u32)({name}));\n#endif\n'
        for name in names
    )
    found = dict(_run(tmp_path, lines))
    # Enumerators are no macros: what the headers know as such is asked for by name.
    enumerated = "".join(
        f'printf("{name} %llu\\n", (unsigned long long)(__u32)({name}));\n'
        for name in ("LANDLOCK_RULE_PATH_BENEATH",)
    )
    found.update(_run(tmp_path, enumerated))
    assert len(found) > 100
    assert {name: names[name] & 0xFFFFFFFF for name in found} == found


def test_proposed_numbers_are_literally_right() -> None:
    assert {name: getattr(seccomp, name) for name in PROPOSED} == PROPOSED
    assert seccomp.SECCOMP_NOTIF_PIN_INSTALL.size == 32
    assert seccomp.SECCOMP_NOTIF_PIN_INSTALL_V1.size == 40
    assert seccomp.SECCOMP_NOTIF_SEND_REDIRECT.size == 120
    assert procmap.PROCMAP_QUERY == 0xC0686611


@pytest.mark.parametrize(
    ("layout", "name"),
    [
        (seccomp.SECCOMP_DATA, "struct seccomp_data"),
        (seccomp.SECCOMP_NOTIF, "struct seccomp_notif"),
        (seccomp.SECCOMP_NOTIF_RESP, "struct seccomp_notif_resp"),
        (seccomp.SECCOMP_NOTIF_ADDFD, "struct seccomp_notif_addfd"),
        (seccomp.SECCOMP_NOTIF_ID, "__u64"),
        (bpf.SOCK_FILTER, "struct sock_filter"),
        (bpf.SOCK_FPROG, "struct sock_fprog"),
        (fs.OPEN_HOW, "struct open_how"),
        (landlock.LANDLOCK_PATH_BENEATH_ATTR, "struct landlock_path_beneath_attr"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_sizes_equal_the_headers(tmp_path: Path, layout: struct.Struct, name: str) -> None:
    ((_, size),) = _run(tmp_path, f'printf("size %zu\\n", sizeof({name}));')
    # A trailing pad of ours that struct cannot express would show as a difference of up to seven.
    assert size - layout.size in ((0, 6) if name == "struct sock_fprog" else (0,))


def _run(tmp_path: Path, body: str) -> list[tuple[str, int]]:
    source = tmp_path / "abi.c"
    source.write_text(f"{INCLUDES}\nint main(void) {{\n{body}\nreturn 0; }}\n")
    program = tmp_path / "abi"
    subprocess.run(["gcc", "-o", program, source], check=True)
    out = subprocess.run([program], check=True, capture_output=True, text=True).stdout
    return [(name, int(value)) for name, value in (line.split() for line in out.splitlines())]
