"""A handler's answer, made a verdict on the call that it was asked about (pure).

An answer that is no verdict, or makes no sense for the call, is an error: whoever asks then denies
the call. It would be worse to let something happen that the handler did not mean.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pinfold.paths import printable
from pinfold.policy.calls import INJECT, KILL, RETURN, SERVE, Verdict
from pinfold.policy.handlers.verdicts import MAX_ERRNO, Redirection, resolved
from pinfold.policy.judging.replace import replacement
from pinfold.policy.rules import ALLOW, DENY, REDIRECT

if TYPE_CHECKING:
    from collections.abc import Callable

    from pinfold.policy.calls import Trapped

LINE: Final = 300
"""Most characters of what the log says about an error."""

_OPENS: Final = frozenset({"open", "openat", "openat2", "creat"})


def checked(answer: object, call: Trapped, who: str) -> Verdict:
    """Returns a handler's answer as a verdict on a call, with nothing left open.

    Args:
        answer: What the handler returned.
        call: The call.
        who: What the log says about a verdict that does not say it itself.

    Raises:
        TypeError: It is no verdict, or there is something in it that is of no use.
        ValueError: It does not fit the call.
    """
    if not isinstance(answer, Verdict):
        hint = "; call it" if callable(answer) else ""
        raise TypeError(f"{type(answer).__name__} is neither a verdict nor None{hint}")
    if isinstance(answer, Redirection):
        answer = resolved(answer, replacement(call, **answer.replace))
    else:
        check = _CHECKS.get(answer.action)
        if check is None:
            raise ValueError(f"there is no verdict {answer.action!r}")
        check(answer, call)
    rule = who if answer.rule is None else escaped(str(answer.rule))[:LINE]
    return answer._replace(rule=rule, left=frozenset())


def _anything(_answer: Verdict, _call: Trapped) -> None:
    pass


def _denial(answer: Verdict, _call: Trapped) -> None:
    _check_number(answer.errno, "an errno")
    if not 0 < answer.errno <= MAX_ERRNO:
        raise ValueError(f"{answer.errno} is no errno")


def _redirect(answer: Verdict, _call: Trapped) -> None:
    if not answer.replace:
        raise ValueError("a redirect to nowhere")


def _result(answer: Verdict, call: Trapped) -> None:
    _check_number(answer.value, "a result")
    if call.row.group == "exec":
        raise ValueError(f"{call.row.name} cannot return without having been made")


def _content(answer: Verdict, call: Trapped) -> None:
    if not isinstance(answer.value, bytes):
        raise TypeError("what is served is bytes")
    if call.row.name not in _OPENS:
        raise ValueError(f"{call.row.name} opens no file, so there is nothing to serve")


def _descriptor(answer: Verdict, _call: Trapped) -> None:
    _check_number(answer.value, "a descriptor")
    if answer.value < 0:
        raise ValueError(f"{answer.value} is no descriptor")


_CHECKS: Final[dict[str, Callable[[Verdict, Trapped], None]]] = {
    ALLOW: _anything,
    DENY: _denial,
    REDIRECT: _redirect,
    RETURN: _result,
    SERVE: _content,
    INJECT: _descriptor,
    KILL: _anything,
}


def _check_number(value: object, what: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{what} is a number, not {type(value).__name__}")


def one_line(error: BaseException) -> str:
    """Returns the text of an exception as one line of bounded length, safe for a terminal."""
    try:
        text = str(error)
    except BaseException:  # noqa: BLE001 (a handler's own exception may not even have a text)
        return "?"
    line = escaped(text[: 2 * LINE])
    return line if len(line) <= LINE else line[: LINE - 1] + "…"


def escaped(text: str) -> str:
    """Returns a text as one line that is safe for a terminal."""
    return printable(text.encode("utf-8", "backslashreplace"))
