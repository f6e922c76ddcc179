"""The connection to the database: transactions, database errors as plain sentences, migration to the newest version.

With SQLite's default transactions two processes can read the same free task and both claim it.  Therefore a
transaction that writes declares so when it begins (``BEGIN IMMEDIATE``: one writer at a time, the others wait).  One
that only reads begins ``DEFERRED``: under write-ahead logging it sees the database at one moment and blocks nobody.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from time import monotonic, sleep
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import QueuePool

from copl_core.records import CoplError, StoreUnavailable
from db.backups import alone, back_up_before
from db.collector import without_collections

HEAD = "0032"  # the newest migration; written here so that a start does not load Alembic to find it
BUSY_SECONDS = 30.0
LOCK_SECONDS = 3.0  # on PostgreSQL: a row that is locked elsewhere costs somebody who labels so long, and a sentence
_LOOK_SECONDS = 0.002  # between two looks whether SQLite's lock is free
STATEMENT_SECONDS = 60.0  # likewise, of one statement; the training data of a large study may take longer
TABLE_SECONDS = 60.0  # likewise, of a migration, for a table that another program uses
_POOL = {"pool_size": 5, "max_overflow": 15}  # connections of a process; a server gives a hundred by default
_FULL_BYTES = 1 << 16  # a disk with less free space is full
_LOCK = 4_026_531_840  # an arbitrary number: PostgreSQL's advisory lock for migrations
Problem = TypeVar("Problem", bound=CoplError)
_WAITS = "Another process migrates this database; this one waits for it."


def make_engine(url: str) -> Engine:
    """An engine for a SQLAlchemy address; the folder of a SQLite file is created.

    Raises:
        CoplError: the address, its driver or its folder is unusable.
    """
    driver = ""
    try:
        parsed = make_url(url)
        driver = parsed.get_driver_name()
        if parsed.get_backend_name() == "sqlite":
            return _sqlite(parsed)
        if "@" in (parsed.database or ""):
            raise ArgumentError("the end of a password that is not encoded")
        return _postgres(parsed)
    except (ArgumentError, NoSuchModuleError, ValueError):  # whose texts may hold parts of a password
        begins = f" It begins with {url.partition(':')[0]!r}." if "://" in url or "@" not in url else ""
        raise CoplError(
            f"The address of the database is not understood; correct COPL_DATABASE_URL.{begins} Addresses are such as "
            "sqlite:////folder/copl.db or postgresql+psycopg://user@host/name; in a password @ is %40, and / is %2F."
        ) from None
    except ImportError as error:
        raise CoplError(_without_driver(driver, error)) from None


def _without_driver(driver: str, error: ImportError) -> str:
    """psycopg without libpq, which the extra brings, raises an ``ImportError`` that names no module."""
    missing = isinstance(error, ModuleNotFoundError)
    why = "is not installed" if missing else f"cannot be loaded ({str(error).partition(chr(10))[0].rstrip('.')})"
    needed = 'install "copl-studio[postgres]", or "psycopg[binary]"' if driver == "psycopg" else "install it"
    return (
        f"The database address needs the Python package {error.name if missing else driver}, which {why}; {needed}, "
        "or use SQLite by unsetting COPL_DATABASE_URL."
    )


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """A transaction that sees the database at one moment."""
    with explained(engine), engine.connect() as connection, closed_after_errors(connection):
        if connection.dialect.name == "postgresql":
            connection = connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        with connection.begin():
            yield connection


@contextmanager
def writing(
    engine: Engine, *, patient: bool = False, prompt: bool = False, part: bool = False, unreferred: bool = False
) -> Iterator[Connection]:
    """A transaction that may write: committed at the end, rolled back on any exception.

    Args:
        patient: nobody sits before a screen: wait for rows that are locked elsewhere as long as SQLite waits.
        prompt: somebody waits for one click: wait for SQLite's lock no longer than PostgreSQL waits.
        part: of a work that counts only with its last transaction, whose commit brings all of them to the disk: this
            one does not wait for the disk while it has SQLite's writer (``to_disk``).
        unreferred: it deletes rows to which no row that stays refers.  SQLite does not look for such rows then: without
            an index it would read a whole table for each row that goes.
    """
    options = {"writes": True, "prompt": prompt, "part": part, "unreferred": unreferred}
    with explained(engine), engine.connect().execution_options(**options) as connection, ExitStack() as until_the_end:
        until_the_end.callback(_set_back, connection)
        with closed_after_errors(connection), connection.begin():
            if connection.dialect.name == "sqlite":
                until_the_end.enter_context(without_collections())
            if patient:
                limit(connection, lock_seconds=BUSY_SECONDS)
            yield connection


def _set_back(connection: Connection) -> None:
    """After a transaction of SQLite that was ``part`` or ``unreferred``: its connection's next one may be neither."""
    options = connection.get_execution_options()
    special = options["part"] or options["unreferred"]
    if special and connection.dialect.name == "sqlite" and not connection.invalidated:
        driver = connection.connection.dbapi_connection
        assert driver is not None
        driver.execute("PRAGMA synchronous=FULL")
        driver.execute("PRAGMA foreign_keys=ON")


