"""Rights that processes which share a database share, or one of them has alone, and that end with the process.

PostgreSQL keeps a right for a connection (an advisory lock, for processes on all machines), SQLite for an open file
beside the database.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic, sleep
from urllib.parse import unquote

from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from copl_core.records import Right
from db.engine import explained
from db.file_locks import open_lock, take
from db.transactions import Transactions

# PostgreSQL's advisory locks, and files beside a SQLite database; earlier versions know the first of these, too
_LOCKS = {Right.FILL: 4_026_531_841, Right.FIRST: 4_026_531_842, Right.IMPORT: 4_026_531_843}
_FILES = {Right.FILL: ".importing", Right.FIRST: ".first-study", Right.IMPORT: ".import-running"}
_PAUSE = 0.1  # seconds between two tries


class Rights(Transactions):
    @contextmanager
    def hold(self, right: Right, *, alone: bool = False, seconds: float = 0.0) -> Iterator[bool]:
        hold = _hold_of_postgres if self.engine.dialect.name == "postgresql" else _hold_of_sqlite
        with hold(self.engine, right, alone) as take:
            ends = monotonic() + seconds
            while not (held := take()) and monotonic() < ends:
                sleep(_PAUSE)
            yield held


@contextmanager
def _hold_of_postgres(engine: Engine, right: Right, alone: bool) -> Iterator[Callable[[], bool]]:
    query = text(f"select pg_try_advisory_lock{'' if alone else '_shared'}(:lock)")
    with explained(engine):
        connection = engine.connect().execution_options(isolation_level="AUTOCOMMIT")
    try:
        with explained(engine):
            connection.detach()  # it goes back to no pool: closing it gives the lock back
        yield lambda: bool(connection.execute(query, {"lock": _LOCKS[right]}).scalar_one())
    finally:
        with suppress(DBAPIError):  # the server notices a closed connection a moment later
            connection.exec_driver_sql("select pg_advisory_unlock_all()")
        connection.close()


@contextmanager
def _hold_of_sqlite(engine: Engine, right: Right, alone: bool) -> Iterator[Callable[[], bool]]:
    path = engine.url.database
    if path and engine.url.query.get("mode") == "ro":  # as ``db.health`` opens it
        path = unquote(path.removeprefix("file:"))
    if not path or path == ":memory:" or path.startswith("file:"):
        yield lambda: True  # nobody shares it
        return
    with open_lock(Path(path).parent / _FILES[right]) as lock:
        # Without locks of files an import that runs cannot be seen, so nothing is taken for killed
        yield lambda: take(lock, alone=alone, without=not alone)
