"""Processes that are killed at one of their statements."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from itertools import count

from sqlalchemy import Engine
from sqlalchemy.event import listen

Watch = Callable[[Engine], object]


def steps(engine: Engine, step: Callable[[], object]) -> None:
    """Call ``step`` before each statement and each commit."""
    listen(engine, "before_cursor_execute", lambda *_: step())
    listen(engine, "commit", lambda *_: step())


def killed_at(number: int, act: Callable[[Watch], object]) -> bool:
    """Carry out an act in a process that is killed at a step of the engine that the act watches; whether it was."""
    child = os.fork()
    if child == 0:
        with suppress(BaseException):
            numbers = count(1)
            act(lambda engine: steps(engine, lambda: _kill() if next(numbers) == number else None))
            os._exit(0)
        os._exit(1)
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
