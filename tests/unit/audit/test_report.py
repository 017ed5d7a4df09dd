"""The report: what it counts, that it stays small, and that a log's text stays text."""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import pytest

from pinfold.audit import chain, collect
from pinfold.audit.collect import Collection, sections, touches
from pinfold.audit.collect import collect as collected
from pinfold.audit.page import moment, page
from pinfold.audit.record import describe
from pinfold.codec.openhow import OpenHow
from tests.unit.audit.logs import START, entry, write

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from pinfold.audit.record import Entry

EVIL = b"</script><img src=x onerror=alert(1)>"
HOSTILE = (
    EVIL,
    b'"><svg onload=alert(1)>',
    b"' onclick='alert(1)",
    b"<!--<script>",
    b"]]>&lt;b&#62;",
    b"\xff\x1b[2J\xe2\x80\xae",
)
SCRIPT = files("pinfold.audit").joinpath("page.js").read_text("utf-8")


class Page(HTMLParser):
    """What a page consists of, as a browser would see it."""

    VOID = frozenset({"meta", "br", "input"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: dict[str, list[str]] = {}
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.setdefault(self.open[-1] if self.open else "", []).append(data)

    def handle_comment(self, data: str) -> None:
        raise AssertionError(data)

    @property
    def tree(self) -> Any:
        return json.loads(self.text["script"][0])


def report(tmp_path: Path, entries: Iterable[Entry]) -> tuple[Collection, str]:
    path = tmp_path / "log"
    write(path, entries)
    collection = collected(io.BytesIO(path.read_bytes()))
    return collection, "".join(page(collection, "a <log>"))


def everything_hostile() -> Iterable[Entry]:
    for text in HOSTILE:
        for verdict in ("allow", "deny", "kill", "redirect", "serve", "return"):
            yield entry(
                b"/" + text,
                verdict=verdict,
                program=text,
                rule=text.decode(errors="surrogateescape"),
                errno=text.decode(errors="surrogateescape"),
                value=text if verdict == "serve" else 3,
                replaced=((1, text, text + b"2"),),
            )


def test_a_logs_text_stays_text(tmp_path: Path) -> None:
    _, text = report(tmp_path, everything_hostile())
    _, plain = report(tmp_path, [entry()])
    found, harmless = Page(text), Page(plain)
    allowed = {tag for tag, _ in harmless.tags} | {"table", "circle", "title", "tr", "td", "div"}
    assert {tag for tag, _ in found.tags} <= allowed | {"thead", "tbody", "th", "p", "br"}
    for tag, attributes in found.tags:
        assert not any(name.startswith("on") for name in attributes), (tag, attributes)
        assert not {"src", "href", "style"} & set(attributes)
    assert len([tag for tag, _ in found.tags if tag == "script"]) == 2
    assert "<" not in found.text["script"][0]
    assert EVIL.decode() in "".join(found.text["td"])
    assert "onerror" in json.dumps(found.tree)
    assert text.isascii() or text.encode()
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\ud800-\udfff]", text)


def test_nothing_is_loaded_and_one_script_runs(tmp_path: Path) -> None:
    _, text = report(tmp_path, [entry()])
    found = Page(text)
    policy = next(attrs["content"] for tag, attrs in found.tags if "http-equiv" in attrs)
    assert policy is not None
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy
    assert "http:" not in text
    assert "https:" not in text
    assert found.text["script"][1] == SCRIPT
    from base64 import b64encode
    from hashlib import sha256

    for name in ("style", "script"):
        digest = b64encode(sha256(found.text[name][-1].encode()).digest()).decode()
        assert f"{name}-src 'sha256-{digest}'" in policy


def test_the_summary_needs_no_script(tmp_path: Path) -> None:
    _, text = report(tmp_path, [entry(b"/secret", verdict="deny"), entry()])
    without = re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL)
    found = Page(without)
    cells = found.text["td"]
    assert "deny EACCES" in cells
    assert "/secret" in cells
    assert any("every line follows" in one for one in found.text["p"])
    assert found.text["dd"][0] == "cat \\xff"
    assert next(one for tag, one in found.tags if tag == "svg")["role"] == "img"
    for level in ("h1", "h2"):
        assert found.text[level]


