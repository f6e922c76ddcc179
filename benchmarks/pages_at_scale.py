"""How long each page takes at 1,000,000 people and 16,000,000 labels on PostgreSQL, and what the database does for it.

    python -m benchmarks.pages_at_scale [--people N …] [--each N] [--pages PAGE …]

A private PostgreSQL is filled by ``benchmarks.large_study`` (a million people take minutes and 8 GB of disk), with a
snapshot that knows everybody.  Each page is then opened in the real app, over its websocket, as a browser opens it: by
an owner twice, by a researcher, and by somebody who only labels, where the page is open to them.  A fresh app serves
each page, in which only the labelling page was open before.

"First" is the time until the first sentence, figure or table is sent (on the labelling page: the pair's buttons), and
"whole" the time until the page's script ends.  A browser draws what it is sent in addition.  "Processor" is the
processor seconds of the app until the first content of the owner's first visit: on a machine that does other things too
they say more than the seconds on the clock.  "SQL" is the time of all statements of that visit inside the server; those
over 0.1 s follow with their counts.

An app reads its champion ahead (``web.open_ahead``), and a visit may come before it has ended.  So each app is given
``--pause`` seconds first, and with 0 the first visit waits for what is not read yet.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from websockets.asyncio.client import connect

from benchmarks import large_study
from benchmarks.app_alone import app_alone
from benchmarks.processes import memory_of, processor_of
from benchmarks.web_visitors import AWAY, BUTTON, sign_in
from copl_core.__main__ import open_store
from copl_core.config import Settings
from copl_core.study import access
from copl_core.study.session import Session
from tests.databases import NoPostgres, private_cluster

DESCRIPTION = "the time to the first content of every page at 1,000,000 people and 16,000,000 labels on PostgreSQL"
PAGES = ("overview", "label", "taste", "people", "experts", "controversy", "reward", "training", "quality", "settings")
FOR_RESEARCHERS, FOR_ANNOTATORS = PAGES[:-1], ("label", "taste")
DEFAULT = {"annotator": "label"}  # the page that a role sees at the address without a path; others see "overview"
CONTENT = {"markdown", "plotly_chart", "arrow_data_frame", "alert", "table"}
PATIENCE = 120.0  # seconds for one page
SLOW = 0.1  # seconds of a statement that is listed
MAIN = 0  # the first number of the path of what stands in the page, not beside it
SERVER = {
    "shared_buffers": "1GB",
    "maintenance_work_mem": "1GB",
    "max_wal_size": "8GB",
    "checkpoint_timeout": "30min",
    "shared_preload_libraries": "pg_stat_statements",
    "effective_cache_size": "6GB",
    "jit": "off",  # compiles for seconds where a statement takes one
}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pages_at_scale", description=__doc__.splitlines()[0])
    parser.add_argument("--people", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--each", type=int, default=16, help="labels of a person")
    parser.add_argument("--prompts", type=int, default=12_500, help="with four responses and two pairs each")
    parser.add_argument("--pages", nargs="+", choices=PAGES, metavar="PAGE", default=PAGES)
    parser.add_argument("--pause", type=float, default=10.0, help="seconds between an app's start and its first visit")
    parser.add_argument("--weights", type=Path, default=Settings.from_environment().weights)
    parser.add_argument("--url", help="SQLAlchemy address of a filled database, with --home; nothing is made")
    parser.add_argument("--home", type=Path, help="of the filled database")
    arguments = parser.parse_args(argv)
    if arguments.url:
        measure(arguments.home, arguments.url, arguments.pages, arguments.pause)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        for people in arguments.people:
            try:
                with server() as url:
                    home = Path(folder) / str(people)
                    prepare(home, url, people, arguments, Path(folder) / "fit")
                    measure(home, url, arguments.pages, arguments.pause)
            except NoPostgres as missing:
                print(f"Skipped: {missing}")
                return 0
    return 0


@contextmanager
def server() -> Iterator[str]:
    """The address of a private PostgreSQL with ``SERVER``'s settings."""
    import psycopg

    with private_cluster() as cluster:
        with psycopg.connect(host=str(cluster.folder), user="copl", dbname="postgres", autocommit=True) as connection:
            for name, value in SERVER.items():
                connection.execute(f"alter system set {name} = '{value}'")
        cluster.restart()
        with psycopg.connect(host=str(cluster.folder), user="copl", dbname="postgres", autocommit=True) as connection:
            connection.execute("create extension pg_stat_statements")
        yield cluster.url


def prepare(home: Path, url: str, people: int, arguments: argparse.Namespace, fit: Path) -> None:
    """A filled study with its snapshot."""
    home.mkdir(parents=True)
    (home / "weights").symlink_to(arguments.weights.resolve(), target_is_directory=True)
    settings = Settings(home=home, database_url=url)
    store = open_store(settings)
    session = Session(store, settings, store.create_study("Large").id)
    with connected(url) as connection:
        large_study.fill(connection, session, people, arguments.each, arguments.prompts, tell)
        large_study.publish(connection, session, fit, tell)
        size = connection.execute("select pg_size_pretty(pg_database_size(current_database()))").fetchone()[0]
    tell(f"the database has {size}")
    store.close()


def connected(url: str) -> Any:
    import psycopg

    return psycopg.connect(url.replace("+psycopg", ""), autocommit=True)


def tell(what: str) -> None:
    print(f"  {what}", flush=True)


# ---- the pages


@dataclass
class Visit:
    """What one visit of a page took."""

    first: float = float("nan")
    whole: float = float("nan")
    processor: float = float("nan")  # seconds of the app until the first content
    errors: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.first:9.2f}{self.whole:9.2f}"