def to_disk(engine: Engine) -> None:
    """Bring what parts have committed to SQLite's log to the disk, without the writer: the commit of somebody who
    writes next has the less to wait for.
    """
    if engine.dialect.name == "sqlite":
        with suppress(OSError):  # there is no log, or the commit that counts will report it
            log = os.open(f"{engine.url.database}-wal", os.O_RDONLY)
            try:
                os.fsync(log)
            finally:
                os.close(log)


@contextmanager
def closed_after_errors(connection: Connection) -> Iterator[None]:
    """Close a connection to a SQLite file after an exception, once its transaction has been rolled back.

    A statement whose rows were being read then lives as long as the traceback, and with it the state of the database
    that it sees: the next transaction of this connection would read old rows, and could write nothing.
    """
    try:
        yield
    except BaseException:
        if connection.dialect.name == "sqlite" and isinstance(connection.engine.pool, QueuePool):
            connection.invalidate()
        raise


def limit(connection: Connection, *, lock_seconds: float | None = None, statement_seconds: float | None = None) -> None:
    """Change how long this transaction waits for a lock or a statement on PostgreSQL; 0: for ever."""
    if connection.dialect.name == "postgresql":
        for name, seconds in (("lock_timeout", lock_seconds), ("statement_timeout", statement_seconds)):
            if seconds is not None:
                connection.exec_driver_sql(f"set local {name} = {round(1000 * seconds)}")


@contextmanager
def explained(engine: Engine) -> Iterator[None]:
    """Turn an error of the database itself (not of a statement of ours) into a ``CoplError``, or into a
    ``StoreUnavailable`` if a later try may succeed.
    """
    try:
        yield
    except DBAPIError as error:
        problem = _of_sqlite(engine, error) if engine.dialect.name == "sqlite" else _of_server(error)
        if problem is None:
            raise
        raise about(engine, problem) from error
    except PoolTimeout as error:
        sentence = f"The database gave no free connection for {BUSY_SECONDS:.0f} seconds; try again in a moment."
        raise about(engine, StoreUnavailable(sentence)) from error


def version(engine: Engine) -> str | None:
    """The newest migration applied to the database; None for an empty database."""
    with reading(engine) as connection:
        return _version(connection)


def migrate(engine: Engine, report: Callable[[str], object] = lambda line: None) -> None:
    """Bring the database to ``HEAD``.  Two processes may call it at once; an up-to-date database costs one query.

    Args:
        report: receives each migration that has run, and that this process waits for another one.

    Raises:
        CoplError: it cannot be opened or written, is not a database, was made by a newer version of the product, or is
            a file for whose copy there is no room.
    """
    found = version(engine)
    if found == HEAD:
        return
    if found is None or found > HEAD:
        _migrate(engine, report)
        return
    with alone(engine, lambda: report(_WAITS)):
        found = version(engine)  # another process may have migrated meanwhile
        if found is not None and found < HEAD:
            back_up_before(engine, HEAD)
        _migrate(engine, report)


def _migrate(engine: Engine, report: Callable[[str], object]) -> None:
    with writing(engine) as connection:
        limit(connection, lock_seconds=0, statement_seconds=0)
        if connection.dialect.name == "postgresql":
            _wait_for_others(connection, report)
        if _version(connection) != HEAD:  # another process may have migrated while this one waited for the lock
            limit(connection, lock_seconds=TABLE_SECONDS)
            _upgrade(connection, report)


