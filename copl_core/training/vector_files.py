"""Vectors by key on disk, in files of many vectors each."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from copl_core.kept_files import KeptFiles

KEY = 40  # characters of a key
MANY = 200  # small files, from which they become one
SMALL = 1_000_000  # bytes


class VectorFiles:
    """Reads and writes the files; memory holds where each vector is, and no vector."""

    def __init__(self, files: KeptFiles) -> None:
        self.files = files
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
                found |= {key: table["vectors"][self._place[key][1]].copy() for key in wanted}
                self.files.used(file)
            else:
                self._forget(file)
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

    def _list(self) -> None:
        """Learn what other processes have written, and join many small files into one."""
        for file in sorted(self.files.folder.glob("*.safetensors")):
            if file not in self._listed:
                table = self._table(file)
                keys = "" if table is None else table["keys"].tobytes().decode("ascii")
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

    @staticmethod
    def _table(file: Path) -> dict[str, np.ndarray] | None:
        """The contents of a file; None where it is damaged or was removed: its texts are embedded again."""
        try:
            return load_file(file)
        except (SafetensorError, OSError):
            return None
