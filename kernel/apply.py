#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Puts pins and redirects into a tree of Linux 6.12.

Our own files are copied to the places that they have beneath ``files/``. Into files of the kernel a
few lines of ours are inserted, each next to an anchor: a piece of text of the kernel that has to be
there exactly once. An anchor that is missing, or is there twice, is an error, and nothing is
written then: another kernel has to be looked at by somebody before it is built.

May be run again, also when it was interrupted: a file is inserted into as it was in the beginning,
of which a copy is kept beside the tree's sources, and is written, in one piece, only when its
content changes, so that ``make`` builds no more than it has to. A file that is none of what it was
then, was left as, or shall be, is an error, too: somebody has changed it, or unpacked another
kernel over it.

Usage: apply.py TREE
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

FILES: Final = Path(__file__).resolve().parent / "files"
KEPT: Final = ".pinfold/kernel"
"""Directory in the tree for the kernel's own files as they were."""
MADE: Final = ".pinfold/made"
"""Directory in the tree for all files as they were written last."""


class ApplyError(Exception):
    """The tree is not one that the insertions are for."""


class Insertion(NamedTuple):
    """A few lines that go into a file of the kernel."""

    path: str
    anchor: str
    """Text that the file has exactly once; whole lines."""
    text: str
    """Whole lines of ours."""
    before: bool = False
    """Whether they come before the anchor and not after it."""


