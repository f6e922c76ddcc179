"""Locks of files beside a SQLite database, which end with the process that has them."""

from __future__ import annotations

from pathlib import Path
from typing import IO

from copl_core.records import CoplError


def open_lock(file: Path) -> IO[str]:
    """The file of a lock, which nobody has taken yet; closing it gives the lock back.

    Raises:
        CoplError: it cannot be made.
    """
    try:
        return file.open("a")
    except OSError as error:
        raise CoplError(
            f"{file} cannot be written ({error.strerror}); make its folder writable, or choose another with "
            "COPL_HOME=/some/folder."
        ) from error


def take(lock: IO[str], *, alone: bool, without: bool) -> bool:
    """Take a lock, alone or together with others that do; False where others have it.

    Args:
        without: the answer on a system that has no such locks (Windows).
    """
    try:
        import fcntl
    except ModuleNotFoundError:
        return without
    try:
        fcntl.flock(lock, fcntl.LOCK_NB | (fcntl.LOCK_EX if alone else fcntl.LOCK_SH))
    except BlockingIOError:
        return False
    return True