def _wait_for_others(connection: Connection, report: Callable[[str], object]) -> None:
    if not connection.execute(text("select pg_try_advisory_xact_lock(:lock)"), {"lock": _LOCK}).scalar():
        report(_WAITS)
        connection.execute(text("select pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})


def _upgrade(connection: Connection, report: Callable[[str], object]) -> None:
    from alembic import command
    from alembic.script import ScriptDirectory
    from alembic.util import CommandError

    config = alembic_config()
    current = _version(connection)
    try:
        if current is not None:
            ScriptDirectory.from_config(config).get_revision(current)
    except CommandError:
        newer = CoplError(
            f"The database has version {current}, and this program knows versions up to {HEAD}; start the newer "
            "program or use another database."
        )
        raise about(connection.engine, newer) from None
    config.attributes |= {"connection": connection, "report": report}
    command.upgrade(config, "head")


def alembic_config() -> Any:
    """Alembic's configuration for the migrations of this database (``alembic.config.Config``)."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    return config


def _version(connection: Connection) -> str | None:
    if not connection.dialect.has_table(connection, "alembic_version"):
        return None
    return connection.execute(text("select version_num from alembic_version")).scalar()


def _postgres(url: URL) -> Engine:
    """A pool that tries a connection before it gives it out, so that a restarted server costs nobody anything; a
    connection's own limits are those of the address, if it has any.

    SQLAlchemy names the driver, since an address may leave it out.
    """
    of_libpq = url.get_backend_name() == "postgresql" and url.get_driver_name().startswith("psycopg")
    limits = f"-c lock_timeout={LOCK_SECONDS:.0f}s -c statement_timeout={STATEMENT_SECONDS:.0f}s"
    given = {"options": limits} if of_libpq and "options" not in url.query else {}
    return create_engine(url, pool_pre_ping=True, pool_timeout=BUSY_SECONDS, connect_args=given, **_POOL)


def _sqlite(url: URL) -> Engine:
    path = url.database
    if path and path != ":memory:" and not path.startswith("file:"):
        try:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CoplError(
                f"The folder {Path(path).parent} for the database cannot be created ({error.strerror}); "
                "make it writable or set COPL_HOME to another folder."
            ) from error
    engine = create_engine(
        url,
        # The driver starts no transactions: they begin with the statement in ``_begin``.
        connect_args={"timeout": BUSY_SECONDS, "isolation_level": None},
        **({"pool_size": 16, "max_overflow": 32} if path and path != ":memory:" else {}),
    )
    event.listen(engine, "connect", _configure)
    event.listen(engine, "begin", _begin)
    return engine


def _configure(connection: Any, _record: Any) -> None:
    """Settings of every new SQLite connection.

    ``synchronous=FULL``: a commit returns once the log is on the disk.  NORMAL survives a killed process too, but after
    a power cut acknowledged labels can be missing.  At the rate of clicks the flush costs nothing.
    """
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout={int(BUSY_SECONDS * 1000)}")
    cursor.execute("PRAGMA foreign_keys=ON")
    if cursor.execute("PRAGMA query_only").fetchone()[0] == 0:
        _write_ahead(cursor)
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.close()


def _write_ahead(cursor: Any) -> None:
    """Switch to write-ahead logging.  Here SQLite does not wait for its lock, which another process may hold to do the
    same, so this function waits.
    """
    deadline = monotonic() + BUSY_SECONDS
    while True:
        try:
            if cursor.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
                cursor.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or monotonic() > deadline:
                raise
            sleep(0.02)


def _begin(connection: Connection) -> None:
    options = connection.get_execution_options()
    if not options.get("writes", False):
        connection.exec_driver_sql("BEGIN DEFERRED")
        return
    driver = connection.connection.dbapi_connection
    assert driver is not None
    deadline = monotonic() + (LOCK_SECONDS if options.get("prompt", False) else BUSY_SECONDS)
    if options.get("part", False):
        driver.execute("PRAGMA synchronous=NORMAL")
    if options.get("unreferred", False):
        driver.execute("PRAGMA foreign_keys=OFF")
    driver.execute("PRAGMA busy_timeout=0")
    try:
        while not _began(driver) and monotonic() < deadline:
            sleep(_LOOK_SECONDS)
        if not driver.in_transaction:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
    finally:
        driver.execute(f"PRAGMA busy_timeout={int(BUSY_SECONDS * 1000)}")


def _began(driver: Any) -> bool:
    """Begin to write, unless somebody else does.  SQLite itself looks ever more rarely whether its lock is free, up to
    ten times a second, and would miss the moments that a long import leaves between two of its transactions.
    """
    try:
        driver.execute("BEGIN IMMEDIATE")
    except sqlite3.Error as error:
        return "locked" not in str(error)  # another error comes again, as one of SQLAlchemy
    return True


def location(engine: Engine) -> str:
    """The file or the address, without its password and without options, of which some are secrets too."""
    if engine.dialect.name == "sqlite":
        return engine.url.database or ""
    where = {name: value for name, value in engine.url.query.items() if name in ("host", "port")}
    return engine.url.set(query=where).render_as_string(hide_password=True)


def about(engine: Engine, error: Problem) -> Problem:
    """The error, which knows the database it is about."""
    error.where = location(engine)
    return error


def _is_full(location: str) -> bool:
    """Whether a file cannot get longer; SQLite calls that an input/output error where it is about a file beside it."""
    try:
        return shutil.disk_usage(Path(location).absolute().parent).free < _FULL_BYTES
    except OSError:
        return False


_FULL = "The disk of the database is full; free some space and try again. Nothing was saved."
_AWAY = (
    "The database server does not answer, so nothing was saved; check that it runs and that COPL_DATABASE_URL is right."
)
_ROWS = "Somebody else was changing the same rows; try again. Nothing was saved."
# Primary codes of SQLite, and words of an error that has no code; ``StoreUnavailable``: a later try may succeed.
_SQLITE: dict[int, tuple[str, type[CoplError], str]] = {
    sqlite3.SQLITE_NOTADB: (
        "not a database",
        CoplError,
        "The file of the database is none; move it away or set COPL_HOME to another folder.",
    ),
    sqlite3.SQLITE_CORRUPT: ("malformed", CoplError, "The database is damaged; replace it with a backup."),
    sqlite3.SQLITE_CANTOPEN: (
        "unable to open",
        CoplError,
        "The database cannot be opened; its folder must exist and be writable.",
    ),
    sqlite3.SQLITE_READONLY: (
        "readonly",
        CoplError,
        "The database cannot be written; make the file and its folder writable.",
    ),
    sqlite3.SQLITE_FULL: ("disk is full", StoreUnavailable, _FULL),
    sqlite3.SQLITE_IOERR: (
        "disk I/O error",
        StoreUnavailable,  # a full disk or a used-up quota, too, where the files beside that of the database need room
        "The disk of the database reports an error; check it and try again. Nothing was saved.",
    ),
    sqlite3.SQLITE_BUSY: (
        "locked",
        StoreUnavailable,
        "The database was busy for too long; try again. Nothing was saved.",
    ),
}
_SQLITE[sqlite3.SQLITE_LOCKED] = _SQLITE[sqlite3.SQLITE_BUSY]
# SQLSTATEs of PostgreSQL, or how they begin.  Its messages are in the language of the server.
_SERVER: dict[str, tuple[type[CoplError], str]] = {
    "08": (StoreUnavailable, _AWAY),
    "25006": (
        CoplError,
        "The database server takes no changes; let COPL_DATABASE_URL name the one that does. Nothing was saved.",
    ),
    "28": (CoplError, _AWAY),
    "3D000": (CoplError, _AWAY),
    "40001": (StoreUnavailable, _ROWS),
    "40P01": (StoreUnavailable, _ROWS),
    "53100": (StoreUnavailable, _FULL),
    "53300": (StoreUnavailable, _AWAY),
    "55P03": (StoreUnavailable, "Somebody else was changing the same rows for too long; try again. Nothing was saved."),
    "57014": (
        StoreUnavailable,
        "The database took too long for one answer and stopped; try again. Nothing was saved.",
    ),
    "57P": (StoreUnavailable, _AWAY),
}


def _of_sqlite(engine: Engine, error: DBAPIError) -> CoplError | None:
    """The problem, whose sentence does not say where the database is; None if the fault is in a statement of ours."""
    code = getattr(error.orig, "sqlite_errorcode", None)
    for primary, (words, kind, sentence) in _SQLITE.items():
        if code is not None and code & 0xFF == primary or code is None and words in str(error.orig):
            full = primary == sqlite3.SQLITE_IOERR and _is_full(location(engine))
            return kind(_FULL if full else sentence)
    return None


def _of_server(error: DBAPIError) -> CoplError | None:
    """As ``_of_sqlite``."""
    state = sqlstate(error)
    if state == "42501":  # also of who does not own a table
        what = str(error.orig).partition("\n")[0]
        return CoplError(f"The user of the database may not do this ({what}); let it own the tables and their schema.")
    for begins, (kind, sentence) in _SERVER.items():
        if state.startswith(begins):
            return kind(sentence)
    return StoreUnavailable(_AWAY) if _is_cut(error) else None


def _is_cut(error: DBAPIError) -> bool:
    """Whether there is no connection, or none any more.  The driver has no code for it, and raises an error of the same
    class, without a code, for a statement with too many values: that one has a statement, and its connection lives.
    """
    failed = isinstance(error, OperationalError) and not sqlstate(error) and error.statement is None
    return failed or error.connection_invalidated


def sqlstate(error: DBAPIError) -> str:
    """PostgreSQL's code of an error; empty where the server sent none."""
    return getattr(error.orig, "sqlstate", None) or getattr(error.orig, "pgcode", None) or ""
