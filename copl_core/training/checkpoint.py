"""Training states on disk: a killed training resumes from its last state and ends as if it had not been killed.

Each part of a training ("graph", "reward") has one file.  It is written under another name, flushed and renamed, so
that a kill leaves either the newer state or the older one.  A state holds everything that the next step reads: weights,
the optimiser's moments, the random generators, the best weights so far.  It is stored with a key of what it belongs to
(labels, texts, settings, seed: ``key_of``); under another key it is not found, and the training starts from the
beginning.  A damaged file is ignored too: it begins with a digest of the rest, since torch would read flipped bits as
other weights.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

EVERY = 20.0  # seconds of work that a kill may cost
FORMAT = 3  # of the states; raise it when a training stores other values or changes their meaning
_DIGEST = hashlib.sha256().digest_size

log = logging.getLogger("copl.worker")


class Elsewhere(Protocol):
    """Where other machines find the states of a training; no failure of it ends a training."""

    def write(self, name: str, file: Path) -> None: ...
    def read(self, name: str) -> bytes | None: ...
    def clear(self) -> None: ...


class Checkpoint:
    """States of one training in one folder.

    Args:
        folder: used for this training alone; created with the first state.
        every: seconds between two states of a part.
        found: called with the part and the state from which a training resumes.
        elsewhere: holds the states for other machines too; a state that is there goes first.
    """

    def __init__(
        self,
        folder: Path,
        every: float = EVERY,
        found: Callable[[str, dict[str, Any]], None] | None = None,
        elsewhere: Elsewhere | None = None,
    ) -> None:
        self.folder, self.every, self.found, self.elsewhere = Path(folder), every, found, elsewhere
        self._written, self._seconds = time.monotonic(), 0.0

    @property
    def due(self) -> bool:
        """Whether the next state should be written; writing takes at most a twentieth of the time."""
        return time.monotonic() - self._written >= max(self.every, 20 * self._seconds)

    def write(self, part: str, key: str, state: dict[str, Any]) -> None:
        """Store a state of tensors, numbers, strings, and dicts and lists of these.

        A full disk is logged and costs the state, not the fit.
        """
        aside, began, content = self._file(part).with_suffix(".aside"), time.monotonic(), io.BytesIO()
        torch.save({"key": key, "state": state}, content)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with open(aside, "wb") as stream:
                stream.write(hashlib.sha256(content.getbuffer()).digest())
                stream.write(content.getbuffer())
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(aside, self._file(part))
            if self.elsewhere is not None:
                self.elsewhere.write(self._file(part).name, self._file(part))
        except OSError as problem:
            log.warning("the training state cannot be written to %s: %s", self.folder, problem)
            self._remove(aside)
        self._written = time.monotonic()
        self._seconds = 0.0 if self.every == 0 else self._written - began

    def read(self, part: str, key: str) -> dict[str, Any] | None:
        """The last state of this part; None if there is none, it has another key, or the file is damaged."""
        stored = self._stored(self._elsewhere(part), key) or self._stored(self._here(part), key)
        if stored is not None and self.found is not None:
            self.found(part, stored["state"])
        return None if stored is None else stored["state"]

    def _elsewhere(self, part: str) -> bytes:
        return (self.elsewhere.read(self._file(part).name) if self.elsewhere is not None else None) or b""

    def _here(self, part: str) -> bytes:
        try:
            return self._file(part).read_bytes()
        except OSError:
            return b""

    def _stored(self, content: bytes, key: str) -> dict[str, Any] | None:
        """A file's state with its key; None where it is absent, damaged or of another key."""
        if hashlib.sha256(memoryview(content)[_DIGEST:]).digest() != content[:_DIGEST]:
            return None
        try:
            stored = torch.load(io.BytesIO(memoryview(content)[_DIGEST:]), map_location="cpu", weights_only=True)
        except Exception as problem:  # the digest is right, so another version of torch wrote it
            log.warning("the training state in %s cannot be read: %s", self.folder, problem)
            return None
        return stored if stored["key"] == key else None

    def clear(self) -> None:
        """Delete all states: the training has ended."""
        for file in self.folder.glob("*") if self.folder.is_dir() else ():
            self._remove(file)
        if self.elsewhere is not None:
            self.elsewhere.clear()

    @staticmethod
    def _remove(file: Path) -> None:
        try:
            file.unlink(missing_ok=True)
        except OSError as problem:  # another training does not find it, and this one must not fail
            log.warning("the training state cannot be removed: %s", problem)

    def _file(self, part: str) -> Path:
        return self.folder / f"{part}.pt"


def key_of(*parts: np.ndarray | str | int | float | bool | None | dict | list | tuple) -> str:
    """A key for what a training learns from: equal for equal content, different for any other.

    It also depends on torch's version, whose steps may differ, and on ``FORMAT``.
    """
    digest = hashlib.sha256(f"{FORMAT} {torch.__version__}".encode())
    for part in parts:
        if isinstance(part, np.ndarray):
            digest.update(f"{part.dtype.str}{part.shape}".encode())
            digest.update(np.ascontiguousarray(part).data)
        else:
            digest.update(json.dumps(part, sort_keys=True).encode())
        digest.update(b"\0")
    return digest.hexdigest()
