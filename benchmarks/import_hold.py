"""How long an import of many labels keeps somebody waiting who labels in the same study.

    python -m benchmarks.import_hold [--rows N] [--on sqlite,postgresql]

The command ``import`` runs in a process of its own, into a study that has labels and an overlap, while this process
labels there, an answer after the other, as the label page calls it.  A third connection looks every millisecond: on
SQLite, whether it could write, on PostgreSQL, whether somebody waits for a lock.  The longest time in which it could
not, or somebody did, is how long others were held; the rest of an answer's time is the processor's, which they share.
"""

from __future__ import annotations

import argparse
import gc
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from threading import Event, Thread

import numpy as np
from sqlalchemy import Engine, make_url, text

from benchmarks.import_speed import own
from copl_core.__main__ import open_store
from copl_core.config import Settings
from copl_core.records import Choice, ImportRow
from copl_core.study import access, contents, labelling
from copl_core.study.session import Session
from copl_core.study_settings import AssignmentSettings
from tests.databases import NoPostgres, private_server

DESCRIPTION = "how long an import of 100,000 labels keeps somebody waiting who labels in the same study"
ROOT = Path(__file__).resolve().parents[1]
PAIRS, READERS, ALONE = 2_000, 5, 200  # of the study before the import; answers before it begins
LOOK_SECONDS = 0.001
IMPORT = "import"  # what PostgreSQL knows its connections by


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.import_hold", description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--on", metavar="DATABASES", default="sqlite,postgresql")
    arguments = parser.parse_args(argv)
    print(f"{arguments.rows:,} rows; the aim: nobody waits more than 100 ms")
    print(f"{'database':12}{'':16}{'answers':>9}{'p50':>8}{'p95':>8}{'most':>8}   ms{'import':>11}{'others held':>15}")
    for name in arguments.on.split(","):
        with tempfile.TemporaryDirectory() as folder:
            try:
                with database(name) as url:
                    measure(name, Settings(home=Path(folder) / "home", database_url=url), Path(folder), arguments.rows)
            except NoPostgres as missing:
                print(f"{name:12}skipped: {missing}")
    return 0


@contextmanager
def database(name: str) -> Iterator[str | None]:
    if name == "sqlite":
        yield None
    else:
        with private_server() as url:
            yield url


def measure(name: str, settings: Settings, folder: Path, n_rows: int) -> None:
    session = prepare(settings)
    user = access.join(session, "Ann").id
    ended = Event()
    gc.collect()
    gc.freeze()  # what is measured is the database: a look of Python's collector at all that is loaded takes 0.2 s
    alone = answers(session, user, until=lambda n: n == ALONE)
    print(f"{name:12}{'before it':16}{line(alone)}")
    held = Held(lock_of_sqlite(settings.home) if name == "sqlite" else lock_of_postgres(session.store.engine), ended)
    environment = os.environ | {"COPL_HOME": str(settings.home)}
    if settings.database_url:
        named = make_url(settings.database_url).update_query_dict({"application_name": IMPORT})
        environment["COPL_DATABASE_URL"] = named.render_as_string(hide_password=False)
    started = time.perf_counter()
    command = [sys.executable, "-m", "copl_core", "import", str(own(folder, n_rows)), "--study", "Held"]
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
    meanwhile = answers(session, user, until=lambda n: process.poll() is not None)
    seconds = time.perf_counter() - started
    ended.set()
    if process.returncode:
        raise SystemExit(f"the import ended with {process.returncode}")
    print(f"{'':12}{'meanwhile':16}{line(meanwhile)}{seconds:9.1f} s{1000 * held.longest():12.0f} ms", flush=True)
    imported = session.store.label_count(session.id) - PAIRS * READERS - len(alone) - len(meanwhile)
    if imported != n_rows:
        raise SystemExit(f"{imported:,} of {n_rows:,} labels were imported")


def prepare(settings: Settings) -> Session:
    store = open_store(settings)
    session = Session(store, settings, store.create_study("Held").id)
    labelling.set_assignment(session, AssignmentSettings(overlap=50))
    rows = (
        ImportRow(0, f"question {n % 50}", f"first {n}", f"second {n}", Choice.LEFT, f"reader {who}", key=f"{n}-{who}")
        for n in range(PAIRS)
        for who in range(READERS)
    )
    contents.import_rows(session, rows)
    return session


def answers(session: Session, user: int, until) -> np.ndarray:
    """Milliseconds (n,) of each answer: the label is stored, and the next pair is there.  Once every pair is answered,
    it waits for those of the import."""
    times: list[float] = []
    task = labelling.next_task(session, user)
    while not until(len(times)):
        if task is None:
            time.sleep(0.1)
            task = labelling.next_task(session, user)
            continue
        started = time.perf_counter()
        task = labelling.submit(session, task.id, user, Choice.LEFT, milliseconds=2000).next_task
        times.append(1000 * (time.perf_counter() - started))
        time.sleep(0.02)
    return np.array(times)


def line(times: np.ndarray) -> str:
    p50, p95 = np.quantile(times, (0.5, 0.95))
    return f"{len(times):9,}{p50:8.1f}{p95:8.1f}{times.max():8.1f}     "


class Held:
    """Looks for how long somebody is held, until an event."""

    def __init__(self, look: AbstractContextManager[Callable[[], bool]], ended: Event) -> None:
        self._look, self._ended, self._longest = look, ended, 0.0
        self._thread = Thread(target=self._watch)
        self._thread.start()

    def longest(self) -> float:
        """Seconds."""
        self._thread.join()
        return self._longest

    def _watch(self) -> None:
        with self._look as is_held:
            free = time.perf_counter()
            while not self._ended.is_set():
                if is_held():
                    self._longest = max(self._longest, time.perf_counter() - free)
                else:
                    free = time.perf_counter()
                time.sleep(LOOK_SECONDS)


@contextmanager
def lock_of_sqlite(home: Path) -> Iterator[Callable[[], bool]]:
    """Whether somebody has the writer."""
    with closing(sqlite3.connect(home / "copl.db", timeout=0, isolation_level=None)) as connection:

        def is_held() -> bool:
            try:
                connection.execute("begin immediate")
            except sqlite3.OperationalError:
                return True
            connection.execute("rollback")
            return False

        yield is_held


@contextmanager
def lock_of_postgres(engine: Engine) -> Iterator[Callable[[], bool]]:
    """Whether somebody but the import waits for a lock; within a transaction the server would always tell the same."""
    waits = text("select 1 from pg_stat_activity where wait_event_type = 'Lock' and application_name <> :name")
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        yield lambda: connection.execute(waits, {"name": IMPORT}).first() is not None


if __name__ == "__main__":
    sys.exit(main())
