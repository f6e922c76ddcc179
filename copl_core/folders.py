"""Folders of the studio's machine that an installation opens to its pages: what lies elsewhere is for the terminal."""

from __future__ import annotations

import os.path
from contextlib import suppress
from pathlib import Path

from copl_core.records import CoplError


def from_root(setting: str, given: str) -> Path:
    """The folder that a setting names; ``~`` is somebody's home.

    Raises:
        CoplError: it is not named from the root.
    """
    found = Path(os.path.expanduser(given))  # a user that there is not stays as it is
    if not found.is_absolute():
        raise CoplError(f"{setting} is {given!r}; give a folder from the root, such as /data/copl.")
    return found


def below(folder: Path, name: str) -> Path | None:
    """Where a name leads, read from ``folder`` or from the root, once every link is followed; None if that is neither
    in the folder nor the folder itself, or no path has such a name.  Nothing need be there.
    """
    with suppress(ValueError, OSError, RuntimeError):  # a sign that no path has, or links in a circle
        root = folder.resolve()
        found = (root / name).resolve()
        return found if found.is_relative_to(root) else None
    return None
