"""Copies of a SQLite database: on request, before a migration, and by the clock.

A copy holds nothing of deleted rows, and is whole or not there.  A server is backed up by its own programs.
"""

from __future__ import annotations

import logging
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from secrets import token_hex
from time import monotonic, sleep
from typing import IO

from sqlalchemy import Engine

from copl_core import backups
from copl_core.records import CoplError
from db.file_locks import open_lock, take

log = logging.getLogger("copl.database")
SPARE_BYTES = 50_000_000  # that stay free beside a copy, for what is written meanwhile
_TAIL = ".part"  # of a copy that is not whole
_LOCK = ".copying"  # the file beside a database by which one process at a time copies or migrates it
_PAUSE = 0.05  # seconds between two looks whether it is free
_DROP_SECONDS = 10.0  # that the removal of copies waits for one that is made now; the trainer removes them later


def database_file(engine: Engine) -> Path | None:
    """The file of a SQLite database; None for a server, and for a database in memory."""
    path = engine.url.database
    if engine.dialect.name != "sqlite" or not path or path == ":memory:" or path.startswith("file:"):
        return None
    return Path(path)


def back_up(engine: Engine, path: Path) -> None:
    """Copy a SQLite database as it is at this moment into one file, while others keep writing.

    Raises:
        CoplError: the database is PostgreSQL, or the file exists or cannot be written.
    """
    if engine.dialect.name != "sqlite":
        raise CoplError("The database is on a server and not a file; back it up with pg_dump.")
    if path.exists():
        raise CoplError(f"{path} exists already; name a new file.")
    aside = path.with_name(f".{path.name}.{token_hex(4)}{_TAIL}")
    connection = engine.raw_connection()  # VACUUM cannot run inside a transaction
    try:
        connection.cursor().execute("VACUUM INTO ?", (str(aside),))
        with aside.open("rb+") as file:
            os.fsync(file.fileno())
        aside.replace(path)
    except (sqlite3.Error, OSError) as error:
        aside.unlink(missing_ok=True)
        raise CoplError(
            f"The backup {path} cannot be written ({error}); choose a folder that exists and has free space."
        ) from error
    finally:
        connection.close()


@contextmanager
def alone(engine: Engine, waits: Callable[[], object]) -> Iterator[None]:
    """Be the only process that copies or migrates a SQLite file; a server has locks of its own.

    Args:
        waits: called once if another process does so now.

    Raises:
        CoplError: the folder of the file cannot be written.
    """
    database = database_file(engine)
    if database is None:
        yield
        return
    with open_lock(database.parent / _LOCK) as lock:
        if not _taken(lock):
            waits()
            while not _taken(lock):
                sleep(_PAUSE)
        yield


def _taken(lock: IO[str]) -> bool:
    return take(lock, alone=True, without=True)


def back_up_before(engine: Engine, migration: str) -> None:
    """Copy a SQLite database before it is migrated, in a process that is ``alone``; a server is left to its own
    programs.

    Raises:
        CoplError: there is no room; the migration must not begin.
    """
    database = database_file(engine)
    if database is None:
        return
    now = datetime.now(UTC)
    path = backups.path_of(database, now, migration)
    if path.exists():  # of a process that was killed before it migrated, in this second
        return
    try:
        _copy(engine, database, path)
    except CoplError as problem:
        raise CoplError(
            f"The database {database} has not been migrated to version {migration}, since there is no backup of it: "
            f"{problem}"
        ) from problem
    log.warning("before the migration to version %s the database was copied to %s", migration, path)
    _remove(backups.surplus(database, len(backups.backups_of(database)), now))


def back_up_by_clock(engine: Engine, hours: float, keep: int) -> Path | None:
    """Copy a SQLite database where the last copy is as old as that; the oldest ones go.

    Returns:
        The new copy; None where none is due, or another process copies or migrates the database.

    Raises:
        CoplError: there is no room.
    """
    database = database_file(engine)
    if database is None or not backups.is_due(database, hours, datetime.now(UTC)):
        return None
    with open_lock(database.parent / _LOCK) as lock:
        now = datetime.now(UTC)
        if not _taken(lock) or not backups.is_due(database, hours, now):
            return None
        path = backups.path_of(database, now)
        _copy(engine, database, path)
        _remove(backups.surplus(database, keep, now))
    return path


def drop_backups(engine: Engine) -> None:
    """Remove the copies: they hold somebody who has left.  One that is made now is waited for, since it may have read
    the rows before they went and appears only when it is whole.

    Raises:
        CoplError: another process still makes one, or the folder of the database cannot be written.
        OSError: one cannot be removed.
    """
    database = database_file(engine)
    if database is None:
        return
    with open_lock(database.parent / _LOCK) as lock:
        until = monotonic() + _DROP_SECONDS
        while not _taken(lock):
            if monotonic() > until:
                raise CoplError(
                    "The copies of the database cannot be removed while another process makes one; wait until it is "
                    "done."
                )
            sleep(_PAUSE)
        _remove_cut(backups.path_of(database, datetime.now(UTC)).parent)
        for one in backups.backups_of(database):
            one.path.unlink(missing_ok=True)


def _remove_cut(folder: Path) -> None:
    """Remove what killed processes left of their copies; for a process that is alone."""
    for cut in folder.glob(f".copl-*{_TAIL}"):
        cut.unlink(missing_ok=True)


def _copy(engine: Engine, database: Path, path: Path) -> None:
    try:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        _remove_cut(path.parent)
        needed = database.stat().st_size + SPARE_BYTES
        free = shutil.disk_usage(path.parent).free
    except OSError as error:
        raise CoplError(f"{path.parent} cannot be written ({error.strerror}); make it writable.") from error
    if free < needed:
        raise CoplError(
            f"{path.parent} has {free / 1e6:,.0f} MB free, and a backup needs {needed / 1e6:,.0f} MB; free some space."
        )
    back_up(engine, path)


def _remove(paths: list[Path]) -> None:
    for path in paths:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            log.warning("%s cannot be removed: %s", path, error.strerror)
