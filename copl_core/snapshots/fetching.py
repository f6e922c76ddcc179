"""Snapshots on this machine, fetched from the storage where it has one: each version once, and never in a caller's way.

A home keeps few of the versions that the storage holds: the champion and those used last.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Lock, Thread

from copl_core.config import Settings
from copl_core.records import CoplError, SnapshotAway, StudyRecord
from copl_core.snapshots.snapshot import damage, on_disk, outdated, prune
from copl_core.snapshots.stored import StoredSnapshots
from copl_core.storage import Marks, Presence, Storage, storage_of
from copl_core.store import Store

KEPT_HERE = 8  # versions on disk that the storage holds too, beside the champion
AGAIN_SECONDS = 10.0  # between a fetch that failed and the next one
log = logging.getLogger("copl")


@dataclass
class _Fetch:
    done: Event = field(default_factory=Event)
    problem: str = ""  # why it failed, in a sentence
    ended: float = 0.0  # on the monotonic clock


def presence_of(storage: Storage, settings: Settings, marks: Marks | None = None) -> Presence:
    return Presence(storage, settings.home / "storages-used.txt", marks)


class Fetching:
    """The versions of a study on this machine.  Safe to share between threads; without a storage it does nothing.

    A copy that differs from what was written, as a bit that has flipped does, is fetched again before it is used.

    Args:
        study: reads the study's record.
        marks: of the database's storage; None: nobody knows one.
        manifest: version → SHA-256 of its manifest, None where that is not known.
    """

    def __init__(
        self,
        settings: Settings,
        study_id: int,
        study: Callable[[], StudyRecord],
        marks: Marks | None = None,
        manifest: Callable[[str], str | None] = lambda version: None,
    ) -> None:
        self.settings, self.root, self._study = settings, settings.snapshots / str(study_id), study
        self._marks, self._manifest = marks, manifest
        self._checking = Lock()  # while one caller reads a whole version
        self._checked: set[str] = set()  # versions whose files this process has found to be as they were written
        self._lock = Lock()  # over ``_stored``, ``_fetches`` and ``_manifests``
        self._stored: list[StoredSnapshots] = []  # at most one
        self._fetches: dict[str, _Fetch] = {}
        self._manifests: dict[str, dict] = {}

    @classmethod
    def of(cls, store: Store, settings: Settings, study_id: int) -> Fetching:
        """With what the database knows of the storage and of the versions."""

        def manifest(version: str) -> str | None:
            return next((one.manifest for one in store.snapshots(study_id) if one.version == version), None)

        return cls(settings, study_id, lambda: store.study(study_id), store.storage_mark, manifest)

    @property
    def stored(self) -> StoredSnapshots | None:
        """The study's snapshots in the storage; None where there is no storage."""
        with self._lock:
            if self.settings.storage and not self._stored:
                storage = storage_of(self.settings.storage)
                assert storage is not None
                self._stored.append(
                    StoredSnapshots(storage, self._study(), presence=presence_of(storage, self.settings, self._marks))
                )
            return self._stored[0] if self._stored else None

    def bring(self, version: str, seconds: float) -> None:
        """See to it that a version is on disk, and wait for it at most so long; the fetch itself goes on.

        Raises:
            SnapshotAway: it is not here by then, or cannot be fetched.
        """
        if not self.settings.storage:
            return
        if self._is_here(version):
            with contextlib.suppress(OSError):
                os.utime(self.root / version)  # used now
            return
        fetch = self._begin(version)
        fetch.done.wait(seconds)
        if self._is_here(version):
            return
        address = self.stored.address if self.stored else ""
        if fetch.done.is_set():
            raise SnapshotAway(f"{fetch.problem} It is tried again every {AGAIN_SECONDS:g} s.", failed=True)
        raise SnapshotAway(f"Snapshot {version} is being fetched from {address}; it is shown as soon as it is whole.")

    def manifests(self, versions: Iterable[str]) -> dict[str, dict]:
        """Manifests of versions that are not on disk, each read once; those that cannot be read are skipped."""
        wanted, stored = set(versions), self.stored
        if stored is None:
            return {}
        missing = wanted - self._manifests.keys()
        if missing:
            with contextlib.suppress(CoplError):
                found = stored.manifests(sorted(missing))
                with self._lock:
                    self._manifests |= found
        return {version: self._manifests[version] for version in wanted & self._manifests.keys()}

    def trim(self, stored: set[str], kept: set[str]) -> list[str]:
        """Remove versions from disk that the storage holds, but those of ``kept`` and the ones used last."""
        here = sorted(on_disk(self.root), key=lambda version: _used_at(self.root / version), reverse=True)
        return prune(self.root, set(here[:KEPT_HERE]) | (set(here) - stored) | kept)

    def _is_here(self, version: str) -> bool:
        """Whether a version is on disk, as it was written."""
        if not (self.root / version).exists():
            return False
        if version in self._checked:
            return True
        with self._checking:
            if version not in self._checked:
                problem = damage(self.root, version, self._manifest(version))
                if problem:
                    log.warning("in %s, %s; it is fetched again", self.root, problem)
                    return False
                self._checked.add(version)
        return True

    def _begin(self, version: str) -> _Fetch:
        """The fetch of a version: the one that runs or has just failed, else a new one."""
        with self._lock:
            fetch = self._fetches.get(version)
            if fetch is not None and not (fetch.done.is_set() and time.monotonic() - fetch.ended > AGAIN_SECONDS):
                return fetch
            fetch = self._fetches[version] = _Fetch()
        Thread(target=self._run, args=(version, fetch), name=f"fetch {version}", daemon=True).start()
        return fetch

    def _run(self, version: str, fetch: _Fetch) -> None:
        try:
            stored = self.stored
            assert stored is not None  # ``bring`` has looked
            self.root.mkdir(parents=True, exist_ok=True)
            stored.fetch(version, self.root, self._manifest(version), replace=(self.root / version).exists())
            with self._checking:
                self._checked.add(version)
            with self._lock:
                self._fetches.pop(version, None)
            self._trim(stored, version)
        except CoplError as problem:
            fetch.problem = str(problem)
        except Exception as problem:
            log.error("snapshot %s could not be fetched\n%s", version, traceback.format_exc())
            fetch.problem = f"Snapshot {version} cannot be fetched ({problem}); free some space or see the log."
        finally:
            fetch.ended = time.monotonic()
            fetch.done.set()

    def _trim(self, stored: StoredSnapshots, version: str) -> None:
        try:
            study = self._study()
            kept = {version, study.champion or version}
            prune(self.root, on_disk(self.root) - (outdated(self.root, study.forgotten) - kept))
            self.trim({name for name, is_whole in stored.versions().items() if is_whole}, kept)
        except CoplError as problem:
            log.warning("old snapshots stay in %s: %s", self.root, problem)


def _used_at(folder: Path) -> float:
    try:
        return folder.stat().st_mtime
    except OSError:
        return 0.0
