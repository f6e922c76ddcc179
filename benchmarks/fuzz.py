"""Random requests at every entry of an installation: what is refused changes nothing, fails nowhere and shows nothing.

    python -m benchmarks.fuzz [--requests N] [--seed N] [--data FOLDER]

The entries are the app and its websocket, the reward server and the health port of a trainer, as real processes; the
import of damaged files and the terminal in this process.  Requests come from nobody, from a member and from an owner.
After thirty sign-ins that failed in a minute an address is answered with 429, which is right: so half of the requests
over HTTP come from one address, and the others from as many addresses of this machine, whose sign-ins are looked at.
Counted are the answers, tracebacks (in answers and logs), refusals that left something in the database, and texts that
only owners may read in answers to others.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any

from sqlalchemy import Table, text, true
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from benchmarks import fuzz_requests, import_speed
from benchmarks.cluster import ask, free_ports
from benchmarks.web_visitors import sign_in
from copl_core.__main__ import _parser, open_store
from copl_core.__main__ import main as terminal
from copl_core.config import Settings
from copl_core.formats.files import open_file
from copl_core.records import Choice, CoplError, ImportRow, Role
from copl_core.study import access, bundle, contents, labelling, service_tokens
from copl_core.study.session import Session
from db.base import Base

DESCRIPTION = "10,000 random requests: tracebacks, partial writes, and texts shown to those who may not read them"
ROOT = Path(__file__).resolve().parents[1]
SHARES = {"app": 0.3, "websocket": 0.05, "server": 0.3, "health": 0.1, "import": 0.15, "terminal": 0.1}
# Texts that only an owner may read, and those that only members may read.
OWNERS = ("canary-mail-7f3a", "canary-token-7f3a", "canary-text-7f3a", "canary-reason-7f3a")
MEMBERS = ("member-text-7f3a",)
LIVING = {"trainer", "browser_session"}  # tables that processes write without a request
RESERVED = {"task", "draft", "session_user"}  # and those that opening a page writes
SLOW = {
    "up",
    "app",
    "worker",
    "serve",
    "weights",
    "fit",
    "evaluate",
    "audit",
}  # commands that go on, or compute for minutes
START_SECONDS = 120.0


@dataclass
class Tally:
    """What one entry answered."""

    entry: str
    requests: int = 0
    answers: Counter[str] = field(default_factory=Counter)
    tracebacks: list[str] = field(default_factory=list)
    written: list[str] = field(default_factory=list)
    shown: list[str] = field(default_factory=list)

    @property
    def faults(self) -> list[str]:
        return [*self.tracebacks, *self.written, *self.shown]

    def line(self) -> str:
        answers = ", ".join(f"{name} {n:,}" for name, n in sorted(self.answers.items()))
        counts = (len(self.tracebacks), len(self.written), len(self.shown))
        return f"{self.entry:11}{self.requests:9,}{counts[0]:12}{counts[1]:16}{counts[2]:14}   {answers}"

    def look(self, content: bytes, hidden: tuple[str, ...], request: object) -> None:
        for word in hidden:
            if word.encode() in content:
                self.shown.append(f"{word} after {request!r}"[:300])
        if b"Traceback (most recent call last)" in content:
            self.tracebacks.append(f"in the answer to {request!r}"[:300])


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fuzz", description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", type=Path, help="folder with more files to damage")
    chosen = parser.parse_args(argv)
    n = {entry: max(1, round(share * chosen.requests)) for entry, share in SHARES.items()}
    print(
        f"{'entry':11}{'requests':>9}{'tracebacks':>12}{'partial writes':>16}{'texts shown':>14}   answers", flush=True
    )
    faults: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        world = World(Path(name) / "home")
        for tally in entries(world, n, chosen.seed, chosen.data):
            print(tally.line(), flush=True)
            faults += [f"{tally.entry}: {one}" for one in tally.faults]
    print("\n".join(faults[:40]))
    return int(bool(faults))


class World:
    """An installation with two studies by invitation, an owner, a member, and texts of others to look for."""

    def __init__(self, home: Path) -> None:
        self.settings = Settings(home=home)
        self.store = open_store(self.settings)
        self.session = self._study("First", MEMBERS[0])
        other = self._study("Other", OWNERS[2])
        access.owner(other)
        self.owner, self.member = access.owner(self.session), access.join(self.session, "Mem")
        friend = access.join(self.session, "Friend")
        task = labelling.next_task(self.session, friend.id)
        labelling.submit(self.session, task.id, friend.id, Choice.LEFT, reason=OWNERS[3])
        access.set_email(self.session, f"{OWNERS[0]}@example.org", Role.ANNOTATOR)
        service_tokens.make_token(self.session, OWNERS[1])
        self.links = {one.name: access.sign_in_token(self.session, one.id) for one in (self.owner, self.member)}
        self.bundle = home / "kept.zip"
        bundle.backup(self.session, self.bundle)

    def _study(self, name: str, words: str) -> Session:
        record = self.store.create_study(name, open=False)
        session = Session(self.store, self.settings, record.id)
        contents.import_rows(
            session, [ImportRow(n, f"{words} {n}", f"{words} a{n}", f"{words} b{n}") for n in range(6)]
        )
        return session

    def digests(self, without: set[str] = frozenset()) -> dict[str, str]:
        """Of the rows of every table, but those that change without a request and what the member may do themselves."""
        with self.store.engine.connect() as connection:
            tables = [table for table in Base.metadata.sorted_tables if table.name not in LIVING | without]
            rows = {one.name: sorted(map(repr, connection.execute(self._of_others(one)).all())) for one in tables}
            return {name: sha256(repr(own).encode()).hexdigest() for name, own in rows.items()}

    def _of_others(self, table: Table) -> Any:
        others = table.c.user_id.is_distinct_from(self.member.id) if "user_id" in table.c else true()
        return table.select().where(others)

    def counts(self) -> list[int]:
        """Rows of every table, and the changes of the studies."""
        with self.store.engine.connect() as connection:
            quoted = [f'"{table.name}"' for table in Base.metadata.sorted_tables if table.name not in LIVING]
            queries = [f"select count(*) from {name}" for name in quoted] + [
                "select coalesce(sum(revision), 0) from study"
            ]
            return [connection.execute(text(query)).scalar_one() for query in queries]


def entries(world: World, n: dict[str, int], seed: int, data: Path | None) -> Iterator[Tally]:
    yield from living_entries(world, n, seed)
    yield imports(world, n["import"], seed, data)
    yield terminals(world, n["terminal"], seed)


# ---- processes


def living_entries(world: World, n: dict[str, int], seed: int) -> Iterator[Tally]:
    app, server, health = free_ports(3)
    port = {"COPL_PORT": str(app), "COPL_REFIT_LABELS": "1000000", "COPL_REWARD_LABELS": "1000000"}
    with (
        process(world, ["app"], port, app),
        process(world, ["serve", "--port", str(server)], port, server),
        process(world, ["worker", "--health-port", str(health)], port, health),
    ):
        for entry, at, paths, command in (
            ("app", app, fuzz_requests.APP, "app"),
            ("server", server, fuzz_requests.SERVER, "serve"),
            ("health", health, fuzz_requests.HEALTH, "worker"),
        ):
            tally = http(world, entry, n[entry], seed, paths, at)
            tally.tracebacks += in_log(world, command)
            yield tally
        tally = asyncio.run(websockets(world, n["websocket"], seed, app))
        tally.tracebacks += in_log(world, "app")
        yield tally


@contextmanager
def process(world: World, command: list[str], variables: dict[str, str], port: int) -> Iterator[None]:
    environment = os.environ | variables | {"COPL_HOME": str(world.settings.home), "OMP_NUM_THREADS": "1"}
    with log_of(world, command[0]).open("wb") as out:
        running = subprocess.Popen(
            [sys.executable, "-m", "copl_core", *command], cwd=ROOT, env=environment, stdout=out, stderr=out
        )
        try:
            until = time.monotonic() + START_SECONDS
            while ask(f"http://127.0.0.1:{port}/healthz")[0] == 0:
                if running.poll() is not None or time.monotonic() > until:
                    raise SystemExit(f"{command[0]} does not answer:\n{log_of(world, command[0]).read_text()[-2000:]}")
                time.sleep(0.2)
            yield
        finally:
            running.kill()
            running.wait()


def log_of(world: World, command: str) -> Path:
    return world.settings.home / f"{command}.output"


def in_log(world: World, command: str) -> list[str]:
    """The tracebacks in a log since it was last read; it is emptied."""
    log = log_of(world, command)
    content = log.read_text(errors="replace")
    os.truncate(log, 0)
    return [one.strip()[-300:] for one in content.split("Traceback (most recent call last)")[1:]]


def http(world: World, entry: str, n: int, seed: int, paths: tuple[str, ...], port: int) -> Tally:
    """Send requests with the cookie of nobody, of a member and of an owner."""
    tally, random, before = Tally(entry), Random(f"{entry} {seed}"), world.digests(RESERVED)
    cookies = (
        {name: sign_in(f"http://127.0.0.1:{port}", link) for name, link in world.links.items()}
        if entry == "app"
        else {}
    )
    for _ in range(n):
        who = random.choice(("nobody", *cookies))
        request, whole = fuzz_requests.http_request(random, paths)
        if who in cookies:
            request = request.replace(b"\r\n", b"\r\nCookie: " + cookies[who].encode() + b"\r\n", 1)
        answer = ask_raw(port, request, 10.0 if whole else 0.3, somewhere(random))
        tally.requests += 1
        found = re.match(rb"HTTP/1\.1 (\d)\d\d", answer)
        limited = answer.startswith(b"HTTP/1.1 429 ")
        tally.answers["429" if limited else f"{found[1].decode()}xx" if found else "closed"] += 1
        if found and found[1] == b"5" and b" 503 " not in answer[:20] and b" 501 " not in answer[:20]:
            tally.tracebacks.append(f"{answer[:40]!r} after {request[:200]!r}")
        tally.look(answer, hidden_from(world, who), request[:200])
    tally.written += [name for name, digest in world.digests(RESERVED).items() if digest != before[name]]
    return tally


def hidden_from(world: World, who: str) -> tuple[str, ...]:
    if who == world.owner.name:
        return OWNERS[2:3]  # the other study is not theirs
    return OWNERS if who == world.member.name else OWNERS + MEMBERS


def somewhere(random: Random) -> str:
    """The address that a request comes from: half of them from one, the others from any of this machine."""
    many = sys.platform == "linux"  # where every address of 127.0.0.0/8 is this machine
    if not many:
        return "127.0.0.1"
    return "127.9.9.9" if random.random() < 0.5 else f"127.{random.randint(10, 250)}.{random.randint(0, 255)}.1"


def ask_raw(port: int, request: bytes, seconds: float, source: str = "127.0.0.1") -> bytes:
    """The whole answer; what has come where the connection breaks or the server waits for more."""
    answer = b""
    connected = partial(socket.create_connection, ("127.0.0.1", port), seconds, (source, 0))
    with suppress(OSError), connected() as connection:
        connection.sendall(request)
        while more := connection.recv(1 << 16):
            answer += more
    return answer


# ---- the app's websocket


async def websockets(world: World, n: int, seed: int, port: int) -> Tally:
    """Messages of nobody and of a member, with the widgets of an owner among them."""
    tally, random = Tally("websocket"), Random(f"websocket {seed}")
    address = f"http://127.0.0.1:{port}"
    cookies = {name: sign_in(address, link) for name, link in world.links.items()}
    widgets: set[str] = set()
    fragments: set[str] = set()
    for page in ("", "label", "taste", "people", "reward", "training", "quality", "settings"):
        async with _socket(address, cookies[world.owner.name]) as owner:
            message = BackMsg()
            message.rerun_script.page_name = page
            for content in await _talk(owner, message.SerializeToString()):
                widgets.update(one.decode() for one in re.findall(rb"\$\$ID-[\w-]+", content))
                forward = ForwardMsg.FromString(content)
                if forward.WhichOneof("type") == "delta" and forward.delta.fragment_id:
                    fragments.add(forward.delta.fragment_id)
    before = world.digests(RESERVED)
    while tally.requests < n:
        who = random.choice(("nobody", world.member.name))
        with suppress(WebSocketException, OSError, EOFError):
            async with _socket(address, cookies.get(who, "")) as connection:
                for _ in range(random.randrange(1, 8)):
                    if tally.requests >= n:
                        break
                    message = fuzz_requests.socket_message(random, sorted(widgets), sorted(fragments))
                    tally.requests += 1
                    try:
                        answers = await _talk(connection, message)
                    except (WebSocketException, OSError, EOFError):
                        tally.answers["closed"] += 1
                        raise
                    tally.answers["answered" if answers else "ignored"] += 1
                    for content in answers:
                        tally.look(content, hidden_from(world, who), message)
                        tally.tracebacks += _exceptions(content)
    tally.written += [name for name, digest in world.digests(RESERVED).items() if digest != before[name]]
    return tally


def _socket(address: str, cookie: str):
    headers = {"Cookie": cookie} if cookie else {}
    return connect(
        f"{address.replace('http:', 'ws:')}/_stcore/stream",
        subprotocols=["streamlit"],
        additional_headers=headers,
        max_size=None,
        open_timeout=20,
        ping_interval=None,
    )


async def _talk(connection, message: bytes | str) -> list[bytes]:
    """What the app sends after a message: until a page has run, or half a second nothing."""
    await connection.send(message)
    received: list[bytes] = []
    patience = 0.5
    while True:
        try:
            content = await asyncio.wait_for(connection.recv(), patience)
        except TimeoutError:
            return received
        received.append(content if isinstance(content, bytes) else content.encode())
        patience = 3.0  # a page runs
        if isinstance(content, bytes) and ForwardMsg.FromString(content).WhichOneof("type") == "script_finished":
            patience = 0.05


def _exceptions(content: bytes) -> list[str]:
    """Errors that the page shows without a sentence of ours."""
    with suppress(Exception):
        message = ForwardMsg.FromString(content)
        if message.WhichOneof("type") == "delta" and message.delta.WhichOneof("type") == "new_element":
            element = message.delta.new_element
            if element.WhichOneof("type") == "exception":
                return [f"{element.exception.type}: {element.exception.message}"[:300]]
    return []


# ---- in this process


def imports(world: World, n: int, seed: int, data: Path | None) -> Tally:
    """Damaged files of many formats into a study of their own."""
    tally, random = Tally("import"), Random(f"import {seed}")
    folder = world.settings.home / "files"
    folder.mkdir(exist_ok=True)
    seeds = [import_speed.KINDS[kind](folder, 12) for kind in import_speed.KINDS]
    seeds += [world.bundle, *(path for path in sorted(data.rglob("*")) if 0 < _size(path) < 200_000)] if data else []
    for _ in range(n):
        path = fuzz_requests.mutated_file(random, seeds, folder)
        before, content = world.counts(), path.read_bytes()
        session = Session(world.store, world.settings, world.session.id)
        tally.requests += 1
        try:
            report = contents.import_rows(session, open_file(path).rows())
            tally.answers["taken" if report.labels_new or report.pairs_new else "nothing new"] += 1
        except CoplError:
            tally.answers["refused"] += 1
            if world.counts() != before:
                tally.written.append(f"{path.name}: {content[:100]!r}")
        except Exception:
            tally.tracebacks.append(f"{path.name}: {traceback.format_exc()[-300:]} {content[:100]!r}")
    return tally


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def terminals(world: World, n: int, seed: int) -> Tally:
    """Commands that end by themselves, with options and words of any kind."""
    tally, random = Tally("terminal"), Random(f"terminal {seed}")
    home = world.settings.home
    (home / "noise.bin").write_bytes(random.randbytes(500))
    words = [str(home / name) for name in ("noise.bin", "kept.zip", "none.jsonl", "new.zip", "files")] + ["/dev/null"]
    words += [
        "First",
        "Other",
        "Mem",
        "Friend",
        "Owner",
        "1",
        "2",
        "graph",
        "make",
        "list",
        "revoke",
        "own",
        "csv",
        "parquet",
    ]
    with _environment(COPL_HOME=str(home), HF_HUB_OFFLINE="1"):
        for _ in range(n):
            line = fuzz_requests.arguments(random, _commands(), words)
            _one_command(world, tally, line)
    return tally


def _one_command(world: World, tally: Tally, line: list[str]) -> None:
    before, out = world.counts(), io.StringIO()
    tally.requests += 1
    where = Path.cwd()
    try:
        os.chdir(world.settings.home)  # files that a command writes without a folder
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out), _no_input():
            status = terminal(line)
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    except Exception:
        tally.tracebacks.append(f"{line}: {traceback.format_exc()[-300:]}")
        return
    finally:
        os.chdir(where)
    tally.answers[f"status {status}"] += 1
    tally.look(out.getvalue().encode(errors="replace"), (), line)
    announced = "Incomplete: " in out.getvalue()  # of a damaged file, whose sound rows are taken
    if status and not announced and world.counts() != before:
        tally.written.append(f"status {status} after {line}")


@contextmanager
def _no_input() -> Iterator[None]:
    kept, sys.stdin = sys.stdin, io.StringIO("")
    try:
        yield
    finally:
        sys.stdin = kept


@contextmanager
def _environment(**variables: str) -> Iterator[None]:
    kept = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(kept)


def _commands() -> dict[str, list[str]]:
    """The options of every command that ends by itself."""
    actions = next(one for one in _parser()._actions if isinstance(one, argparse._SubParsersAction))
    return {
        name: [option for action in sub._actions for option in action.option_strings if "push" not in option]
        for name, sub in actions.choices.items()
        if name not in SLOW
    }


if __name__ == "__main__":
    sys.exit(main())