INSERTIONS: Final = (
    Insertion(
        "arch/Kconfig",
        "config SECCOMP_CACHE_DEBUG\n",
        'source "kernel/Kconfig.seccomp_redirect"\n\n',
        before=True,
    ),
    Insertion(
        "kernel/Makefile",
        "obj-$(CONFIG_SECCOMP) += seccomp.o\n",
        "obj-$(CONFIG_SECCOMP_REDIRECT) += seccomp_redirect.o\n",
    ),
    Insertion(
        "mm/Makefile",
        "obj-$(CONFIG_MEMFD_CREATE) += memfd.o\n",
        "obj-$(CONFIG_SECCOMP_REDIRECT) += seccomp_pin.o\n",
    ),
    # The interface.
    Insertion(
        "include/uapi/linux/seccomp.h",
        "#endif /* _UAPI_LINUX_SECCOMP_H */\n",
        "#include <linux/seccomp_redirect.h>\n\n",
        before=True,
    ),
    Insertion(
        "include/linux/seccomp.h",
        "#include <linux/seccomp_types.h>\n",
        "#include <linux/seccomp_redirect.h>\n",
    ),
    Insertion(
        "include/linux/seccomp.h",
        "#define SECCOMP_FILTER_FLAG_MASK	(SECCOMP_FILTER_FLAG_TSYNC | \\\n",
        "					 SECCOMP_REDIRECT_FILTER_FLAGS | \\\n",
    ),
    # A task's own registers while it makes a redirected call, and their return.
    Insertion(
        "include/linux/seccomp_types.h",
        "#include <linux/types.h>\n",
        "#include <linux/seccomp_redirect_types.h>\n",
    ),
    Insertion(
        "include/linux/seccomp_types.h",
        "	struct seccomp_filter *filter;\n",
        "	struct seccomp_redirect redirect;\n",
    ),
    Insertion(
        "include/linux/thread_info.h",
        "	SYSCALL_WORK_BIT_SYSCALL_EXIT_TRAP,\n",
        "	SYSCALL_WORK_BIT_SECCOMP_REDIRECT,\n",
    ),
    Insertion(
        "include/linux/thread_info.h",
        "#define SYSCALL_WORK_SYSCALL_EXIT_TRAP	BIT(SYSCALL_WORK_BIT_SYSCALL_EXIT_TRAP)\n",
        "#define SYSCALL_WORK_SECCOMP_REDIRECT	BIT(SYSCALL_WORK_BIT_SECCOMP_REDIRECT)\n",
    ),
    Insertion(
        "include/linux/entry-common.h",
        "#define SYSCALL_WORK_EXIT	(SYSCALL_WORK_SYSCALL_TRACEPOINT |	\\\n",
        "				 SYSCALL_WORK_SECCOMP_REDIRECT |	\\\n",
    ),
    Insertion(
        "kernel/entry/common.c",
        "static void syscall_exit_work(struct pt_regs *regs, unsigned long work)\n"
        "{\n"
        "	bool step;\n"
        "\n",
        "	if (work & SYSCALL_WORK_SECCOMP_REDIRECT)\n		seccomp_redirect_end(regs);\n\n",
    ),
    # The listener.
    Insertion(
        "kernel/seccomp.c",
        "	/* outstanding addfd requests */\n	struct list_head addfd;\n",
        "\n	/* what the answer replaces */\n	struct seccomp_redirect_request redirect;\n",
    ),
    Insertion(
        "kernel/seccomp.c",
        " * @notifications: A list of struct seccomp_knotif elements.\n",
        " * @mark: The number that this listener's pins bear.\n",
    ),
    Insertion(
        "kernel/seccomp.c",
        "struct notification {\n	atomic_t requests;\n",
        "	unsigned long mark;\n",
    ),
    Insertion(
        "kernel/seccomp.c",
        " * @wait_killable_recv: Put notifying process in killable state once the\n"
        " *			notification is received by the userspace listener.\n",
        " * @redirect: Whether a redirect has to name the memfd that its pointers lie in\n",
    ),
    Insertion(
        "kernel/seccomp.c",
        "struct seccomp_filter {\n"
        "	refcount_t refs;\n"
        "	refcount_t users;\n"
        "	bool log;\n"
        "	bool wait_killable_recv;\n",
        "	bool redirect;\n",
    ),
    Insertion(
        "kernel/seccomp.c",
        "static u64 seccomp_next_notify_id(struct seccomp_filter *filter)\n",
        '#include "seccomp_redirect.h"\n\n',
        before=True,
    ),
    Insertion(
        "kernel/seccomp.c",
        "	ret = n.val;\n	err = n.error;\n	flags = n.flags;\n",
        "	seccomp_redirect_take(&n);\n",
    ),
    Insertion(
        "kernel/seccomp.c",
        "interrupted:\n",
        "	err = seccomp_redirect_interrupted(match, &n, err);\n",
    ),
    Insertion(
        "kernel/seccomp.c",
        "	unotif.data = *(knotif->data);\n",
        "	seccomp_redirect_forget(knotif);\n",
    ),
    Insertion(
        "kernel/seccomp.c",
        "	int data;\n	struct seccomp_data sd_local;\n",
        "	bool redirected = false;\n",
    ),
    Insertion(
        "kernel/seccomp.c",
        "	filter_ret = seccomp_run_filters(sd, &match);\n",
        "judged:\n",
    ),
    # A tracer that another filter asks for sees the call as it is made, or it is not made.
    Insertion(
        "kernel/seccomp.c",
        "		/* We've been put in this state by the ptracer already. */\n",
        "		if (recheck_after_trace && redirected) {\n"
        "			syscall_set_return_value(current, current_pt_regs(),\n"
        "						 -ENOSYS, 0);\n"
        "			goto skip;\n"
        "		}\n"
        "\n",
        before=True,
    ),
    Insertion(
        "kernel/seccomp.c",
        "		this_syscall = syscall_get_nr(current, current_pt_regs());\n"
        "		if (this_syscall < 0)\n"
        "			goto skip;\n",
        "		if (redirected && seccomp_redirect_is_unchanged(sd))\n			return 0;\n",
    ),
    Insertion(
        "kernel/seccomp.c",
        "		if (seccomp_do_user_notification(this_syscall, match, sd))\n"
        "			goto skip;\n",
        "\n"
        "		if (seccomp_redirect_is_unjudged()) {\n"
        "			populate_seccomp_data(&sd_local);\n"
        "			sd = &sd_local;\n"
        "			filter_ret = seccomp_redirect_judge(sd, recheck_after_trace,\n"
        "							    &match);\n"
        "			redirected = true;\n"
        "			goto judged;\n"
        "		}\n",
    ),
    Insertion(
        "kernel/seccomp.c",
        "	case EA_IOCTL(SECCOMP_IOCTL_NOTIF_ADDFD):\n"
        "		return seccomp_notify_addfd(filter, buf, _IOC_SIZE(cmd));\n",
        "	case EA_IOCTL(SECCOMP_IOCTL_NOTIF_PIN_INSTALL):\n"
        "		return seccomp_notify_pin_install(filter, buf, _IOC_SIZE(cmd));\n"
        "	case EA_IOCTL(SECCOMP_IOCTL_NOTIF_SEND_REDIRECT):\n"
        "		return seccomp_notify_send_redirect(filter, buf, _IOC_SIZE(cmd));\n",
    ),
    Insertion(
        "kernel/seccomp.c",
        "	filter->notif->next_id = get_random_u64();\n",
        "	filter->notif->mark = seccomp_redirect_new_mark();\n",
    ),
    # The flag.
    Insertion(
        "kernel/seccomp.c",
        "	/* Validate flags. */\n"
        "	if (flags & ~SECCOMP_FILTER_FLAG_MASK)\n"
        "		return -EINVAL;\n",
        "	if (seccomp_redirect_check_flags(flags))\n		return -EINVAL;\n",
    ),
    Insertion(
        "kernel/seccomp.c",
        "	prepared = seccomp_prepare_user_filter(filter);\n"
        "	if (IS_ERR(prepared))\n"
        "		return PTR_ERR(prepared);\n",
        "	prepared->redirect = flags & SECCOMP_FILTER_FLAG_REDIRECT;\n",
    ),
    Insertion(
        "kernel/seccomp.c",
        "	if (has_duplicate_listener(prepared)) {\n		ret = -EBUSY;\n		goto out;\n	}\n",
        "	if (seccomp_redirect_is_second(prepared, current->seccomp.filter)) {\n"
        "		ret = -EBUSY;\n"
        "		goto out;\n"
        "	}\n",
    ),
)


