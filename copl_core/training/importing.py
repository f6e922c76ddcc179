"""The first import of transformers, by one thread at a time."""

from __future__ import annotations

import sys
from threading import Lock
from typing import Any

_IMPORTING = Lock()


def import_transformers() -> Any:
    """The module transformers, whole.

    At the end of its import it puts another object in its own place.  A thread that asks for it meanwhile would get the
    first one, which has no classes.  Whatever may import transformers beside another thread calls this first.
    """
    with _IMPORTING:
        import transformers  # noqa: F401

        return sys.modules["transformers"]
