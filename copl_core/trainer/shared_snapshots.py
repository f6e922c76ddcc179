"""What the trainer does for the storage that machines share; without one, every function leaves things as they are.

A snapshot is in the storage before it is in the database, and leaves the disk only if the storage holds it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from copl_core.config import Settings
from copl_core.records import CoplError
from copl_core.snapshots.fetching import Fetching, presence_of
from copl_core.snapshots.snapshot import Snapshot, load_snapshot, on_disk, prune
from copl_core.snapshots.stored import key_of_study
from copl_core.storage import Presence, Storage, StorageError, attempt, storage_of, without_secrets
from copl_core.store import Store
from copl_core.training.shared_vectors import SharedVectors

FETCH_SECONDS = 3600.0  # for which a run waits for its champion
VECTORS_SHARE = 0.25  # of ``cache_mb``, as on disk
log = logging.getLogger("copl.worker")
T = TypeVar("T")


class StoredStates:
    """The states of one training (``training.checkpoint.Elsewhere``) in the storage: what another trainer resumes."""

    def __init__(self, storage: Storage, folder: str, presence: Presence | None = None) -> None:
        self.storage, self.folder, self.presence = storage, folder, presence

    def write(self, name: str, file: Path) -> None:
        self._try("written", lambda: self._write(name, file))

    def _write(self, name: str, file: Path) -> None:
        if self.presence:
            self.presence.use(to_write=True)
        self.storage.put({f"{self.folder}/{name}": file})

    def read(self, name: str) -> bytes | None:
        found = self._try("read", lambda: self.storage.read([f"{self.folder}/{name}"]))
        return next(iter((found or {}).values()), None)

    def clear(self) -> None:
        self._try("removed", lambda: self.storage.remove(self.folder, folder=True))

    def _try(self, done: str, act: Callable[[], T]) -> T | None:
        """The result of ``act``; None where the storage fails, which costs the state and no training."""
        try:
            where = f"{self.storage.address}/{self.folder}"
            return attempt(f"The training state cannot be {done} in {where}", act, "make it reachable", ())
        except StorageError as problem:
            log.warning("%s", problem)
            return None


class SharedSnapshots:
    """The snapshots of all studies in the storage and on this machine."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self.store, self.settings = store, settings

    def put(self, study_id: int, snapshot: Snapshot) -> None:
        """Store a snapshot that is not recorded yet.

        Raises:
            StorageError: the storage refuses it, at later tries too.
            CoplError: the database has a version of this name by now.
        """
        if stored := self._of(study_id).stored:
            if self._is_recorded(study_id, snapshot.version):
                raise CoplError(f"Snapshot {snapshot.version} exists already; give the new snapshot another version.")
            stored.put(snapshot)

    def take_back(self, study_id: int, version: str) -> bool:
        """Remove a snapshot that could not be recorded from the storage; False where it must stay on disk, too: it is
        recorded after all, or the database cannot say so, and ``sweep`` removes it later if it is not.
        """
        try:
            if self._is_recorded(study_id, version):
                return False
        except CoplError as problem:
            log.warning("snapshot %s stays for now: %s", version, problem)
            return False
        try:
            if stored := self._of(study_id).stored:
                stored.remove(version)
        except CoplError as problem:
            log.warning("%s", problem)
        return True

    def bring(self, study_id: int, version: str) -> None:
        """See to it that a snapshot is on disk.

        Raises:
            SnapshotAway: it cannot be fetched.
        """
        self._of(study_id).bring(version, FETCH_SECONDS)

    def sweep(self, study_id: int, known: set[str]) -> None:
        """Remove what killed trainers left in the storage."""
        try:
            if stored := self._of(study_id).stored:
                for version in stored.sweep(known):
                    log.info("removed the unrecorded snapshot %s from %s", version, stored.address)
        except StorageError as problem:
            log.warning("%s", problem)

    def prune(self, study_id: int, known: set[str], kept: set[str], champion: str | None) -> None:
        """Store what is on disk alone, and remove old versions from the storage and from disk.

        Without a storage, the versions that are not kept leave the disk.  Those that have learned from somebody who has
        left, but the champion, are never kept.

        Args:
            known: the versions in the database.
        """
        fetching = self._of(study_id)
        stored = fetching.stored
        kept = (kept - set(self.store.forgotten_snapshots(study_id))) | ({champion} if champion else set())
        if stored is None:
            removed = prune(fetching.root, kept)
        else:
            try:
                whole = {version for version, is_whole in stored.versions().items() if is_whole}
                for version in sorted((on_disk(fetching.root) & known & kept) - whole):
                    stored.put(load_snapshot(fetching.root, version))  # made before there was a storage
                    whole.add(version)
                for version in sorted((whole & known) - kept):
                    stored.remove(version)
                removed = prune(fetching.root, on_disk(fetching.root) - (known - kept))
                removed += fetching.trim(whole, {champion} if champion else set())
            except CoplError as problem:
                log.warning("old snapshots stay until the next run: %s", problem)
                return
        for version in removed:
            log.info("removed the old snapshot %s", version)

    def forget(self, study_id: int, versions: set[str]) -> None:
        """Remove versions and all training states from the storage.

        Raises:
            CoplError: the storage refuses it.
        """
        try:
            if stored := self._of(study_id).stored:
                stored.check_presence()  # what is not there would pass for removed
                for version in sorted(versions):
                    stored.remove(version)
                for kind in ("graph", "full"):
                    stored.storage.remove(f"training/{key_of_study(self.store.study(study_id))}-{kind}", folder=True)
        except Exception as problem:  # the package of the address has errors of its own
            what = f"The storage {self.settings.storage} still holds what learned from people who have left ({problem})"
            raise CoplError(f"{without_secrets(what)}; make it reachable and writable.") from problem

    def states(self, study_id: int, kind: str) -> StoredStates | None:
        """The training states of a study's runs of a kind; None without a storage."""
        storage = storage_of(self.settings.storage)
        if storage is None:
            return None
        folder = f"training/{key_of_study(self.store.study(study_id))}-{kind}"
        return StoredStates(storage, folder, presence_of(storage, self.settings, self.store.storage_mark))

    def vectors(self) -> SharedVectors | None:
        """What trainers have encoded; None without a storage."""
        storage = storage_of(self.settings.storage)
        if storage is None:
            return None
        presence = presence_of(storage, self.settings, self.store.storage_mark)
        return SharedVectors(storage, VECTORS_SHARE * self.settings.cache_mb, presence)

    def _is_recorded(self, study_id: int, version: str) -> bool:
        return any(record.version == version for record in self.store.snapshots(study_id))

    def _of(self, study_id: int) -> Fetching:
        return Fetching.of(self.store, self.settings, study_id)
