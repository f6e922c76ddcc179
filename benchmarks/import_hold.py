"""How long an import of many labels keeps somebody waiting who labels in the same study.

    python -m benchmarks.import_hold [--rows N] [--on sqlite,postgresql]

The command ``import`` runs in a process of its own, into a study that has labels and an overlap, while this process
labels there, an answer after the other, as the label page calls it.  On SQLite a third connection tries every
millisecond whether it could write: the longest time in which it could not is how long the writer was held.
"""

from __future__ import annotations

import argparse
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

import numpy as np

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


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.import_hold", description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--on", metavar="DATABASES", default="sqlite,postgresql")
    arguments = parser.parse_args(argv)
    print(f"{arguments.rows:,} rows; the aim: nobody waits more than 100 ms")
    print(f"{'database':12}{'':16}{'answers':>9}{'p50':>8}{'p95':>8}{'most':>8}   ms{'import':>11}{'writer held':>15}")
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
    alone = answers(session, user, until=lambda n: n == ALONE)
    print(f"{name:12}{'before it':16}{line(alone)}")
    held = Held(settings.home / "copl.db", ended) if name == "sqlite" else None
    environment = os.environ | {"COPL_HOME": str(settings.home)}
    if settings.database_url:
        environment["COPL_DATABASE_URL"] = settings.database_url
    started = time.perf_counter()
    command = [sys.executable, "-m", "copl_core", "import", str(own(folder, n_rows)), "--study", "Held"]
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
    meanwhile = answers(session, user, until=lambda n: process.poll() is not None)
    seconds = time.perf_counter() - started
    ended.set()
    if process.returncode:
        raise SystemExit(f"the import ended with {process.returncode}")
    longest = f"{1000 * held.longest():12.0f} ms" if held else ""
    print(f"{'':12}{'meanwhile':16}{line(meanwhile)}{seconds:9.1f} s{longest}", flush=True)
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
    """Milliseconds (n,) of each answer: the label is stored, and the next pair is there."""
    times: list[float] = []
    task = labelling.next_task(session, user)
    while not until(len(times)):
        started = time.perf_counter()
        task = labelling.submit(session, task.id, user, Choice.LEFT, milliseconds=2000).next_task
        times.append(1000 * (time.perf_counter() - started))
        time.sleep(0.02)
    return np.array(times)


def line(times: np.ndarray) -> str:
    p50, p95 = np.quantile(times, (0.5, 0.95))
    return f"{len(times):9,}{p50:8.1f}{p95:8.1f}{times.max():8.1f}     "


class Held:
    """Looks whether SQLite's writer is held, until an event."""

    def __init__(self, path: Path, ended: Event) -> None:
        self._path, self._ended, self._longest = path, ended, 0.0
        self._thread = Thread(target=self._look)
        self._thread.start()

    def longest(self) -> float:
        """Seconds."""
        self._thread.join()
        return self._longest

    def _look(self) -> None:
        connection = sqlite3.connect(self._path, timeout=0, isolation_level=None)
        free = time.perf_counter()
        while not self._ended.is_set():
            try:
                connection.execute("begin immediate")
                connection.execute("rollback")
                free = time.perf_counter()
            except sqlite3.OperationalError:
                self._longest = max(self._longest, time.perf_counter() - free)
            time.sleep(LOOK_SECONDS)
        connection.close()


if __name__ == "__main__":
    sys.exit(main())
