"""Files that can be made again, in one folder with a bound: the ones used longest ago are removed.

A file is written under another name and renamed, so a kill leaves the whole file or none.  Several processes may write,
read and remove at once: a file that is gone is absent, and what it held is computed again.
"""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

log = logging.getLogger("copl")
_USED_SECONDS = 600.0  # between two marks that a file was used
_LEFT_SECONDS = 3600.0  # after which an unfinished file belongs to a process that was killed
_UNFINISHED = ".part"


class KeptFiles:
    """A folder of files with a limit.

    Args:
        limit_mb: megabytes (10^6 bytes) of all files together.
    """

    def __init__(self, folder: Path, limit_mb: float) -> None:
        self.folder, self.limit = Path(folder), limit_mb * 1e6
        self._marked: dict[Path, float] = {}  # file → when it was last marked as used, on the monotonic clock

    def write(self, name: str, save: Callable[[str], object]) -> Path | None:
        """The file that ``save`` writes to the path it is given; None where the disk refuses it."""
        temporary = None
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(suffix=_UNFINISHED, dir=self.folder)
            os.close(handle)
            save(temporary)
            os.replace(temporary, self.folder / name)
        except Exception as problem:  # safetensors reports a full disk by an error of its own
            log.warning("%s cannot be kept in %s: %s", name, self.folder, problem)
            if temporary is not None:
                self.remove(Path(temporary))
            return None
        self._shrink()
        return self.folder / name

    def used(self, file: Path) -> None:
        """Mark a file as used now."""
        now = time.monotonic()
        if now - self._marked.get(file, -_USED_SECONDS) >= _USED_SECONDS:
            self._marked[file] = now
            with contextlib.suppress(OSError):
                os.utime(file)

    def remove(self, file: Path) -> None:
        with contextlib.suppress(OSError):
            file.unlink()

    def _shrink(self) -> None:
        """Remove what exceeds the limit, and what killed processes left unfinished."""
        files = sorted(self._files())
        size, now = sum(own for _, own, _ in files), time.time()
        for used_at, own, file in files:
            left_over = file.suffix == _UNFINISHED and now - used_at > _LEFT_SECONDS
            if left_over or (size > self.limit and file.suffix != _UNFINISHED):
                self.remove(file)
                size -= own

    def _files(self) -> list[tuple[float, int, Path]]:
        """(time of last use, bytes, file) of every file."""
        found = []
        for entry in os.scandir(self.folder):
            with contextlib.suppress(OSError):  # another process removed it
                facts = entry.stat()
                found.append((facts.st_mtime, facts.st_size, Path(entry.path)))
        return found
