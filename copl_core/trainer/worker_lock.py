"""The lock by which one worker serves an installation; the kernel releases it when that process dies."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from copl_core.config import Settings
from copl_core.records import CoplError

_NAME = "worker.lock"
_TRIES, _PAUSE = 5, 0.1  # a page holds the lock for an instant while it looks


@contextmanager
def hold_worker_lock(settings: Settings) -> Iterator[None]:
    """Be the only process that fits in this installation.

    Raises:
        CoplError: another worker holds the lock.
    """
    settings.home.mkdir(parents=True, exist_ok=True)
    path = settings.home / _NAME
    with path.open("a+") as stream:
        if not any(_locked(stream, fcntl.LOCK_EX, pause) for pause in [_PAUSE] * _TRIES):
            stream.seek(0)
            raise CoplError(
                f"A worker (process {stream.read().strip() or 'unknown'}) already serves {path.parent}; "
                "one is enough; stop it first or choose another COPL_HOME."
            )
        stream.truncate(0)
        stream.write(str(os.getpid()))
        stream.flush()
        yield


def has_worker(settings: Settings, pid: int) -> bool | None:
    """Whether the worker with this process id runs in this home; None: it works elsewhere, on another machine say.

    A process id alone says nothing: another container has its own, and one of this machine may belong to anything.
    """
    try:
        with (settings.home / _NAME).open() as stream:
            if stream.read().strip() != str(pid):
                return None
            return not _locked(stream, fcntl.LOCK_SH)  # released when the file closes
    except OSError:
        return None


def _locked(stream: IO[str], kind: int, pause: float = 0.0) -> bool:
    """Take the lock; after a failure, wait."""
    try:
        fcntl.flock(stream, kind | fcntl.LOCK_NB)
    except OSError:
        time.sleep(pause)
        return False
    return True
