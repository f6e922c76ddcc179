"""The copies of a SQLite database that the studio makes by itself, in a folder beside it: their names and their age."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

MIGRATIONS_KEPT = 3  # copies that were made before a migration
_NAME = re.compile(r"copl-(\d{8}T\d{6})Z(?:-before-(\d{4}))?\.db")
_TIME = "%Y%m%dT%H%M%S"


@dataclass(frozen=True, slots=True)
class Backup:
    path: Path
    made: datetime
    before: str  # the migration that came after it; empty: it was made by the clock

    def is_of_future(self, now: datetime) -> bool:
        """Whether a clock was wrong, when it was made or now."""
        return self.made > now


def folder_of(database: Path) -> Path:
    return database.parent / "backups"


def path_of(database: Path, now: datetime, before: str = "") -> Path:
    """Where the next copy goes."""
    name = f"copl-{now.astimezone(UTC).strftime(_TIME)}Z"
    return folder_of(database) / f"{name}{f'-before-{before}' if before else ''}.db"


def backups_of(database: Path) -> list[Backup]:
    """The copies beside a database, the latest date first."""
    return sorted(_found(folder_of(database)), key=lambda one: one.made, reverse=True)


def is_due(database: Path, hours: float, now: datetime) -> bool:
    """Whether no copy is as young as that; one of the future was made while the clock was wrong."""
    return hours > 0 and not any(
        timedelta() <= now - one.made < timedelta(hours=hours) for one in backups_of(database) if not one.before
    )


def surplus(database: Path, keep: int, now: datetime) -> list[Path]:
    """The copies beyond those that are kept: ``keep`` by the clock, and ``MIGRATIONS_KEPT``.  One of the future counts
    as the oldest, so the copy that is made now stays whatever a wrong clock has left.
    """
    found = sorted(backups_of(database), key=lambda one: one.is_of_future(now))
    by_clock = [one.path for one in found if not one.before]
    return by_clock[keep:] + [one.path for one in found if one.before][MIGRATIONS_KEPT:]


def _found(folder: Path) -> Iterator[Backup]:
    try:
        files = list(folder.iterdir())
    except OSError:
        return
    for path in files:
        if (known := _NAME.fullmatch(path.name)) is not None:
            try:
                made = datetime.strptime(known[1], _TIME).replace(tzinfo=UTC)
            except ValueError:
                continue
            yield Backup(path, made, known[2] or "")
