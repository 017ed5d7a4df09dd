"""Verdicts from rules: what ``policy.model`` says at its head, made ready to be asked (pure).

What can be worked out beforehand is: which rules can be about which call
(``policy.judging.reach``), what each rule answers, and one index of names for all of them
(``policy.judging.candidates``). Only the rules that a name meets, and those without a condition on
names, are then gone through in order.

A rule that denies, asks or kills can hold for more than it says: for a directory that is renamed
with what it names in it, and for the names that links lead to (``policy.judging.linked``). That
never makes a verdict milder. The rules behind it are gone through as if it had not held, and the
stricter one of the two verdicts counts.

Some points that the model leaves open:

- Verdicts that do not make the call (``return``, ``serve``) are stricter than a redirect. Redirects
  of several subjects are made together: a rename whose two names are redirected gets two new names.
- A redirect of a path or of an address is about what has one: it is no verdict on a send without an
  address. What a redirect cannot be applied to is denied.
- Where a person is asked about a call of which another subject is redirected, a yes is a yes to the
  redirected call.
- An argument that ``--map`` has settled is no subject. If it was the only one, the rules on argv
  and the environment still hold, and no default does.
"""

from __future__ import annotations

import errno
from dataclasses import replace
from functools import cached_property
from heapq import merge
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pinfold.codec.sockaddr import Unix
from pinfold.errors import PolicyError
from pinfold.paths import normalise, wants_directory
from pinfold.policy.calls import ALLOWED, ASK, KILL, RETURN, SERVE, Trapped, Verdict, denied
from pinfold.policy.globs import parse
from pinfold.policy.judging.access import access_of, moved, possible
from pinfold.policy.judging.candidates import Candidates
from pinfold.policy.judging.match import Conditions, Vectors
from pinfold.policy.judging.meaning import Meaning, Subject, subjects, value_of
from pinfold.policy.judging.passing import distinct, forms, saying
from pinfold.policy.judging.reach import features_of, reach
from pinfold.policy.judging.redirect import Redirection, changed
from pinfold.policy.judging.replace import replacement
from pinfold.policy.model import Action, Match, Rule
from pinfold.policy.rules import ALLOW, DENY, REDIRECT
from pinfold.policy.unjudged import UNJUDGED
from pinfold.syscalls.forms import WHOLE
from pinfold.syscalls.kinds import PATHS, PINNED, Kind
from pinfold.syscalls.refused import REFUSED
from pinfold.syscalls.table import TABLE

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Mapping, Sequence

    from pinfold.policy.calls import Later
    from pinfold.policy.judging.passing import Saying
    from pinfold.policy.judging.reach import Features, Reach
    from pinfold.policy.model import PolicyModel
    from pinfold.syscalls.forms import Forms

_RANK: Final = {ALLOW: 0, REDIRECT: 1, RETURN: 2, SERVE: 2, ASK: 3, DENY: 4, KILL: 5}
"""Of several verdicts the one of the highest rank holds."""
_ASKS: Final = _RANK[ASK]
_DENIES: Final = _RANK[DENY]

_CACHED: Final = 2048
"""Verdicts kept; see ``policy.rules`` about their size."""
_REFUSED: Final = frozenset(one.name for one in REFUSED if one.argument < 0)
_EXECUTING: Final = ("execve", "execveat")
_SETTLING: Final = (_RANK[ALLOW], _RANK[ASK], _RANK[DENY], _RANK[KILL])
"""What is still to be said when a program runs already."""
_NOTHING: Final[Mapping[int, Match]] = {}
_AS_SUCH: Final = Subject()


class _Ruled:
    # A rule, or a default, ready to be asked.
    __slots__ = ("conditions", "linked", "name", "program", "rank", "redirection", "verdict")

    def __init__(self, rule: Rule, *, linked: bool = False) -> None:
        action = rule.action
        if action.verb not in _RANK:
            raise PolicyError(f"{rule.name}: there is no action {action.verb!r}")
        self.name = rule.name
        self.rank = _RANK[action.verb]
        self.linked = linked
        self.conditions = Conditions(rule)
        self.program = bool(rule.match.program)
        self.redirection = Redirection(rule, self.conditions) if action.verb == REDIRECT else None
        self.verdict = Verdict(action.verb, rule.name)
        if action.verb == DENY:
            self.verdict = denied(rule.name, action.errno)
        elif action.verb == RETURN:
            self.verdict = Verdict(RETURN, rule.name, value=action.value)
        elif action.verb == SERVE:
            self.verdict = Verdict(SERVE, rule.name, value=action.data)


