"""What a rule that redirects puts in the place of a call's arguments (pure)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from pinfold.codec.sockaddr import Unix
from pinfold.paths import normalise, wants_directory
from pinfold.policy.globs import GlobSet, parse
from pinfold.policy.judging.access import possible
from pinfold.policy.judging.meaning import Meaning, meanings, value_of
from pinfold.policy.judging.replace import replacement
from pinfold.policy.model import REST

if TYPE_CHECKING:
    from pinfold.codec.sockaddr import Address
    from pinfold.policy.calls import Trapped
    from pinfold.policy.judging.match import Conditions, Vectors
    from pinfold.policy.judging.meaning import Subject
    from pinfold.policy.judging.reach import Features
    from pinfold.policy.model import Rule


class Redirection:
    """The redirect of one rule.

    Args:
        rule: The rule.
        conditions: Its conditions.

    Attributes:
        runs: Whether it has a new argv, or changes the environment.

    Raises:
        PolicyError: A glob is malformed.
    """

    __slots__ = ("_action", "_below", "_conditions", "_literals", "runs")

    def __init__(self, rule: Rule, conditions: Conditions) -> None:
        match, action = rule.match, rule.action
        self._action = action
        self._conditions = conditions
        self.runs: Final = bool(action.argv is not None or action.set_env or action.unset_env)
        # By which glob the name was found, and which of them cover what lies below.
        globs = () if match.exact else match.path or match.unix or match.real
        self._below = GlobSet(globs)
        self._literals = [parse(glob)[0] for glob in globs]

    def moved(
        self, features: Features, call: Trapped, subject: Subject, meaning: Meaning
    ) -> dict[str, Any]:
        """Returns the new path or address of a subject; nothing if there is none for it.

        Args:
            features: What the call has.
            call: The call.
            subject: What the rule holds for.
            meaning: What that means.

        Raises:
            ValueError: There is one that does not fit.
        """
        action, argument = self._action, subject.argument
        if subject.address and action.address is not None:
            return replacement(call, address=action.address, argument=argument)
        if action.path is None or not (subject.address or argument in features.paths):
            return {}
        name = subject.real if self._conditions.indexed == "real" else meaning.name
        path = self._target(name, action.path)
        if not subject.address and wants_directory(value_of(call, argument) or b""):
            path = path if path.endswith(b"/") else path + b"/"
        return replacement(call, path=path, argument=argument)

    def ran(
        self, meaning: Meaning, vectors: Vectors
    ) -> tuple[list[bytes] | None, list[bytes] | None]:
        """Returns the new argv and the new environment, None for one that stays.

        Args:
            meaning: What is executed.
            vectors: Argv and environment of the call.
        """
        action = self._action
        argv: list[bytes] | None = None
        env: list[bytes] | None = None
        if action.argv is not None:
            argv = []
            for one in action.argv:
                if one == REST:
                    argv += self._conditions.captured(meaning.name, vectors)
                else:
                    argv.append(one)
        if action.set_env or action.unset_env:
            gone = {*action.unset_env, *(name for name, _ in action.set_env)}
            env = [one for one in vectors.env if one.partition(b"=")[0] not in gone]
            env += [name + b"=" + value for name, value in action.set_env]
        return argv, env

    def _target(self, name: bytes | None, path: bytes) -> bytes:
        at = -1 if name is None else self._below.match(name)
        literal = self._literals[at] if at >= 0 else None
        if literal is None or name is None:
            return path
        rest = name[len(literal) :].lstrip(b"/")
        return path.rstrip(b"/") + b"/" + rest if rest else path


def changed(features: Features, subject: Subject, new: Any) -> Subject:
    """Returns a subject as it will be.

    Args:
        features: What the call has.
        subject: The subject as it was.
        new: Its new path or address, None if it stays.
    """
    if new is None:
        return subject
    if not subject.address:
        return subject._replace(meanings=(Meaning(normalise(new)),), real=None)
    address: Address = new
    named = isinstance(address, Unix)
    return subject._replace(
        meanings=meanings(
            address,
            (normalise(address.path),) if isinstance(address, Unix) else (),
            features.row.group,
        ),
        does=possible(features.row.name)[subject.argument] if named else frozenset(),
        real=None,
    )
