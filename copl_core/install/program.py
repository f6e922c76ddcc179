"""Where the app and the database layer of this installation lie: in a checkout beside ``copl_core``, in an installed
package below it, since names such as ``db`` and ``web`` are too common for the top level of a shared environment.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from copl_core.records import CoplError

_PACKAGE = Path(__file__).resolve().parents[1]
PROGRAM = _PACKAGE / "program" if (_PACKAGE / "program").is_dir() else _PACKAGE.parent  # streamlit_app.py, .streamlit/


@contextmanager
def importable() -> Iterator[None]:
    """While it runs, ``import db`` finds the studio's own package and no other of that name.

    Raises:
        CoplError: the process has imported another package named db.
    """
    sys.path.insert(0, str(PROGRAM))
    try:
        found = find_spec("db")
        origin = Path(found.origin) if found is not None and found.origin else None
        if origin is None or origin.resolve().parent != PROGRAM / "db":
            raise CoplError(
                f"This process has imported another module named db ({origin}), which is the name of the studio's own "
                "database layer; use the studio in a process that does not import the other."
            )
        yield
    finally:
        sys.path.remove(str(PROGRAM))
