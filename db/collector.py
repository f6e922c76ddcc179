"""Python's collector of unreachable objects does not run while this process has SQLite's only writer.

Now and then it looks at every object of the program, which takes some tenths of a second once the libraries of the
studio are loaded: everybody else who writes would wait for it.  It runs again as soon as the writer is free.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

_lock = Lock()
_writers = 0  # of several databases, there may be several
_stopped = False  # by this module


@contextmanager
def without_collections() -> Iterator[None]:
    global _writers, _stopped
    with _lock:
        _writers += 1
        if _writers == 1 and gc.isenabled():
            gc.disable()
            _stopped = True
    try:
        yield
    finally:
        with _lock:
            _writers -= 1
            if _writers == 0 and _stopped:
                _stopped = False
                gc.enable()