def measure(home: Path, url: str, pages: list[str], pause: float) -> None:
    settings = Settings(home=home, database_url=url)
    store = open_store(settings)
    session = Session(store, settings, store.current_study().id)
    with connected(url) as connection:
        people, labels = (
            connection.execute(f'select count(*) from "{name}"').fetchone()[0] for name in ("user", "label")
        )
        roles = {role: connection.execute('select min(id) from "user" where role = %s', [role]).fetchone()[0]
                 for role in ("owner", "researcher", "annotator")}  # fmt: skip
        tokens = {role: access.sign_in_token(session, user) for role, user in roles.items()}
        print(f"\n{people:,} people, {labels:,} labels; seconds to first content, and to the whole page")
        heads = ("owner", "again", "researcher", "annotator")
        print(
            f"{'page':12}" + "".join(f"{head:>18}" for head in heads) + f"{'processor':>10}{'SQL':>8}{'app MB':>8}",
            flush=True,
        )
        for page in pages:
            with app_alone(home, COPL_DATABASE_URL=url) as (address, process):
                one_page(connection, page, address, process, tokens, pause)
    store.close()


def one_page(
    connection: Any, page: str, address: str, process: subprocess.Popen, tokens: dict[str, str], pause: float
) -> None:
    """Measure one page in a fresh app, and print its row and its slow statements."""
    time.sleep(pause)
    cookies = {role: sign_in(address, token) for role, token in tokens.items()}
    if page != "label":
        look(address, cookies["owner"], "label", "owner", process)  # not counted
    connection.execute("select pg_stat_statements_reset()")
    visits = [look(address, cookies["owner"], page, "owner", process)]
    statements = connection.execute(
        "select query, calls, total_exec_time / 1000 from pg_stat_statements "
        "where query not like '%pg_stat_statements%' order by total_exec_time desc"
    ).fetchall()
    visits.append(look(address, cookies["owner"], page, "owner", process))
    for role, of_role in (("researcher", FOR_RESEARCHERS), ("annotator", FOR_ANNOTATORS)):
        if page in of_role:
            visits.append(look(address, cookies[role], page, role, process))
    row = "".join(map(str, visits)) + " " * 18 * (4 - len(visits))
    sql = sum(one[2] for one in statements)
    memory = 1024 * memory_of(process.pid)
    print(f"{page:12}{row}{visits[0].processor:10.2f}{sql:8.2f}{memory:8.0f}", flush=True)
    for query, calls, seconds in statements:
        if seconds >= SLOW:
            print(f"    {seconds:6.2f} s, {calls:4} times: {shortened(query)}", flush=True)
    for error in dict.fromkeys(error for visit in visits for error in visit.errors):
        print(f"    the page says: {error[:150]}", flush=True)


def shortened(query: str) -> str:
    """A statement without its columns and line ends."""
    words = re.sub(r"\s+", " ", query)
    return re.sub(r"SELECT (.{60}).*? FROM", r"SELECT \1 … FROM", words)[:230]


def look(address: str, cookie: str, page: str, role: str, process: subprocess.Popen) -> Visit:
    """Open a page and close it again."""
    visit = Visit()
    try:
        path = "" if page == DEFAULT.get(role, "overview") else page
        asyncio.run(_look(address, cookie, path, page, visit, process.pid))
    except AWAY as problem:
        visit.errors.append(f"{type(problem).__name__} after {PATIENCE:.0f} s: {problem}")
    return visit


async def _look(address: str, cookie: str, path: str, page: str, visit: Visit, pid: int) -> None:
    started, used = time.perf_counter(), processor_of(pid)
    stream = f"{address.replace('http://', 'ws://')}/_stcore/stream"
    options: dict[str, Any] = {"subprotocols": ["streamlit"], "additional_headers": {"Cookie": cookie}}
    async with asyncio.timeout(PATIENCE), connect(stream, max_size=None, ping_interval=None, **options) as connection:
        message = BackMsg()
        message.rerun_script.page_name = path
        await connection.send(message.SerializeToString())
        while True:
            received = ForwardMsg.FromString(await connection.recv())
            now = time.perf_counter() - started
            if received.WhichOneof("type") == "delta" and received.delta.WhichOneof("type") == "new_element":
                element = received.delta.new_element
                if visit.first != visit.first and is_content(received, element, page):
                    visit.first, visit.processor = now, processor_of(pid) - used
                if element.WhichOneof("type") == "exception":
                    visit.errors.append(f"{element.exception.type}: {element.exception.message}")
                elif element.WhichOneof("type") == "alert" and element.alert.format == element.alert.ERROR:
                    visit.errors.append(element.alert.body)
            if received.WhichOneof("type") == "script_finished" and received.script_finished != (
                ForwardMsg.FINISHED_EARLY_FOR_RERUN
            ):
                visit.whole = now
                return


def is_content(message: ForwardMsg, element: Any, page: str) -> bool:
    """Whether an element is a sentence, a figure or a table of the page; on the labelling page, a pair's button."""
    kind = element.WhichOneof("type")
    if page == "label":
        return kind == "button" and BUTTON.match(element.button.id) is not None
    if kind not in CONTENT or message.metadata.delta_path[0] != MAIN:
        return False
    return (
        kind != "markdown"
        or bool(element.markdown.body.strip())
        and (element.markdown.element_type != element.markdown.CAPTION)
    )


if __name__ == "__main__":
    sys.exit(main())
