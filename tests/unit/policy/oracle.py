"""Verdicts that are easy to believe: the head of ``policy.model``, a sentence at a time.

Slow, without any index, and with matchers of its own. What is taken from the code under test is
``policy.judging.access``, which has its own tests, and how verdicts and addresses are written.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_network
from typing import TYPE_CHECKING, Any, NamedTuple

from pinfold.codec.message import Message
from pinfold.codec.sockaddr import (
    Abstract,
    Inet,
    Inet6,
    Netlink,
    Other,
    Short,
    Sockaddr,
    Unix,
    Unnamed,
    Unspec,
    Vsock,
    pack,
    parse,
)
from pinfold.policy.judging.access import access_of, possible
from pinfold.policy.model import REST, Match, PolicyModel, Rule
from pinfold.syscalls.kinds import PATHS, Kind
from pinfold.syscalls.table import DESCRIPTOR_ROWS, TABLE

from .reference import matches, spells
from .trapped import TO

if TYPE_CHECKING:
    from pinfold.policy.calls import Trapped

STRICTNESS = ["allow", "redirect", "return", "ask", "deny", "kill"]
AGAINST = ("deny", "ask", "kill")
NUMBERS = {"unspec": 0, "unix": 1, "inet": 2, "inet6": 10, "netlink": 16, "packet": 17, "vsock": 40}


class Reading(NamedTuple):
    family: int
    host: Any = None
    port: int | None = None


@dataclass
class Thing:
    """One meaning of one subject."""

    argument: str = ""
    name: bytes | None = None
    readings: tuple[Reading, ...] = ()
    abstract: bytes | None = None
    does: frozenset[str] = frozenset()
    real: bytes | None = None
    address: bool = False
    unknown: bool = False
    moves: bool = False


class Answer(NamedTuple):
    """What is said of a call, in a form to compare."""

    verb: str = "allow"
    rule: str | None = None
    detail: Any = None


def answer(model: PolicyModel, call: Trapped) -> Answer:
    things = subjects(call)
    default = default_of(model, call)
    vectors_only = False
    if not things:
        things = [Thing()]
        sends = any(kind in TO for _, kind in call.row.arguments)
        if call.settled or sends:
            default = Answer()
        vectors_only = bool(call.settled)
    verdicts: list[tuple[Answer, Rule | None, Thing]] = []
    argv, env = argv_of(call), strings(call, "envp")
    for thing in things:
        beyond, own = held(model, call, thing, argv, env, vectors_only=vectors_only)
        said_of: list[tuple[Answer, Rule | None]] = [(said(one, thing), one) for one in beyond]
        said_of.append((default if own is None else said(own, thing), own))
        verdict, rule = max(said_of, key=lambda one: strictness(one[0]))
        verdicts.append((verdict, rule, thing))
    strictest = max(verdicts, key=lambda one: strictness(one[0]))[0]
    if strictest.verb in ("deny", "kill"):
        return strictest
    made = carried_out(model, call, verdicts, argv, env)
    if strictest.verb == "ask" and made.verb not in ("deny", "kill"):
        return Answer("ask", strictest.rule, made)
    return made


def kind(verb: str) -> str:
    return "return" if verb == "serve" else verb


def strictness(said_: Answer) -> int:
    return STRICTNESS.index(kind(said_.verb))


def default_of(model: PolicyModel, call: Trapped) -> Answer:
    if call.row.name not in TABLE:
        return Answer()
    for word in (call.row.group, "*"):
        if word in model.defaults:
            action = model.defaults[word]
            if action.verb == "allow":
                return Answer()
            return Answer(
                action.verb,
                f"default {word}",
                action.errno if action.verb == "deny" else None,
            )
    return Answer()


def said(rule: Rule, thing: Thing) -> Answer:
    action, match = rule.action, rule.match
    if thing.unknown and (match.family or match.networks or match.ports):
        return Answer("deny", f"{rule.name} (not a whole address)", 22)
    detail = {"deny": action.errno, "return": action.value, "serve": action.data}
    return Answer(action.verb, rule.name, detail.get(action.verb))


def subjects(call: Trapped) -> list[Thing]:
    found: list[Thing] = []
    does = access_of(call)
    for name, what in call.row.arguments:
        if name in call.settled:
            continue
        if what in PATHS or (name == "fd" and call.row in DESCRIPTOR_ROWS):
            moves = name in moving(call)
            found += [
                Thing(name, one, does=does[name], real=call.real.get(name), moves=moves)
                for one in call.names.get(name, ()) or (None,)
            ]
        if what in TO:
            found += addressed(call, name, does.get(name, frozenset()))
    if call.row.name in ("socket", "socketpair"):
        family = call.registers[0] % (1 << 32)
        found.append(Thing("domain", readings=(Reading(family),)))
        if family == NUMBERS["inet"] and call.registers[1] % 16 == 10:
            found.append(Thing("domain", readings=(Reading(NUMBERS["packet"]),)))
    return found


def moving(call: Trapped) -> tuple[str, ...]:
    """The arguments whose directory gets another name, with all that is in it."""
    if call.row.group != "rename":
        return ()
    exchanges = call.row.name == "renameat2" and call.registers[4] % 4 in (2, 3)
    return ("old_path", "new_path") if exchanges else ("old_path",)


def addressed(call: Trapped, name: str, does: frozenset[str]) -> list[Thing]:
    values = [one.value for one in call.arguments if one.name == name]
    value = values[0] if values else None
    address = value.address if isinstance(value, Sockaddr) else None
    if isinstance(value, Message):
        address = value.name
    sends = call.row.group == "send"
    if sends and (value is None or address == Short(b"")):
        return []
    if sends and isinstance(value, Message) and address is None:
        return []
    if address is None:
        return [Thing(name, does=does, real=None, address=True, unknown=True)]
    real = call.real.get(name)
    found = things(address, call.names.get(name, ()), call.row.group)
    for one in found:
        one.argument, one.does, one.real, one.address = name, does, real, True
    return found


def things(address: Any, names: tuple[bytes, ...], group: str) -> list[Thing]:
    match address:
        case Unix():
            return [Thing(name=name, readings=(Reading(1),)) for name in names or (None,)]
        case Abstract(name):
            return [Thing(readings=(Reading(1),), abstract=name)]
        case Unnamed():
            return [Thing(readings=(Reading(1),))]
        case Netlink():
            return [Thing(readings=(Reading(16),))]
        case Vsock(_, port):
            return [Thing(readings=(Reading(40, None, port),))]
        case Other(family):
            return [Thing(readings=(Reading(family),))]
        case Short():
            return [Thing(unknown=True)]
        case Unspec():
            return unspecified(address, group)
        case _:
            return hosts_of(address, group)


def unspecified(address: Unspec, group: str) -> list[Thing]:
    found = [Thing(readings=(Reading(0),))]
    if group in ("bind", "send") and len(address.data) >= 14:
        found += things(parse(b"\2\0" + address.data), (), group)
    if group == "send" and len(address.data) >= 22:
        found += things(parse(b"\x0a\0" + address.data), (), group)
    return found


def hosts_of(address: Inet | Inet6, group: str) -> list[Thing]:
    hosts: list[Any] = [address.host]
    if isinstance(address, Inet6) and address.host.ipv4_mapped is not None:
        hosts = [address.host.ipv4_mapped]
    if group != "bind" and hosts[0] in (IPv4Address(0), IPv6Address(0)):
        if hosts[0] == IPv6Address(0):
            hosts.append(IPv6Address("::1"))
        hosts.append(IPv4Address("127.0.0.1"))
    spelt = Reading(2 if isinstance(address, Inet) else 10, address.host, address.port)
    found = []
    for host in hosts:
        reading = Reading(2 if isinstance(host, IPv4Address) else 10, host, address.port)
        mapped = isinstance(address, Inet6) and address.host.ipv4_mapped is not None
        found.append(Thing(readings=(reading, spelt) if mapped else (reading,)))
    return found


def argv_of(call: Trapped) -> list[bytes]:
    return strings(call, "argv") or [b""]


def strings(call: Trapped, name: str) -> list[bytes]:
    for one in call.arguments:
        if one.name == name and one.kind is Kind.STRINGS:
            return list(one.value)
    return []


def held(
    model: PolicyModel,
    call: Trapped,
    thing: Thing,
    argv: list[bytes],
    env: list[bytes],
    *,
    vectors_only: bool = False,
    verbs: tuple[str, ...] = (*STRICTNESS, "serve"),
) -> tuple[list[Rule], Rule | None]:
    """The first rule that holds by itself, and those before it that hold for what lies below."""
    beyond: list[Rule] = []
    for rule in model.rules:
        if rule.action.verb not in verbs:
            continue
        if vectors_only and not (rule.match.argv or rule.match.env):
            continue
        if not is_about(rule.match, call):
            continue
        if holds(rule, call, thing, argv, env):
            return beyond, rule
        if (
            thing.moves
            and rule.action.verb in AGAINST
            and holds(rule, call, thing, argv, env, below=True)
        ):
            beyond.append(rule)
    return beyond, None


def is_about(match: Match, call: Trapped) -> bool:
    if match.on:
        return call.row.name in match.on
    row = call.row
    if row.name not in TABLE:
        return False
    if row in DESCRIPTOR_ROWS or any(what in PATHS or what in TO for _, what in row.arguments):
        return True
    return bool(match.family) and row.name in ("socket", "socketpair")


def holds(
    rule: Rule,
    call: Trapped,
    thing: Thing,
    argv: list[bytes],
    env: list[bytes],
    *,
    below: bool = False,
) -> bool:
    match, verb = rule.match, rule.action.verb
    allows = verb == "allow"
    about_something = (
        match.path, match.exact, match.real, match.access, match.family, match.networks,
        match.ports, match.unix, match.abstract,
    )  # fmt: skip
    needs = any(about_something) or rule.action.path is not None or rule.action.address is not None
    if needs and not thing.argument:
        return False
    executes = any(what is Kind.STRINGS for _, what in call.row.arguments)
    if (match.argv or match.env) and not executes:
        return False
    name = thing.name
    if match.path and not named(match.path, name, below=below):
        return False
    if match.exact and name not in match.exact:
        exact = any(lies_below(one, name) for one in match.exact) if below and name else False
        if not exact:
            return False
    if match.real and not named(match.real, thing.real, below=below):
        return False
    if match.unix and not (
        thing.address and name is not None and any(matches(one, name) for one in match.unix)
    ):
        return False
    if match.abstract and not any(
        thing.abstract is not None and spells(one, thing.abstract) for one in match.abstract
    ):
        return False
    if match.access:
        does = set(thing.does)
        if allows and "exec" in does:
            does -= {"read"}
        if not (does and does <= match.access if allows else does & match.access):
            return False
    return (
        address_holds(match, verb, thing)
        and program_holds(match, verb, call)
        and (not match.argv or any(argv_holds(one, name, argv, allows) for one in match.argv))
        and all(variable_holds(variable, value, env, allows) for variable, value in match.env)
        and (match.loader is None or call.loader() == match.loader)
    )


def named(globs: tuple[bytes, ...], name: bytes | None, *, below: bool) -> bool:
    if name is None:
        return False
    return any(matches(one, name) or (below and lies_below(one, name)) for one in globs)


def lies_below(glob: bytes, name: bytes) -> bool:
    """Whether components at the beginning of a glob spell a name, the last one not among them."""
    parts = glob.split(b"/")[1:-1] if glob[:1] == b"/" else []
    for count in range(1, len(parts) + 1):
        if b"**" in parts[count - 1]:
            break
        spelt = name.split(b"/")[1:]
        if len(spelt) == count and all(map(spells, parts, spelt)):
            return True
    return False


def address_holds(match: Match, verb: str, thing: Thing) -> bool:
    if not (match.family or match.networks or match.ports):
        return True
    if thing.unknown:
        return verb in AGAINST
    readings = thing.readings[:1] if verb == "allow" else thing.readings
    return any(reading_holds(match, one) for one in readings)


def reading_holds(match: Match, reading: Reading) -> bool:
    families = {NUMBERS.get(one, one) for one in match.family}  # type: ignore[arg-type]
    if families and reading.family not in families:
        return False
    networks: list[Any] = []
    for one in match.networks:
        mapped = isinstance(one, IPv6Network) and one.subnet_of(IPv6Network("::ffff:0:0/96"))
        if mapped:
            host = IPv4Address(int(one.network_address) % (1 << 32))
            networks.append(ip_network(f"{host}/{one.prefixlen - 96}"))
        else:
            networks.append(one)
    if networks and not any(
        reading.host is not None and reading.host.version == one.version and reading.host in one
        for one in networks
    ):
        return False
    if not match.ports:
        return True
    if reading.port is None or (reading.family == 40 and not families):
        return False
    return any(low <= reading.port <= high for low, high in match.ports)


def program_holds(match: Match, verb: str, call: Trapped) -> bool:
    if not match.program:
        return True
    if not call.program.startswith(b"/"):
        return verb in AGAINST
    return any(matches(one, call.program) for one in match.program)


def argv_holds(
    pattern: tuple[bytes, ...], name: bytes | None, argv: list[bytes], allows: bool
) -> bool:
    if not pattern or pattern[0] == REST:
        return rest_of(pattern, argv) is not None
    whole = b"/" in pattern[0]
    last = None if name is None else name if whole else name.split(b"/")[-1]
    by_name = last is not None and spells(pattern[0], last)
    by_argv = spells(pattern[0], argv[0] if whole else argv[0].split(b"/")[-1])
    begins = by_name and by_argv if allows else by_name or by_argv
    return begins and rest_of(pattern[1:], argv[1:]) is not None


def rest_of(pattern: tuple[bytes, ...], argv: list[bytes]) -> list[bytes] | None:
    """What the first REST stands for, as little as can be; None where nothing matches."""
    if not pattern:
        return None if argv else []
    if pattern[0] == REST and REST in pattern[1:2]:
        return rest_of(pattern[1:], argv)
    if pattern[0] == REST:
        for length in range(len(argv) + 1):
            if rest_of(pattern[1:], argv[length:]) is not None:
                return argv[:length]
        return None
    if not argv or not spells(pattern[0], argv[0]):
        return None
    return rest_of(pattern[1:], argv[1:])


def variable_holds(variable: bytes, wanted: bytes | bool, env: list[bytes], allows: bool) -> bool:
    values = [
        one.split(b"=", 1)[1] for one in env if one.split(b"=", 1)[:1] == [variable] and b"=" in one
    ]
    if isinstance(wanted, bool):
        return bool(values) == wanted
    found = [spells(wanted, value) for value in values]
    return bool(found) and (all(found) if allows else any(found))


def carried_out(
    model: PolicyModel,
    call: Trapped,
    verdicts: list[tuple[Answer, Rule | None, Thing]],
    argv: list[bytes],
    env: list[bytes],
) -> Answer:
    for said_, _, _ in verdicts:
        if kind(said_.verb) == "return":
            return said_
    redirects = [(rule, thing) for said_, rule, thing in verdicts if said_.verb == "redirect"]
    if redirects:
        return redirected(model, call, redirects, argv, env)  # type: ignore[arg-type]
    for said_, _, _ in verdicts:
        if said_.verb == "allow" and said_.rule:
            return said_
    return Answer()


def redirected(
    model: PolicyModel,
    call: Trapped,
    redirects: list[tuple[Rule, Thing]],
    argv: list[bytes],
    env: list[bytes],
) -> Answer:
    replace: dict[str, Any] = {}
    after: list[Thing] = []
    ran = False
    given = {one.name for one in call.arguments}
    executes = "argv" in {name for name, _ in call.row.arguments}
    for rule, thing in redirects:
        action = rule.action
        if thing.argument not in replace:
            new = moved(rule, call, thing)
            if new is not None:
                if thing.argument not in given or new == "error":
                    return Answer("deny", rule.name, "error")
                replace[thing.argument] = new
        runs = executes and (action.argv is not None or action.set_env or action.unset_env)
        if runs and not ran:
            ran = True
            new_argv, new_env = vectors_of(rule, thing, argv, env)
            if (action.argv is not None and "argv" not in given) or (
                (action.set_env or action.unset_env) and "envp" not in given
            ):
                return Answer("deny", rule.name, "error")
            if action.argv is not None:
                replace["argv"] = argv = new_argv
            if action.set_env or action.unset_env:
                replace["envp"] = env = new_env
        if thing.argument not in replace and not runs:
            return Answer("deny", rule.name, "error")
        after += become(call, thing, replace.get(thing.argument))
    hit = again(model, call, after, argv or [b""], env)
    return hit or Answer("redirect", redirects[0][0].name, replace)


def again(
    model: PolicyModel, call: Trapped, after: list[Thing], argv: list[bytes], env: list[bytes]
) -> Answer | None:
    bare = bool(call.settled) and not after[0].argument
    hits = []
    for thing in after:
        beyond, own = held(model, call, thing, argv, env, vectors_only=bare, verbs=("deny", "kill"))
        hits += [said(one, thing) for one in (*beyond, own) if one is not None]
    return max(hits, key=strictness, default=None)


def moved(rule: Rule, call: Trapped, thing: Thing) -> Any:
    action, match = rule.action, rule.match
    if thing.address and action.address is not None:
        value = next((one.value for one in call.arguments if one.name == thing.argument), None)
        was = value.address if isinstance(value, Sockaddr) else getattr(value, "name", None)
        new = action.address
        if isinstance(was, Inet6) and isinstance(new, Inet):
            return Inet6(IPv6Address(f"::ffff:{new.host}"), new.port)
        return new
    if action.path is None or thing.argument == "domain" or not thing.argument:
        return None
    path = action.path
    globs, name = match.path or match.unix, thing.name
    if not globs and match.real:
        globs, name = match.real, thing.real
    if not match.exact and globs and name is not None:
        one = next(one for one in globs if matches(one, name))
        if not set(b"*?[\\") & set(one):
            rest = name.removeprefix(one).strip(b"/")
            path = path.rstrip(b"/") + b"/" + rest if rest else path
    if thing.address:
        try:
            pack(Unix(path))
        except ValueError:
            return "error"
        return Unix(path)
    if thing.argument == "fd":
        return "error"
    value = next((one.value for one in call.arguments if one.name == thing.argument), b"")
    if value.split(b"/")[-1] in (b"", b".", b"..") and value and not path.endswith(b"/"):
        path += b"/"
    return path


def vectors_of(
    rule: Rule, thing: Thing, argv: list[bytes], env: list[bytes]
) -> tuple[list[bytes], list[bytes]]:
    action = rule.action
    captured = argv[1:]
    allows = rule.action.verb == "allow"
    for pattern in rule.match.argv:
        if argv_holds(pattern, thing.name, argv, allows):
            begins = bool(pattern) and pattern[0] != REST
            found = rest_of(pattern[begins:], argv[begins:])
            captured = (found or []) if REST in pattern else []
            break
    new_argv: list[bytes] = []
    for one in action.argv or ():
        new_argv += captured if one == REST else [one]
    gone = {*action.unset_env, *(name for name, _ in action.set_env)}
    new_env = [one for one in env if one.split(b"=")[0] not in gone]
    return new_argv, new_env + [name + b"=" + value for name, value in action.set_env]


def become(call: Trapped, thing: Thing, new: Any) -> list[Thing]:
    if new is None:
        return [thing]
    if not thing.address:
        name = new.rstrip(b"/") or b"/"
        return [Thing(thing.argument, name, does=thing.does, moves=thing.moves)]
    names = (new.path,) if isinstance(new, Unix) else ()
    found = things(new, names, call.row.group)
    for one in found:
        one.argument, one.address = thing.argument, True
        if isinstance(new, Unix):
            one.does = possible(call.row.name)[thing.argument]
    return found
