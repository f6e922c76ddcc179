"""Rewriting a database without what deleted rows have left in its files.

PostgreSQL's ``VACUUM FULL`` keeps the rows that an older transaction can still see, and while it waits for a table,
every query of that table waits behind it.  So older transactions are waited for first, without any lock, and a table
that is in use is given up at once: the caller tries again later.
"""

from __future__ import annotations

import sqlite3
import time

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from copl_core.records import CoplError, StoreUnavailable
from db.engine import BUSY_SECONDS, closed_after_errors, explained

_TABLES = ("user", "label", "task", "draft", "report", "audit", "email", "token", "response", "identity")
_PATIENCE = 3.0  # seconds that SQLite waits for others
_OLDER_SECONDS = 1.0  # that PostgreSQL's older transactions are waited for
_LOCK_SECONDS = 0.1  # likewise, a table; somebody's query may wait as long
_IN_USE = "The database is in use, so what the deleted rows left in its files is not overwritten yet."
_OLDER = text(
    "select exists (select 1 from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid() "
    "and age(backend_xmin) > age(cast(cast(:next as text) as xid)))"
)


def overwrite_deleted(engine: Engine) -> None:
    """Rewrite the tables that held something of a person.

    Raises:
        StoreUnavailable: somebody uses them now.
        CoplError: there is no space, or no right to write.
    """
    (_vacuum_sqlite if engine.dialect.name == "sqlite" else _vacuum_tables)(engine)


def _vacuum_sqlite(engine: Engine) -> None:
    """Write every page again, and empty the write-ahead log, which holds pages as they were before."""
    with engine.connect() as connection, closed_after_errors(connection):
        driver = connection.connection.dbapi_connection
        assert driver is not None
        cursor = driver.cursor()
        cursor.execute(f"PRAGMA busy_timeout={int(_PATIENCE * 1000)}")
        try:
            cursor.execute("VACUUM")
            (busy, *_) = cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        except sqlite3.OperationalError as error:
            busy = "locked" in str(error)
            if not busy:
                raise _refused(str(error)) from error
        finally:
            cursor.execute(f"PRAGMA busy_timeout={int(BUSY_SECONDS * 1000)}")
    if busy:
        raise StoreUnavailable(_IN_USE)


def _vacuum_tables(engine: Engine) -> None:
    quoted = engine.dialect.identifier_preparer.quote
    with explained(engine), engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.detach()  # its limits end with it
        _wait_for_older(connection)
        connection.execute(text(f"set lock_timeout = '{_LOCK_SECONDS}s'"))
        connection.execute(text("set statement_timeout = 0"))  # a large table takes its time
        try:
            for table in (*map(quoted, _TABLES), "pg_catalog.pg_statistic"):
                connection.execute(text(f"vacuum (full) {table}"))
        except DBAPIError as error:
            if error.connection_invalidated:
                raise
            what = str(error.orig).partition("\n")[0]
            raise (StoreUnavailable(_IN_USE) if "lock timeout" in what else _refused(what)) from error


def _wait_for_older(connection: Connection) -> None:
    """Wait until no transaction of this database sees it as it was before now."""
    start = connection.execute(text("select cast(pg_snapshot_xmax(pg_current_snapshot()) as text)")).scalar_one()
    now = {"next": str(int(start) % 2**32)}
    deadline = time.monotonic() + _OLDER_SECONDS
    while connection.execute(_OLDER, now).scalar():
        if time.monotonic() > deadline:
            raise StoreUnavailable(_IN_USE)
        time.sleep(0.05)


def _refused(what: str) -> CoplError:
    return CoplError(
        f"The database cannot be rewritten without what was deleted ({what}); free some space and make its folder "
        "writable."
    )
