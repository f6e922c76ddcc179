"""Vectors of texts in the storage that machines share: what one trainer has encoded, the others read.

Below ``encodings/<encoder>/`` lie the files of ``vector_files``, each with the SHA-256 of its content in its name.  One
that differs from it, as the rest of an upload that was killed does, is not used; nor is one that ``vector_files`` calls
damaged.  All of this can be made again: a
storage that fails costs the time to encode, and nothing else.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Callable
from pathlib import Path

from copl_core.records import CoplError
from copl_core.storage import DamagedFile, Presence, Storage, attempt
from copl_core.training.vector_files import VectorFiles

FEWEST = 64  # texts: fewer are encoded sooner than they are found elsewhere
_NAME = re.compile(r"([0-9a-f]{32})-([0-9a-f]{64})\.safetensors")
log = logging.getLogger("copl.worker")
_refused: set[str] = set()  # damaged files of storages, with their digests: this process has named them once


class SharedVectors:
    """The encodings in a storage.

    Args:
        limit_mb: of the files of one encoder; the oldest are removed.
        presence: checked before anything is written or read.
    """

    def __init__(self, storage: Storage, limit_mb: float, presence: Presence | None = None) -> None:
        self.storage, self.limit, self.presence = storage, limit_mb * 1e6, presence

    def put(self, encoder: str, file: Path) -> None:
        """Store a file of vectors; where that fails, a warning says why."""
        self._try("stored", lambda: self._put(f"encodings/{encoder}", file))

    def take(self, encoder: str, here: VectorFiles) -> None:
        """Fetch the files that are not here; where that fails, a warning says why."""
        self._try("fetched", lambda: self._take(f"encodings/{encoder}", here))

    def _put(self, folder: str, file: Path) -> None:
        if self.presence:
            self.presence.use(to_write=True)
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        self.storage.put({f"{folder}/{file.stem}-{digest}.safetensors": file})
        self._shrink(folder)

    def _take(self, folder: str, here: VectorFiles) -> None:
        if self.presence:
            self.presence.use(to_write=False)
        room = here.files.limit
        for path, size in self.storage.sizes(folder).items():
            found = _NAME.fullmatch(path.rpartition("/")[2])
            if found is None or size > room or path in _refused:
                continue
            name = f"{found[1]}.safetensors"
            if (here.files.folder / name).exists():
                continue
            content = self.storage.read([path]).get(path, b"")
            if hashlib.sha256(content).hexdigest() == found[2] and self._kept(path, here, name, content):
                room -= size

    def _kept(self, path: str, here: VectorFiles, name: str, content: bytes) -> bool:
        try:
            here.take(name, content)
        except DamagedFile as problem:
            _refused.add(path)
            log.warning("%s in %s is not used: %s", path, self.storage.address, problem)
            return False
        return True

    def _shrink(self, folder: str) -> None:
        """Remove what exceeds the limit, the oldest first."""
        sizes = self.storage.sizes(folder)
        excess = sum(sizes.values()) - self.limit
        if excess <= 0:
            return
        for path in sorted(sizes, key=self.storage.changed):
            if excess > 0:
                self.storage.remove(path)
                excess -= sizes[path]

    def _try(self, done: str, act: Callable[[], None]) -> None:
        try:
            attempt(f"Encodings cannot be {done} in {self.storage.address}", act, "make it reachable and writable", ())
        except CoplError as problem:
            log.warning("%s", problem)
