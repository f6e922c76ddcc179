"""The version of the tables: what a process does about the one that it finds, and what ``copl migrate`` does.

A SQLite file belongs to the programs of one machine, which start together: the first one migrates it.  A server is
shared by machines whose programs are replaced one after the other, so the moment of a migration is a person's choice.
An empty database holds nothing that an older program could need: its tables are made by the first process.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from sqlalchemy import Engine

from copl_core.records import CoplError, NotMigrated, StoreUnavailable
from db.engine import HEAD, TABLE_SECONDS, about, alembic_config, migrate, version


class Migration(NamedTuple):
    version: str
    title: str

    def __str__(self) -> str:
        return f"{self.version} {self.title}"


def make_ready(engine: Engine) -> None:
    """Make sure that the tables are those of this program, as a process does when it starts.

    Raises:
        NotMigrated: the database is on a server and its tables are of an older version; they stay as they are.
        CoplError: it cannot be opened or written, is not a database, or was made by a newer version of the product.
    """
    if engine.dialect.name == "sqlite" or (found := version(engine)) is None:
        migrate(engine)
    elif sentence := _problem(found):
        engine.dispose()  # a process that waits tries again with another one
        raise about(engine, (NotMigrated if found < HEAD else CoplError)(sentence))


def problem(engine: Engine) -> str:
    """Why this program cannot work with the tables as they are now, and what to do; empty where it can."""
    return _problem(version(engine))


def pending(engine: Engine) -> list[Migration]:
    """The migrations that the database lacks, in their order.

    Raises:
        CoplError: it cannot be read, or was made by a newer version of the product.
    """
    from alembic.script import ScriptDirectory

    found = version(engine)
    if found is not None and found > HEAD:
        raise about(engine, CoplError(_problem(found)))
    scripts = ScriptDirectory.from_config(alembic_config()).iterate_revisions(HEAD, found or "base")
    return [Migration(one.revision, one.doc) for one in reversed(list(scripts))]


def migrate_now(engine: Engine, report: Callable[[str], object]) -> None:
    """Bring the database to the newest version; ``report`` receives each migration that has run, and that this process
    waits for another one.  All migrations are one transaction: after a failure or a kill the tables are as before.

    Raises:
        CoplError: it cannot be opened or written, or was made by a newer version of the product.
    """
    try:
        migrate(engine, report)
    except StoreUnavailable as unavailable:
        if "lock timeout" not in str(unavailable.__cause__):
            raise
        waits = StoreUnavailable(
            f"Other programs have used a table of the database for longer than {TABLE_SECONDS:.0f} s. Nothing has "
            "changed; stop the apps and trainers, then run again: copl migrate"
        )
        raise about(engine, waits) from unavailable


def _problem(found: str | None) -> str:
    if found == HEAD:
        return ""
    if found is None:
        return "The database has no tables; run once: copl migrate"
    if found > HEAD:
        return (
            f"The database has version {found}, and this program knows versions up to {HEAD}; start the newer program "
            "or use another database."
        )
    return (
        f"The database has version {found}, and this program needs version {HEAD}. Back it up, stop the apps and "
        "trainers of the older version, and run once: copl migrate"
    )
