"""The lock by which one trainer serves a home; the kernel releases it when that process dies.

Trainers in other homes may share the database; leases keep them apart (``trainer.lease``).  A trainer that takes the
lock of its home knows that the one before it is dead, and takes over what that one left without waiting for a lease.
"""

from __future__ import annotations

import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from secrets import token_hex
from typing import IO

from copl_core.config import Settings
from copl_core.records import CoplError

STOPPED = "stopped"  # state of a trainer that has ended
_NAME = "worker.lock"
_TRIES, _PAUSE = 5, 0.1  # a page holds the lock for an instant while it looks


@dataclass(frozen=True, slots=True)
class Holder:
    """The trainer of a home."""

    worker: str  # its name
    before: str  # name of the one before it, which is dead; empty where there was none


def host() -> str:
    """The name of this machine."""
    return socket.gethostname()[:100] or "unnamed"


def new_name() -> str:
    """A name that no other trainer has or gets: a process id would name another process tomorrow, or elsewhere."""
    return f"{host()}-{token_hex(6)}"


@contextmanager
def hold_worker_lock(settings: Settings) -> Iterator[Holder]:
    """Be the only process that fits in this home.

    Raises:
        CoplError: another worker holds the lock.
    """
    settings.make_home()
    path = settings.home / _NAME
    with path.open("a+") as stream:
        if not any(_locked(stream, fcntl.LOCK_EX, pause) for pause in [_PAUSE] * _TRIES):
            _, process = _read(stream)
            raise CoplError(
                f"A worker (process {process or 'unknown'}) already serves {path.parent}; "
                "one is enough; stop it first or choose another COPL_HOME."
            )
        before, _ = _read(stream)
        holder = Holder(new_name(), before)
        stream.truncate(0)
        stream.write(f"{holder.worker}\n{os.getpid()}\n")
        stream.flush()
        yield holder


def has_worker(settings: Settings, worker: str) -> bool | None:
    """Whether the trainer of that name runs in this home; None: it has another home, on another machine say."""
    try:
        with (settings.home / _NAME).open() as stream:
            if _read(stream)[0] != worker:
                return None
            return not _locked(stream, fcntl.LOCK_SH)  # released when the file closes
    except OSError:
        return None


def _read(stream: IO[str]) -> tuple[str, str]:
    """(name, process id for messages); earlier versions wrote the process id alone."""
    stream.seek(0)
    lines = stream.read().split()
    return (lines[0], lines[1]) if len(lines) > 1 else ("", lines[0] if lines else "")


def _locked(stream: IO[str], kind: int, pause: float = 0.0) -> bool:
    """Take the lock; after a failure, wait."""
    try:
        fcntl.flock(stream, kind | fcntl.LOCK_NB)
    except OSError:
        time.sleep(pause)
        return False
    return True