def test_a_log_that_is_not_in_order_says_so(tmp_path: Path) -> None:
    path = tmp_path / "log"
    write(path, [entry(b"/one"), entry(b"/two")])
    path.write_bytes(path.read_bytes().replace(b"/one", b"/eno"))
    collection = collected(io.BytesIO(path.read_bytes()))
    text = "".join(page(collection, "log"))
    assert "Not verified: line 2: it does not follow" in text
    assert "Complete" not in text
    assert collection.summary.calls == 2


def test_an_old_log_and_no_log_at_all() -> None:
    old = json.dumps(describe(entry(b"/secret", verdict="deny"))).encode() + b"\n"
    collection = collected(io.BytesIO(old))
    assert collection.old
    assert len(collection.denials.counts) == 1
    for data in (old, b"", b"\0\n" * 10):
        Page("".join(page(collected(io.BytesIO(data)), "log")))


def test_what_is_counted(tmp_path: Path) -> None:
    writes = {2: OpenHow(0, 0, 0o101, 0, 0)}
    collection, text = report(
        tmp_path,
        [
            entry(b"/a/b", pid=1),
            entry(b"/a/b", pid=1, verdict="deny", time=1_700_000_001.0),
            entry(b"/a/c", pid=2, call="openat2", others=writes),
            entry(b"/a/c", pid=2, call="openat2", others=writes, verdict="deny", dry=True),
            entry(b"/a", pid=2, call="unlink", program=b"/bin/rm"),
        ],
    )
    tree = Page(text).tree
    assert tree[:6] == ["/", 5, 2, 3, 2, 0]
    (a,) = tree[6]
    assert a[:6] == ["a", 5, 2, 3, 2, 0]
    assert [child[:6] for child in a[6]] == [["b", 2, 2, 0, 1, 0], ["c", 2, 0, 2, 1, 0]]
    one, two = collection.processes.values()
    assert (one.pid, one.calls, one.denied, one.last - one.first) == (1, 2, 1, 0.5)
    assert (two.pid, two.programs) == (2, ["/bin/cat", "/bin/rm"])
    tables = {section.title: section.rows for section in sections(collection)}
    assert [row[:4] for row in tables["Denials"]] == [
        ("1", "deny EACCES", "openat", "/a/b"),
        ("1", "deny EACCES (dry run)", "openat2", "/a/c"),
    ]
    assert tables["Calls by group and verdict"] == [("open", "2", "2"), ("unlink", "1", "")]


@pytest.mark.parametrize(
    ("call", "flags", "expected"),
    [
        ("openat", "O_RDONLY|O_CLOEXEC", (True, False)),
        ("openat", "O_RDWR", (True, True)),
        ("openat", "O_WRONLY|O_CREAT", (False, True)),
        ("open", "O_RDONLY|O_CREAT", (True, True)),
        ("creat", None, (False, True)),
        ("rename", None, (False, True)),
        ("setxattr", None, (False, True)),
        ("getxattr", None, (True, False)),
        ("stat", None, (True, False)),
        ("execve", 3, (True, False)),
    ],
)
def test_reads_and_writes(call: str, flags: Any, expected: tuple[bool, bool]) -> None:
    assert touches({"syscall": call, "args": {"flags": flags}}) == expected


def test_a_large_hostile_log_makes_a_small_page(monkeypatch: pytest.MonkeyPatch) -> None:
    # The limits are brought down so that so few calls are beyond each of them.
    monkeypatch.setattr(collect, "NODES_MAX", 3000)
    monkeypatch.setattr(collect, "PROCESSES_MAX", 500)
    monkeypatch.setattr(collect, "DENIALS_MAX", 600)
    monkeypatch.setattr(collect, "SENT_MAX", 600)
    collection = Collection()
    verdicts = ("deny", "redirect", "allow")
    for number in range(6000):
        long = "/".join(f"<{number}\udcff\U000e0001" * 30 for _ in range(60))
        collection.add(
            {
                "time": float(number),
                "pid": number,
                "syscall": f"openat{number}",
                "program": long,
                "args": {"path": long},
                "verdict": verdicts[number % 3],
                "names": [f"/{long}", f"/{number}"],
                "substituted": {"path": {"from": long, "to": [long]}},
            }
        )
    collection.verification = collected(io.BytesIO(b"")).verification
    assert collection.nodes <= 3000
    assert len(collection.processes) == 500
    text = "".join(page(collection, "log"))
    Page(text)
    assert len(text) < 8_000_000
    for words in ("more denied calls", "more processes", "more calls that are not told apart"):
        assert words in text