class _Scope(NamedTuple):
    # The rules that can be about a call; the same one for many calls.
    free: tuple[int, ...]
    """Rules without a condition on names."""
    named: frozenset[int]
    """All others."""
    denying: frozenset[int]
    """Those that deny or kill."""
    running: frozenset[int]
    """Those with a condition on argv or the environment."""
    program: bool
    """Whether one asks for the program."""
    vectors: bool
    """Whether one needs argv or the environment."""
    redirects: bool
    asks: bool
    """Whether one asks a person, who is shown all that is pinned."""
    plain: bool
    """Whether all depend on names, access and the program alone."""


class _Plan(NamedTuple):
    # A call, with everything about it worked out.
    call: Features
    scope: _Scope
    default: _Ruled
    cached: bool
    moves: bool
    """Whether it renames."""


class _Outcome(NamedTuple):
    ruled: _Ruled
    subject: Subject
    meaning: Meaning


class RuleJudge:
    """The rules and defaults of a policy: a ``policy.calls.Judge``.

    Args:
        model: The policy.
        ask: Asks a person about a call, given the name of the rule that wants that; with None,
            whatever is to be asked is denied.
        linked: By the number of a rule that denies, asks or kills, further conditions under which
            it holds; see ``policy.judging.linked``.

    Raises:
        PolicyError: A pattern is malformed, or a rule cannot be.
    """

    def __init__(
        self,
        model: PolicyModel,
        ask: Callable[[Trapped, str], Later] | None = None,
        linked: Mapping[int, Match] = _NOTHING,
    ) -> None:
        self._ask = ask
        self._said: Final[list[Rule]] = []
        rules = self._said
        self._rules: Final[list[_Ruled]] = []
        for number, rule in enumerate(model.rules):
            rules.append(_checked(rule))
            self._rules.append(_Ruled(rule))
            if number in linked:
                rules.append(replace(rule, match=linked[number]))
                self._rules.append(_Ruled(rules[-1], linked=True))
        self._short: Final = {
            ruled: _default(f"{ruled.name} (not a whole address)", Action(DENY, errno.EINVAL))
            for ruled in self._rules
            if ruled.conditions.address
        }
        matches = [rule.match for rule in rules]
        self._candidates: Final = Candidates(matches, [one.conditions for one in self._rules])
        self._plans: Final = self._planned(matches, model.defaults)
        self._cache: Final[dict[tuple[Any, ...], Verdict]] = {}
        self.calls: Final[Mapping[str, frozenset[Kind]]] = {
            name: _kinds(plan) for name, plan in self._plans.items() if name not in _REFUSED
        }
        """See :class:`~pinfold.policy.calls.Judge`."""
        self.whole: Final = frozenset(
            name for name in self.calls if name in TABLE and self._is_about_all(self._plans[name])
        )
        """See :class:`~pinfold.policy.calls.Judge`."""
        self.addresses: Final = any(self._plans[name].call.address for name in self.calls)
        """Whether a rule or default is about calls with a socket address."""
        self.real: Final = model.real or any(match.real for match in matches)
        """Whether names that links lead to are to be found out."""
        self.programs: Final = any(map(self._is_about_programs, _EXECUTING))
        """Whether a rule can be against what is executed in the end."""
        self.literals: Final = tuple(dict.fromkeys(_literals(rules)))
        """Files that rules which deny, kill or ask name one by one."""

    @cached_property
    def passing(self) -> Mapping[str, Forms]:
        """See :class:`~pinfold.policy.calls.Judge`."""
        says = [saying(rule) for rule in self._said]
        of_scope: dict[int, tuple[Saying, ...]] = {}
        found = {}
        for name in self.calls:
            plan = self._plans[name]
            said = of_scope.get(id(plan.scope))
            if said is None:
                numbers = sorted((*plan.scope.free, *plan.scope.named))
                said = of_scope[id(plan.scope)] = distinct(says[at] for at in numbers)
            found[name] = forms(name, said, default=not plan.default.rank)
        if any(found.get(name, WHOLE) != WHOLE for name in _EXECUTING):
            # Of either, what runs in the end is judged by the rules on both.
            for name in _EXECUTING:
                found.pop(name, None)
        return {name: passes for name, passes in found.items() if passes}

    def judge(self, call: Trapped) -> Verdict | Later:
        """Returns the verdict on a call."""
        plan = self._plans.get(call.row.name)
        if plan is None:
            return ALLOWED
        if not plan.cached or call.settled:
            return self._decide(plan, call)
        key = _key(plan, call)
        verdict = self._cache.get(key)
        if verdict is not None:
            return verdict
        decided = self._decide(plan, call)
        if isinstance(decided, Verdict):
            if len(self._cache) >= _CACHED:
                self._cache.clear()
            self._cache[key] = decided
        return decided

    def steady(self, name: str) -> bool:
        """Returns whether verdicts on a call may be kept; see :class:`~pinfold.policy.calls.Judge`.

        A person's are not: they can be different ones each time.
        """
        plan = self._plans.get(name)
        return plan is None or (plan.cached and not plan.scope.asks and plan.default.rank != _ASKS)

    def executed(self, program: bytes, by: bytes) -> Verdict | None:
        """Returns the verdict that kills a program which was executed in the end, or None.

        Nothing is known but its name, and which program made the call. What counts are the rules on
        executing with a condition on that name, and none on argv or the environment: the first that
        allows, asks, denies or kills. Nobody can be asked any more. Defaults, and rules without
        such a condition, were about the call.
        """
        found = [one for name in _EXECUTING if (one := self._run_by(name, program, by)) is not None]
        return max(found, key=lambda one: one.rank).verdict if found else None

    def _run_by(self, name: str, program: bytes, by: bytes) -> _Ruled | None:
        plan = self._plans.get(name)
        if plan is None:
            return None
        scope = plan.scope
        only = {at for at in scope.named - scope.running if self._rules[at].rank in _SETTLING}
        meaning = Meaning(program)
        subject = Subject("path", (meaning,), possible(name)["path"], program)
        call = Trapped(TABLE[name], (0,) * 6, by, (), {}, loader=_unknown)
        ruled = self._first(plan, call, subject, meaning, Vectors(call), only)
        return ruled if ruled is not None and ruled.rank >= _ASKS else None

    def _is_about_programs(self, name: str) -> bool:
        plan = self._plans.get(name)
        return plan is not None and any(
            self._rules[at].rank >= _ASKS for at in plan.scope.named - plan.scope.running
        )

    def close(self) -> None:
        """Does nothing: rules start nothing."""

    def _is_about_all(self, plan: _Plan) -> bool:
        # Whether a rule that does not just allow can hold for a call without its address.
        return bool(plan.call.address) and any(
            self._rules[at].rank and not self._rules[at].conditions.subject
            for at in plan.scope.free
        )

    def _planned(self, matches: Sequence[Match], actions: Mapping[str, Action]) -> dict[str, _Plan]:
        # Rules with the same reach are about the same calls, and calls often about the same rules.
        reaches: dict[Reach, list[int]] = {}
        for number, match in enumerate(matches):
            reaches.setdefault(reach(match), []).append(number)
        about: dict[str, list[Reach]] = {}
        for one in reaches:
            for name in one.calls:
                about.setdefault(name, []).append(one)
        defaults = {word: _default(f"default {word}", act) for word, act in actions.items()}
        allows = _default("default", Action())
        for name, row in TABLE.items():
            if (defaults.get(row.group) or defaults.get("*") or allows).rank:
                about.setdefault(name, [])
        scopes: dict[tuple[Reach, ...], _Scope] = {}
        plans = {}
        for name, wanted in about.items():
            key = tuple(wanted)
            scope = scopes.get(key)
            if scope is None:
                scope = scopes[key] = self._scope(
                    matches, sorted(number for one in wanted for number in reaches[one])
                )
            call = features_of(name)
            default = defaults.get(call.row.group) or defaults.get("*") or allows
            plans[name] = _Plan(
                call,
                scope,
                default if name in TABLE else allows,
                scope.plain and not call.address and call.domain < 0,
                call.row.group == "rename",
            )
        return plans

    def _scope(self, matches: Sequence[Match], numbers: list[int]) -> _Scope:
        rules = self._rules
        redirections = [one for at in numbers if (one := rules[at].redirection) is not None]
        running = frozenset(at for at in numbers if rules[at].conditions.vectors)
        vectors = bool(running) or any(one.runs for one in redirections)
        return _Scope(
            tuple(at for at in numbers if not rules[at].conditions.indexed),
            frozenset(at for at in numbers if rules[at].conditions.indexed),
            frozenset(at for at in numbers if rules[at].rank >= _DENIES),
            running,
            any(rules[at].program for at in numbers),
            vectors,
            bool(redirections),
            any(rules[at].rank == _ASKS for at in numbers),
            not vectors and all(matches[at].loader is None for at in numbers),
        )

    def _decide(self, plan: _Plan, call: Trapped) -> Verdict | Later:
        for names in call.names.values():
            if not all(name[:1] == b"/" and normalise(name) == name for name in names):
                return denied("a name that is not normal")
        found = subjects(plan.call, call)
        default = plan.default
        only: Container[int] | None = None
        if not found:
            found = (_AS_SUCH,)
            if call.settled:
                only = plan.scope.running
            if call.settled or plan.call.address:
                default = _ALLOWS
        vectors = Vectors(call)
        outcomes = []
        for subject in found:
            for meaning in subject.meanings:
                ruled = self._first(plan, call, subject, meaning, vectors, only, default)
                assert ruled is not None
                if meaning.unknown:
                    ruled = self._short.get(ruled, ruled)
                outcomes.append(_Outcome(ruled, subject, meaning))
        strictest = max(outcomes, key=lambda one: one.ruled.rank).ruled
        if strictest.rank >= _DENIES:
            return strictest.verdict
        made = self._made(plan, call, outcomes, vectors)
        if strictest.rank == _ASKS and made.action not in (DENY, KILL):
            return self._asked(call, strictest.name, made)
        return made

    def _first(
        self,
        plan: _Plan,
        call: Trapped,
        subject: Subject,
        meaning: Meaning,
        vectors: Vectors,
        only: Container[int] | None,
        default: _Ruled | None = None,
    ) -> _Ruled | None:
        # The first rule that holds, of `only` some if that is given, or the default.
        scope, moves = plan.scope, subject.moves
        known = self._candidates.about_program(call.program) if scope.program else None
        found = self._candidates.of(subject, meaning) if scope.named else []
        below = set(self._candidates.below(subject, meaning)).difference(found) if moves else ()
        further: _Ruled | None = None
        for number in _in_order(scope, [*found, *below] if below else found):
            if only is not None and number not in only:
                continue
            ruled = self._rules[number]
            conditions = ruled.conditions
            if ruled.program and not (conditions.strict if known is None else number in known):
                continue
            if number not in below and conditions.hold(call, subject, meaning, vectors):
                if not ruled.linked:
                    return _stricter(further, ruled)
            elif not moves or not (
                conditions.strict and conditions.hold(call, subject, meaning, vectors, below=True)
            ):
                continue
            further = _stricter(further, ruled)
        return _stricter(further, default)

    def _made(
        self, plan: _Plan, call: Trapped, outcomes: Sequence[_Outcome], vectors: Vectors
    ) -> Verdict:
        # What is to be done if nobody has to be asked: no outcome denies.
        for one in outcomes:
            if one.ruled.rank == _RANK[RETURN]:
                return one.ruled.verdict
        redirects = [one for one in outcomes if one.ruled.redirection is not None]
        if redirects:
            return self._redirected(plan, call, redirects, vectors)
        allowing = (one.ruled for one in outcomes if not one.ruled.rank)
        return next((one.verdict for one in allowing if one.name), ALLOWED)

    def _asked(self, call: Trapped, rule: str, made: Verdict) -> Verdict | Later:
        if self._ask is None:
            return denied(f"{rule} (nobody to ask)")
        try:
            later = self._ask(call, rule)
        except Exception as error:  # noqa: BLE001 (whatever goes wrong is a denial)
            return denied(f"{rule} (asking failed: {type(error).__name__})")
        return later if made.action == ALLOW else _Then(later, made)

    def _redirected(
        self, plan: _Plan, call: Trapped, outcomes: Sequence[_Outcome], vectors: Vectors
    ) -> Verdict:
        replace: dict[str, Any] = {}
        after: list[Subject] = []
        run = vectors
        for ruled, subject, meaning in outcomes:
            assert ruled.redirection is not None
            new: dict[str, Any] = {}
            try:
                if subject.argument not in replace:
                    new = ruled.redirection.moved(plan.call, call, subject, meaning)
                if plan.call.vectors and ruled.redirection.runs and run is vectors:
                    argv, env = ruled.redirection.ran(meaning, vectors)
                    new |= replacement(call, argv=argv, env=env)
                    run = Vectors(call, argv, env)
            except ValueError as error:
                return denied(f"{ruled.name}: {error}")
            replace |= new
            ran = ruled.redirection.runs and run is not vectors
            if not ran and subject.argument not in replace:
                return denied(f"{ruled.name}: {call.row.name} has nothing to redirect there")
            after.append(changed(plan.call, subject, replace.get(subject.argument)))
        denying = plan.scope.denying
        if call.settled and not after[0].argument:
            denying &= plan.scope.running
        hits = [
            hit
            for subject in after
            for meaning in subject.meanings
            if (hit := self._first(plan, call, subject, meaning, run, denying))
        ]
        if hits:
            return max(hits, key=lambda one: one.rank).verdict
        return Verdict(REDIRECT, outcomes[0].ruled.name, replace=replace)


