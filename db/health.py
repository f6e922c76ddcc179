"""A database seen from outside: it is opened to read, and neither created nor migrated nor waited for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.pool import NullPool

from copl_core.records import CoplError, DatabaseFacts, StoreUnavailable
from db.base import UtcTime
from db.engine import HEAD, explained, make_engine, version

PATIENCE = 5  # seconds for a server's answer, or for a lock
_LAST = "select created_at as at from label order by id desc limit 1000"  # times may be out of order
_UNFINISHED = text("select 1 from unfinished limit 1")
_NEWEST = text(f"select max(at) as at from ({_LAST}) as last").columns(at=UtcTime)


def open_to_read(url: str) -> Engine | None:
    """An engine that never writes; None where the file of a SQLite database does not exist.

    Raises:
        CoplError: the address or its driver is unusable.
    """
    if _is_file(url):
        return _file(make_url(url))
    parsed = make_engine(url).url  # of an address that is understood
    engine = create_engine(parsed, poolclass=NullPool, connect_args={"connect_timeout": PATIENCE})
    event.listen(engine, "connect", _do_not_wait)
    return engine


def examine(engine: Engine) -> DatabaseFacts:
    """The facts of a database that answers.  SQLite reads every page: a gigabyte takes some seconds.

    Raises:
        CoplError: it does not answer, is locked, or is no database.
    """
    with _in_words(engine):
        schema = version(engine)
        with engine.connect() as connection:
            return DatabaseFacts(
                kind=_kind(connection),
                schema=schema,
                newest_schema=HEAD,
                damage=_damage(connection),
                now=_now(connection),
                newest_label=_newest_label(connection) if schema == HEAD else None,
                unfinished=schema == HEAD and connection.execute(_UNFINISHED).first() is not None,
            )


@contextmanager
def _in_words(engine: Engine) -> Iterator[None]:
    try:
        with explained(engine):
            yield
    except StoreUnavailable as error:
        if "busy" not in str(error):
            raise
        raise CoplError(f"Another program has locked the database for longer than {PATIENCE} seconds.") from error
    except DBAPIError as error:
        raise CoplError(f"The database answers with an error ({str(error.orig).splitlines()[0]}).") from error


def _is_file(url: str) -> bool:
    try:
        return make_url(url).get_backend_name() == "sqlite"
    except ArgumentError:
        return False


def _do_not_wait(connection: Any, _record: Any) -> None:
    connection.execute(f"set lock_timeout = '{PATIENCE}s'")
    connection.commit()


def _file(url: URL) -> Engine | None:
    if not url.database or not Path(url.database).exists():
        return None
    for name in (url.database, *(f"{url.database}-{kept}" for kept in ("wal", "shm", "journal"))):
        if Path(name).exists() and not Path(name).is_file():  # opening a pipe would wait for ever
            raise CoplError(f"{name} is no file; move it away and restore a backup.")
    address = f"sqlite:///file:{quote(url.database)}?mode=ro&uri=true"
    return create_engine(address, poolclass=NullPool, connect_args={"timeout": PATIENCE})


def _kind(connection: Connection) -> str:
    numbers = ".".join(str(number) for number in connection.dialect.server_version_info or ())
    return f"{'SQLite' if connection.dialect.name == 'sqlite' else 'PostgreSQL'} {numbers}".strip()


def _damage(connection: Connection) -> str | None:
    """What SQLite finds in its pages, empty where they are whole; None for a server, which checks its own."""
    if connection.dialect.name != "sqlite":
        return None
    found = connection.execute(text("pragma quick_check(3)")).scalars().all()
    return "" if found == ["ok"] else "; ".join(" ".join(str(line).split()) for line in found)


def _now(connection: Connection) -> datetime | None:
    """The clock of a server; None where the database has no other clock than this machine's."""
    if connection.dialect.name == "sqlite":
        return None
    return connection.execute(text("select clock_timestamp()")).scalar_one().astimezone(UTC)


def _newest_label(connection: Connection) -> datetime | None:
    return connection.execute(_NEWEST).scalar()
