"""The shape of a policy file, and what each key means.

``docs/policy.md`` is made from this. Only the shape is here: which keys there are, and of which
types. What they mean together is in ``policy.file.resolve``, which makes a ``PolicyModel`` of them.
"""

from __future__ import annotations

# Not under TYPE_CHECKING: msgspec evaluates the annotations.
from typing import Annotated, Any, Final, Literal

from msgspec import Meta, Struct

ACTIONS: Final = ("allow", "deny", "redirect", "return", "serve", "kill", "ask")
"""What a rule can say."""

_MOST: Final = (1 << 63) - 1

Texts = str | Annotated[list[str], Meta(min_length=1)]
"""A text, or a list of texts."""
Variables = dict[str, str]
Port = Annotated[int, Meta(ge=0, le=65535)]
Access = Literal["read", "write", "create", "exec"]


def _key(text: str) -> Meta:
    return Meta(description=text)


class Redirection(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """Where a redirect leads: at least one of these keys."""

    path: Annotated[
        str | None,
        _key(
            "The new path, from `/`. Where the rule matched by a `path` without wildcards and the"
            " name lies below it, the rest of the name is appended."
        ),
    ] = None
    argv: Annotated[
        list[str] | None,
        _key(
            'The new arguments of an exec. `"..."` stands for what the first `"..."` of the'
            " matching pattern stood for; in a rule without `argv`, for all old arguments but the"
            " first."
        ),
    ] = None
    set_env: Annotated[
        Variables | None, _key("Environment variables of an exec to set, by name.")
    ] = None
    unset_env: Annotated[
        list[str] | None, _key("Environment variables of an exec to remove, before `set_env`.")
    ] = None
    address: Annotated[
        str | None,
        _key(
            'The new socket address: `"127.0.0.1:8080"`, `"[::1]:8080"`, `"unix:/PATH"` or'
            ' `"unix:@NAME"`.'
        ),
    ] = None


class RuleEntry(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """One rule. All conditions that are given must hold; of a list, one element must."""

    action: Annotated[
        Literal["allow", "deny", "redirect", "return", "serve", "kill", "ask"],
        _key(
            "What happens to a call that the rule matches. `deny` fails it with `errno`; `redirect`"
            " has it made with what `to` says; `return` answers it with `value` and does not make"
            " it; `serve` opens a file with the given content in place of the one that is named;"
            " `kill` ends the sandbox; `ask` asks whoever sits at the terminal."
        ),
    ]
    name: Annotated[
        str | None,
        _key("What the log and `pinfold check` call the rule; else it is `FILE:LINE`."),
    ] = None
    on: Annotated[
        Texts | None,
        _key(
            "Groups or system calls that the rule is about. Left out: every call that the"
            " conditions can be about."
        ),
    ] = None
    path: Annotated[
        Texts | None,
        _key(
            "Globs for a name that the call uses, from `/` or `**`. One without wildcards covers"
            " what lies below it as well. The path of a Unix socket is such a name, too."
        ),
    ] = None
    exact: Annotated[
        Texts | None, _key("A name and not what lies below it. No character of it is a wildcard.")
    ] = None
    real: Annotated[
        Texts | None, _key("Globs for the name that symbolic links lead to; as for `path`.")
    ] = None
    access: Annotated[
        Access | Annotated[list[Access], Meta(min_length=1)] | None,
        _key(
            "What the call does with the path, of `read write create exec`. A rule that allows has"
            " to name all that the call does (`exec` has `read` in it); any other rule one of it."
        ),
    ] = None
    argv: Annotated[
        Annotated[list[str | list[str]], Meta(min_length=1)] | None,
        _key(
            "The arguments of an exec, a pattern each, or a list of such lists. `*`, `?` and `[]`"
            ' match any characters, slashes too; `"..."` is any number of arguments. The first is'
            " compared with the last component of the executed file's name and of the argument that"
            " the program is given as its name, or with all of them if it has a slash: a rule that"
            " allows needs both to match, any other rule one."
        ),
    ] = None
    env: Annotated[
        Annotated[dict[str, bool | str], Meta(min_length=1)] | None,
        _key(
            "Environment variables of an exec, by name: `true` for set, `false` for not set, or a"
            " pattern for the value. All must hold."
        ),
    ] = None
    family: Annotated[
        str | int | Annotated[list[str | int], Meta(min_length=1)] | None,
        _key(
            "Family of the socket address, or of the socket that is made: `unix inet inet6 netlink"
            " vsock packet unspec`, or a number."
        ),
    ] = None
    address: Annotated[
        Texts | None,
        _key("Hosts and networks, as numbers: `10.0.0.0/8`, `127.0.0.1`, `::1`."),
    ] = None
    port: Annotated[
        Port | str | Annotated[list[Port | str], Meta(min_length=1)] | None,
        _key(
            'Ports: a number, or a range such as `"8000-8080"`. Those of vsock only together with'
            " its family."
        ),
    ] = None
    unix: Annotated[Texts | None, _key("Globs for the path of a Unix socket; as for `path`.")] = (
        None
    )
    abstract: Annotated[
        Texts | None, _key("Patterns for the name of an abstract Unix socket, without the `@`.")
    ] = None
    program: Annotated[
        Texts | None, _key("Globs for the program that makes the call; as for `path`.")
    ] = None
    loader: Annotated[
        bool | None,
        _key(
            "Whether the dynamic loader makes the call. A hint that a program can forge: never"
            " allow anything for it alone."
        ),
    ] = None
    errno: Annotated[
        str | None, _key("With `deny`: the error that the call fails with; `EACCES` if left out.")
    ] = None
    to: Annotated[Redirection | None, _key("With `redirect`: where to.")] = None
    value: Annotated[
        Annotated[int, Meta(ge=0, le=_MOST)] | None,
        _key("With `return`: the result; 0 if left out. For a failure use `deny`."),
    ] = None
    content: Annotated[str | None, _key("With `serve`: the content of the file.")] = None
    content_file: Annotated[
        str | None,
        _key(
            "With `serve`: a file whose content it is, read once at the start; relative to the"
            " policy file."
        ),
    ] = None


Size = Annotated[int, Meta(ge=0, le=_MOST)] | str


class LimitsTable(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """Limits. A size is a number of bytes, or a text such as `"512M"` (K, M, G; powers of 1024)."""

    tasks: Annotated[
        Annotated[int, Meta(ge=1, le=_MOST)] | None,
        _key("Processes and threads at one time in the sandbox; beyond it they get EAGAIN."),
    ] = None
    seconds: Annotated[
        Annotated[float, Meta(gt=0, le=1e9)] | None,
        _key("Wall clock for the whole run; then the sandbox is killed."),
    ] = None
    cpu: Annotated[
        Annotated[int, Meta(ge=1, le=_MOST)] | None, _key("Processor seconds of each process.")
    ] = None
    memory: Annotated[Size | None, _key("Address space of each process.")] = None
    files: Annotated[
        Annotated[int, Meta(ge=1, le=_MOST)] | None,
        _key("Open descriptors of each process; one more than the highest number."),
    ] = None
    file_size: Annotated[Size | None, _key("Size of a file that a process may write.")] = None
    core: Annotated[Size | None, _key("Size of a core dump; 0 for none.")] = None


class LandlockTable(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """Paths that the program can reach at all, by file and not by name.

    With either key, everything that is below none of the paths is out of reach.
    """

    ro: Annotated[
        Texts | None, _key("Paths from `/`, below which the program may read and execute.")
    ] = None
    rw: Annotated[
        Texts | None, _key("Paths from `/`, below which the program may do anything.")
    ] = None


class AuditTable(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """The audit log."""

    on_loss: Annotated[
        Literal["stop", "continue"] | None,
        _key("What happens when the log cannot be written; `stop` kills the sandbox."),
    ] = None


class PolicyFile(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """A policy file."""

    version: Annotated[Literal[1], _key("The version of this format; required.")]
    description: Annotated[str | None, _key("What the policy is for, in a line.")] = None
    include: Annotated[
        Texts | None,
        _key(
            "Other policies, whose rules come after those of this file: `builtin:NAME` for a ready"
            " one, else a path relative to this file."
        ),
    ] = None
    real: Annotated[
        bool | None, _key("Whether names that symbolic links lead to are judged as well.")
    ] = None
    handler_seconds: Annotated[
        Annotated[float, Meta(gt=0, le=1e9)] | None,
        _key(
            "How long a person, or an `async` handler, may take; then it is a denial. 60 if left"
            " out."
        ),
    ] = None
    variables: Annotated[
        Variables | None,
        _key("Texts that `${NAME}` stands for in this file and in those that it includes."),
    ] = None
    defaults: Annotated[
        dict[str, str] | None,
        _key(
            'What holds for a group of calls, or for `"*"`, where no rule matches: `allow`,'
            " `deny`, `ask`, `kill`, or an errno such as `EPERM` to deny with."
        ),
    ] = None
    rule: Annotated[
        list[RuleEntry] | None, _key("The rules, in order: the first that matches decides.")
    ] = None
    limits: Annotated[LimitsTable | None, _key("What the program may use up.")] = None
    landlock: Annotated[LandlockTable | None, _key("What the program can reach.")] = None
    audit: Annotated[AuditTable | None, _key("The audit log.")] = None


TABLES: Final[dict[str, type[Any]]] = {
    "rule": RuleEntry,
    "to": Redirection,
    "limits": LimitsTable,
    "landlock": LandlockTable,
    "audit": AuditTable,
}
"""The tables of a file by the key that holds them."""