def _in_order(scope: _Scope, found: Iterable[int]) -> Iterable[int]:
    # Of the rules found by a name those that count, and all without a condition on names.
    if not found:
        return scope.free
    return merge(sorted(scope.named.intersection(found)), scope.free)


def _stricter(one: _Ruled | None, other: _Ruled | None) -> _Ruled | None:
    if one is None or other is None:
        return one or other
    return other if other.rank > one.rank else one


class _Then:
    # A person's verdict, and what is done when it is a yes.
    __slots__ = ("_later", "_made")

    def __init__(self, later: Later, made: Verdict) -> None:
        self._later = later
        self._made = made

    def start(self, done: Callable[[Verdict], None]) -> None:
        self._later.start(lambda verdict: done(self._made if verdict.action == ALLOW else verdict))

    def cancel(self) -> None:
        self._later.cancel()


def _default(name: str, action: Action) -> _Ruled:
    ruled = _Ruled(Rule(Match(), action, name))
    if action.verb == ALLOW:
        ruled.name = ""
        ruled.verdict = ALLOWED
    return ruled


_ALLOWS: Final = _default("", Action())


def _checked(rule: Rule) -> Rule:
    for name in rule.match.on:
        if name in UNJUDGED:
            raise PolicyError(f"{rule.name}: no rule can be about {name}: {UNJUDGED[name]}")
    address = rule.action.address
    if isinstance(address, Unix) and not address.path.startswith(b"/"):
        raise PolicyError(f"{rule.name}: the path of a socket to redirect to begins with `/`")
    return rule