def test_hostile_fields_do_not_make_it_fail() -> None:
    deep: Any = 0
    for _ in range(400):
        deep = [deep]
    said = [
        {"time": 1e300, "args": {"flags": [], "address": {}, "message": {"to": 3}, "path": 1}},
        {"time": -1e300, "args": {"deep": deep}, "verdict": "deny"},
        {"time": 0, "substituted": {"a": 3, "b": {}, "c": {"from": deep}}, "verdict": "redirect"},
        {"time": 5, "args": {"message": []}, "verdict": "x" * 9999, "syscall": "y" * 9999},
        {"time": 5, "names": ["", "/", "relative", "//a//b", "\0"], "verdict": "serve"},
    ]
    base = {"type": "call", "pid": 1, "tid": 1, "program": "", "syscall": "open", "args": {}}
    lines, head = [], chain.FIRST
    start = {"type": "start", "schema": 1, "pinfold": "", "time": 1e200, "on_loss": "", **START}
    start |= {"argv": [{"omitted": 1}, deep], "policy": [3, {}]}
    for number, record in enumerate(said, 1):
        if number == 1:
            line, head = chain.seal(head, start)
            lines.append(line)
        line, head = chain.seal(head, base | {"seq": number, "verdict": "deny"} | record)
        lines.append(line)
    collection = collected(io.BytesIO(b"".join(lines)))
    assert collection.summary.calls == len(said)
    Page("".join(page(collection, "log")))
    assert list(sections(collection))


def test_moments() -> None:
    assert moment(0) == "1970-01-01 00:00:00 UTC"
    assert moment(1e300) == "1e+300"


NODE = shutil.which("node")

# As much of a browser as the page's script needs.
DOM = r"""
class Node {
  constructor(name) { this.name = name; this.children = []; this.text = ""; this.listeners = {}; }
  set textContent(text) { this.text = String(text); this.children = []; }
  get textContent() {
    return this.text + this.children.map((c) => typeof c === "string" ? c : c.textContent).join("");
  }
  append(...more) { this.children.push(...more); }
  replaceChildren() { this.children = []; }
  addEventListener(what, call) { this.listeners[what] = call; }
  set open(value) { if (value) this.listeners.toggle(); }
  set innerHTML(_) { throw new Error("markup"); }
}
const byId = {};
for (const id of ["tree-data", "tree", "search", "search-form", "found"]) byId[id] = new Node(id);
byId["tree-data"].textContent = process.env.TREE;
byId.search.value = "";
const rows = ["deny /secret", "allow /open"].map((text) => {
  const row = new Node("tr"); row.textContent = text; return row;
});
globalThis.document = {
  getElementById: (id) => byId[id],
  createElement: (name) => new Node(name),
  querySelectorAll: () => rows,
};
"""
CHECKS = r"""
const out = [byId.tree.textContent, byId["search-form"].hidden];
byId.search.value = "  SECRET ";
byId.search.listeners.input();
out.push(byId.tree.textContent, rows.map((row) => row.hidden), byId.found.textContent);
byId.search.value = "";
byId.search.listeners.input();
out.push(byId.tree.textContent, rows.map((row) => row.hidden));
console.log(JSON.stringify(out));
"""


@pytest.mark.skipif(NODE is None, reason="no node to run the page's script with")
def test_the_script_shows_the_tree_and_searches(tmp_path: Path) -> None:
    assert NODE is not None
    _, text = report(tmp_path, [entry(b"/secret/" + EVIL, verdict="deny"), entry(b"/open")])
    tree = Page(text).text["script"][0]
    done = subprocess.run(
        [NODE, "-"],
        input=DOM + SCRIPT + CHECKS,
        env={"TREE": tree},
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    first, hidden, hits, rows, found, again, shown_rows = json.loads(done.stdout)
    assert first == "/2 calls, 2 read 1 deniedopen1 call, 1 readsecret/1 call, 1 read 1 denied"
    assert hidden is False
    assert hits.startswith("/secret1 call")
    assert "/secret/</script1 call" in hits.replace("\n", "") or EVIL.decode().split("/")[0] in hits
    assert rows == [False, True]
    assert found == "1 of 2 rows"
    assert again == first
    assert shown_rows == [False, False]
