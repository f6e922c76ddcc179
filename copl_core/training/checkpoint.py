"""Where a training stands, on disk: one that was killed goes on from there, and ends as if it never had been.

A part of a training ("graph", "reward") has one file, written aside, flushed and renamed, so that a kill leaves either
the newer state or the older one.  A state holds everything the next step reads: weights, the optimiser's moments, the
random generators, what was best so far.  It names what it belongs to (labels, texts, settings, seed: ``key_of``); under
another name it is not found, and the training starts anew.  So does one whose file is damaged: it begins with a digest
of the rest, since torch reads flipped bits as other weights.
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

import numpy as np
import torch

EVERY = 20.0  # seconds of work that a kill may cost
FORMAT = 2  # of the states: to be raised when any training keeps something else, or means something else by it
_DIGEST = hashlib.sha256().digest_size

log = logging.getLogger("copl.worker")


class Checkpoint:
    """States of one training in one folder.

    Args:
        folder: its own; made at the first state.
        every: seconds between two states of a part.
        found: told the part and the state that a training goes on from.
    """

    def __init__(self, folder: Path, every: float = EVERY, found: Callable[[str, dict], None] | None = None) -> None:
        self.folder, self.every, self.found = Path(folder), every, found
        self._written, self._took = time.monotonic(), 0.0

    @property
    def due(self) -> bool:
        """Whether enough work has been done since the last state; a twentieth of the time may go into writing."""
        return time.monotonic() - self._written >= max(self.every, 20 * self._took)

    def write(self, part: str, key: str, state: dict) -> None:
        """Keep tensors, numbers, strings, and dicts and lists of these; a full disk costs the state, not the fit."""
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
        except OSError as problem:
            log.warning("the state of a training cannot be kept in %s: %s", self.folder, problem)
            self._remove(aside)
        self._written = time.monotonic()
        self._took = 0.0 if self.every == 0 else self._written - began

    def read(self, part: str, key: str) -> dict | None:
        """The last state of this part; None where there is none, it belongs to another training, or is damaged."""
        try:
            content = self._file(part).read_bytes()
        except OSError:
            return None
        if hashlib.sha256(memoryview(content)[_DIGEST:]).digest() != content[:_DIGEST]:
            return None
        try:
            kept = torch.load(io.BytesIO(memoryview(content)[_DIGEST:]), map_location="cpu", weights_only=True)
        except Exception as problem:  # whole, so it was written by a torch that writes otherwise
            log.warning("the state of a training in %s cannot be read: %s", self.folder, problem)
            return None
        if kept["key"] != key:
            return None
        if self.found is not None:
            self.found(part, kept["state"])
        return kept["state"]

    def clear(self) -> None:
        """Forget everything: the training has ended."""
        for file in self.folder.glob("*") if self.folder.is_dir() else ():
            self._remove(file)

    @staticmethod
    def _remove(file: Path) -> None:
        try:
            file.unlink(missing_ok=True)
        except OSError as problem:  # it will not be found by another training, nor end this one
            log.warning("the state of a training cannot be removed: %s", problem)

    def _file(self, part: str) -> Path:
        return self.folder / f"{part}.pt"


def key_of(*parts: np.ndarray | str | int | float | bool | None | dict | list | tuple) -> str:
    """A name for what a training learns from, the same for the same content and for no other.

    It is another one under another torch, whose steps may differ, and in a program that keeps other states.
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