def _unknown() -> bool:
    raise OSError


def _literals(rules: Iterable[Rule]) -> Iterable[bytes]:
    for rule in rules:
        if rule.action.verb in (DENY, KILL, ASK):
            yield from map(normalise, rule.match.exact)
            for glob in rule.match.path:
                name, _ = parse(glob)
                if name is not None:
                    yield name


def _kinds(plan: _Plan) -> frozenset[Kind]:
    # An address says whether there is a subject at all; `how` says what an open does.
    kinds = {kind for name, kind in plan.call.row.arguments if name == plan.call.address}
    kinds |= {kind for _, kind in plan.call.row.arguments if kind is Kind.OPEN_HOW}
    if plan.scope.vectors and plan.call.vectors:
        kinds.add(Kind.STRINGS)
    if plan.scope.asks or plan.default.rank == _ASKS:
        kinds |= {kind for _, kind in plan.call.row.arguments if kind in PINNED - PATHS}
    return frozenset(kinds)


def _key(plan: _Plan, call: Trapped) -> tuple[Any, ...]:
    does, names, real, redirects = access_of(call), call.names, call.real, plan.scope.redirects
    return (
        call.row.name,
        call.program if plan.scope.program else b"",
        plan.moves and moved(call),
        *[
            (
                names.get(argument),
                real.get(argument),
                does.get(argument),
                redirects and wants_directory(value_of(call, argument) or b""),
            )
            for argument in plan.call.paths
        ],
        # A redirect needs something to put its path in the place of.
        redirects and tuple(argument.name for argument in call.arguments),
    )
