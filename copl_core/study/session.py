"""What every verb of a study needs: its store, its settings, its id, and the trained state held open.

A verb is a function whose first argument is a ``Session``: it loads, checks, computes, saves and returns.  The database
is known only as a ``Store`` and the trained state only as a ``Snapshot``; no torch is imported until a verb needs a
language model.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, TypeVar

from copl_core.config import Settings
from copl_core.records import StudyRecord
from copl_core.snapshots.snapshot import Snapshot, load_snapshot
from copl_core.store import Store

if TYPE_CHECKING:
    from copl_core.study.scoring import Scorer

_KEPT_SNAPSHOTS = 3
Made = TypeVar("Made")


class Session:
    """One study of an installation, open for use by any number of threads."""

    def __init__(self, store: Store, settings: Settings, study_id: int) -> None:
        self.store, self.settings, self.id = store, settings, study_id
        self._snapshots: dict[str, Snapshot] = {}
        self._lock = Lock()  # over what is held open
        self._once: dict[str, tuple[Hashable, object]] = {}
        self._once_locks: dict[str, Lock] = {}
        self._scorer: Scorer | None = None
        self._scorer_lock = Lock()  # of its own: importing torch takes seconds, and labelling does not wait for it

    @property
    def record(self) -> StudyRecord:
        """The study's row as it is now."""
        return self.store.study(self.id)

    @property
    def snapshot_root(self) -> Path:
        return self.settings.snapshots / str(self.id)

    def snapshot(self) -> Snapshot | None:
        """The champion, opened once and kept; None before the first one.

        Raises:
            CoplError: the champion's files are missing or damaged.
        """
        return self.open_snapshot(self.record.champion)

    def open_snapshot(self, version: str | None) -> Snapshot | None:
        """A snapshot by its version, opened once and kept; None for none.

        Raises:
            CoplError: its files are missing or damaged.
        """
        if version is None:
            return None
        with self._lock:
            if version not in self._snapshots:
                self._snapshots[version] = load_snapshot(self.snapshot_root, version)
                while len(self._snapshots) > _KEPT_SNAPSHOTS:
                    self._snapshots.pop(next(iter(self._snapshots)))
            return self._snapshots[version]

    def once(self, name: str, key: Hashable, make: Callable[[], Made]) -> Made:
        """What ``make`` returns, made once and kept under its name until it is requested with another key."""
        with self._lock:
            making = self._once_locks.setdefault(name, Lock())
        with making:
            if name not in self._once or self._once[name][0] != key:
                self._once[name] = (key, make())
            return self._once[name][1]  # type: ignore[return-value]  # what is kept under a name is what its make gave

    def scorer(self) -> Scorer:
        """The part that reads texts with a language model, made at first use since it imports torch."""
        with self._scorer_lock:
            if self._scorer is None:
                from copl_core.study.scoring import Scorer

                self._scorer = Scorer(self.settings)
            return self._scorer
