"""Vectors by key on disk, in files of many vectors each.

A file has two tables: ``keys``, the bytes of n keys one after the other, and ``vectors`` (n, H) float32.  One that is
anything else, damaged or forged, is removed, and its texts are encoded again.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
from safetensors.numpy import load, load_file, save_file

from copl_core.kept_files import KeptFiles
from copl_core.storage import DamagedFile

KEY = 40  # characters of a key
MANY = 200  # small files, from which they become one
SMALL = 1_000_000  # bytes
_KEYS = re.compile(f"(?:[0-9a-f]{{{KEY}}})*")
log = logging.getLogger("copl")


class VectorFiles:
    """Reads and writes the files; memory holds where each vector is, and no vector.

    Args:
        width: H, the length of a vector.
    """

    def __init__(self, files: KeptFiles, width: int) -> None:
        self.files, self.width = files, width
        self._place: dict[str, tuple[Path, int]] = {}  # key → file and row
        self._listed: set[Path] = set()

    def read(self, keys: set[str]) -> dict[str, np.ndarray]:
        """The vectors that are here."""
        found = self._read(keys)
        if len(found) < len(keys):  # another process may have written more, or joined files
            self._list()
            found |= self._read(keys - found.keys())
        return found

    def _read(self, keys: set[str]) -> dict[str, np.ndarray]:
        by_file: dict[Path, list[str]] = {}
        for key in keys & self._place.keys():
            by_file.setdefault(self._place[key][0], []).append(key)
        found: dict[str, np.ndarray] = {}
        for file, wanted in by_file.items():
            table = self._table(file)
            if table is not None:
                stored, vectors = table
                rows = {key: self._place[key][1] for key in wanted}
                # another process may have put a file with other keys under this name
                found |= {
                    key: vectors[row].copy() for key, row in rows.items() if stored[row * KEY : (row + 1) * KEY] == key
                }
                self.files.used(file)
        return found

    def write(self, vectors: dict[str, np.ndarray]) -> Path | None:
        """Keep vectors in one new file."""
        name = hashlib.sha256("".join(vectors).encode()).hexdigest()[:32] + ".safetensors"
        keys = np.frombuffer("".join(vectors).encode("ascii"), np.uint8)
        table = {"keys": keys, "vectors": np.stack(list(vectors.values()))}
        file = self.files.write(name, lambda path: save_file(table, path))
        if file is not None:
            self._add(file, list(vectors))
        return file

    def take(self, name: str, content: bytes) -> None:
        """Keep a file that another machine has written.

        Raises:
            DamagedFile: it is not one of vectors of this width.
        """
        _checked(lambda: load(content), self.width)
        self.files.write(name, lambda path: Path(path).write_bytes(content))

    def _list(self) -> None:
        """Learn what other processes have written, and join many small files into one."""
        for file in sorted(self.files.folder.glob("*.safetensors")):
            if file not in self._listed:
                self._listed.add(file)
                if (table := self._table(file)) is not None:
                    keys, _ = table
                    self._add(file, [keys[at : at + KEY] for at in range(0, len(keys), KEY)])
        self._join()

    def _join(self) -> None:
        """Pages embed a text or two at a time: without this, they leave a file for each."""
        small = [file for file in self._listed if file.is_file() and file.stat().st_size < SMALL]
        if len(small) < MANY:
            return
        keys = {key for key, (file, _) in self._place.items() if file in set(small)}
        vectors = self._read(keys)
        joined = self.write(vectors) if vectors else None
        for file in small if joined is not None else ():
            if file != joined:
                self._forget(file)
                self.files.remove(file)

    def _add(self, file: Path, keys: list[str]) -> None:
        self._listed.add(file)
        self._place |= {key: (file, row) for row, key in enumerate(keys)}

    def _forget(self, file: Path) -> None:
        self._place = {key: place for key, place in self._place.items() if place[0] != file}
        if not file.exists():  # it may be written again
            self._listed.discard(file)

    def _table(self, file: Path) -> tuple[str, np.ndarray] | None:
        """Keys and vectors (n, H) of a file; None where it is damaged or was removed: its texts are encoded again."""
        try:
            return _checked(lambda: load_file(file), self.width)
        except DamagedFile as problem:
            log.warning("%s is removed, and its texts are encoded again: %s", file, problem)
            self.files.remove(file)
        except OSError:  # another process removed it
            pass
        self._forget(file)
        return None


def _checked(read: Callable[[], dict[str, np.ndarray]], width: int) -> tuple[str, np.ndarray]:
    """The keys, one after the other, and the vectors (n, H) of a file.

    Raises:
        DamagedFile: it has anything else.
        OSError: as ``read`` raises it.
    """
    try:
        table = read()
        keys, vectors = table["keys"], table["vectors"]
        text = keys.tobytes().decode("ascii")
    except OSError:
        raise
    except Exception as problem:  # safetensors and numpy have many kinds of errors for what somebody may have written
        raise DamagedFile(f"it cannot be read as vectors ({type(problem).__name__})") from problem
    if keys.dtype != np.uint8 or _KEYS.fullmatch(text) is None:
        raise DamagedFile("its keys are not those of texts")
    needed = (len(text) // KEY, width)
    if vectors.dtype != np.float32 or vectors.shape != needed:
        raise DamagedFile(f"its vectors have shape {vectors.shape} and type {vectors.dtype}, not {needed} and float32")
    if not np.isfinite(vectors).all():
        raise DamagedFile("its vectors are not finite")
    return text, vectors