def insert(text: str, insertion: Insertion) -> str:
    """Returns a file's text with the lines of an insertion in it.

    Raises:
        ApplyError: The anchor is not there exactly once.
    """
    found = text.count(insertion.anchor)
    if found != 1:
        raise ApplyError(
            f"{insertion.path}: the anchor is there {found} times, not once:\n{insertion.anchor}"
        )
    at = text.index(insertion.anchor)
    if not insertion.before:
        at += len(insertion.anchor)
    return text[:at] + insertion.text + text[at:]


def apply(tree: Path) -> list[str]:
    """Puts our part into a kernel tree; returns the files that were written, relative to it.

    Args:
        tree: Root of the sources.

    Raises:
        ApplyError: An anchor is missing, or a file is not what it should be; nothing was written.
        OSError: A file cannot be read or written.
    """
    if not (tree / "kernel" / "seccomp.c").is_file():
        raise ApplyError(f"{tree}: no kernel sources")
    originals = {insertion.path: _original(tree, insertion.path) for insertion in INSERTIONS}
    wanted = dict(originals)
    for insertion in INSERTIONS:
        wanted[insertion.path] = insert(wanted[insertion.path], insertion)
    for path, original in originals.items():
        _unchanged(tree, path, (original, wanted[path]))
    for file in sorted(FILES.rglob("*")):
        if file.is_file():
            path = str(file.relative_to(FILES))
            if (tree / path).exists() and not (tree / MADE / path).exists():
                raise ApplyError(f"{path}: the kernel has a file of this name")
            wanted[path] = file.read_text()
    for path, text in originals.items():
        _write(tree / KEPT / path, text)
    _take_back(tree, wanted)
    written = []
    for path, text in wanted.items():
        made = tree / MADE / path
        if path not in originals:
            # Else it would be taken for the kernel's own if this ended in between.
            _write(made, text)
        if _write(tree / path, text):
            written.append(path)
        _write(made, text)
    return written


def _original(tree: Path, path: str) -> str:
    # Returns the kernel's own text of a file.
    kept = tree / KEPT / path
    return (kept if kept.exists() else tree / path).read_text()


def _unchanged(tree: Path, path: str, known: Sequence[str]) -> None:
    # Demands that nobody else has written to a file of the kernel.
    now = (tree / path).read_text()
    made = tree / MADE / path
    if now not in known and not (made.exists() and made.read_text() == now):
        raise ApplyError(f"{path}: was changed since; begin with a fresh tree")


def _take_back(tree: Path, wanted: Mapping[str, str]) -> None:
    # Has files as they were that are not written to any more.
    for file in (tree / MADE).rglob("*"):
        path = str(file.relative_to(tree / MADE))
        if file.is_file() and path not in wanted:
            kept = tree / KEPT / path
            if kept.exists():
                # One of the kernel's that needs nothing of ours any more. Whatever is written down
                # as ours without a text of the kernel's would be removed the next time.
                _write(tree / path, kept.read_text())
                file.unlink()
                kept.unlink()
            else:
                (tree / path).unlink(missing_ok=True)
                file.unlink()


def _write(path: Path, text: str) -> bool:
    # Returns whether it was anything else before.
    if path.exists() and path.read_text() == text:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.pinfold")
    draft.write_text(text)
    draft.replace(path)
    return True


def main() -> int:
    """Applies to the tree that the command line names; returns the exit status."""
    if len(sys.argv) != 2:
        print("usage: apply.py TREE", file=sys.stderr)
        return 2
    try:
        written = apply(Path(sys.argv[1]))
    except (ApplyError, OSError, UnicodeDecodeError) as error:
        print(f"apply.py: {error}", file=sys.stderr)
        return 1
    print(f"{len(written)} files written" if written else "nothing to be written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
