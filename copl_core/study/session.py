"""What every verb of a study needs: the store, the settings, the study's id, and open snapshots.

A verb is a function whose first argument is a ``Session``: it loads, checks, computes, saves and returns.  A session
knows the database only as a ``Store`` and the trained state only as ``Snapshot``; torch is imported when a verb first
needs a language model.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from copy import copy
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, TypeVar, overload

import numpy as np

from copl_core.config import Settings
from copl_core.records import StudyRecord
from copl_core.snapshots.fetching import Fetching
from copl_core.snapshots.snapshot import Snapshot, load_snapshot
from copl_core.store import Store

if TYPE_CHECKING:
    from copl_core.study.scoring import Scorer

_KEPT_SNAPSHOTS = 3
PATIENCE = 600.0  # seconds that a program waits for a snapshot to be fetched
Made = TypeVar("Made")


class Session:
    """One study of an installation.  Safe to share between threads.

    Args:
        embed: texts → φ; None: the bundled sentence model.
        patience: seconds to wait for a snapshot that must be fetched first; pages do not wait.
    """

    def __init__(
        self,
        store: Store,
        settings: Settings,
        study_id: int,
        embed: Callable[..., np.ndarray] | None = None,
        patience: float = PATIENCE,
    ) -> None:
        self.store, self.settings, self.id = store, settings, study_id
        self.embed, self.patience = embed, patience
        self.actor: int | None = None  # the user who acts; None: the product itself, or its terminal
        self.fetching = Fetching.of(store, settings, study_id)
        self._snapshots: dict[str, Snapshot] = {}
        self._lock = Lock()  # over the open snapshots and the names in ``_once``
        self._once: dict[str, tuple[Hashable, object]] = {}
        self._once_locks: dict[str, Lock] = {}
        self._scorer: list[Scorer] = []  # at most one
        self._scorer_lock = Lock()  # a separate lock: importing torch takes seconds, and labelling does not wait for it

    def acting(self, user_id: int | None) -> Session:
        """The same study, with the same caches, for the acts of one user; None for those of the product."""
        if user_id == self.actor:
            return self
        view = copy(self)
        view.actor = user_id
        return view

    @property
    def record(self) -> StudyRecord:
        """The present record of the study."""
        return self.store.study(self.id)

    @property
    def snapshot_root(self) -> Path:
        return self.settings.snapshots / str(self.id)

    def snapshot(self) -> Snapshot | None:
        """The champion, opened once and cached; None before the first one.

        Raises:
            CoplError: the champion's files are missing or damaged.
        """
        return self.open_snapshot(self.record.champion)

    @overload
    def open_snapshot(self, version: str) -> Snapshot: ...
    @overload
    def open_snapshot(self, version: str | None) -> Snapshot | None: ...
    def open_snapshot(self, version: str | None) -> Snapshot | None:
        """A snapshot by its version, opened once and cached; None for the version None.

        Raises:
            SnapshotAway: it is not on this machine yet, or cannot be fetched.
            CoplError: its files are missing or damaged.
        """
        if version is None:
            return None
        forgotten = self.record.forgotten
        self.bring(version)
        with self._lock:
            self._close_outdated(version, forgotten)
            if version not in self._snapshots:
                self._snapshots[version] = self._without_left(load_snapshot(self.snapshot_root, version), forgotten)
                while len(self._snapshots) > _KEPT_SNAPSHOTS:
                    self._close(next(iter(self._snapshots)))
            self._snapshots[version] = self._snapshots.pop(version)  # the one used longest ago is closed first
            return self._snapshots[version]

    def _close_outdated(self, version: str, forgotten: int) -> None:
        """Forget a snapshot that shows somebody who has left since it was opened, and all that was computed."""
        found = self._snapshots.get(version)
        if found is not None and found.knows(forgotten) and found.forgotten != forgotten:
            self._close(version)
            self._once.clear()

    def _without_left(self, found: Snapshot, forgotten: int) -> Snapshot:
        return found.without(self.store.left_users(self.id), forgotten) if found.knows(forgotten) else found

    def bring(self, version: str, seconds: float | None = None) -> None:
        """See to it that a snapshot's files are on this machine, and wait for them, by default for ``patience``.

        Raises:
            SnapshotAway: they are not here by then, or cannot be fetched.
        """
        self.fetching.bring(version, self.patience if seconds is None else seconds)

    def _close(self, version: str) -> None:
        """Forget a snapshot and what was computed of it."""
        del self._snapshots[version]
        for name in [name for name in list(self._once) if name.endswith(f" of {version}")]:
            del self._once[name]

    def once(self, name: str, key: Hashable, make: Callable[[], Made]) -> Made:
        """The result of ``make``, computed once and cached under its name until a call comes with another key.

        What has a name that ends with "of" and a version goes when that snapshot is closed.
        """
        with self._lock:
            making = self._once_locks.setdefault(name, Lock())
        with making:
            kept = self._once.get(name)
            if kept is None or kept[0] != key:
                kept = self._once[name] = (key, make())
            return kept[1]  # type: ignore[return-value]  # a name always belongs to one type of result

    def scorer(self) -> Scorer:
        """The scorer, which reads texts with a language model; made at first use because it imports torch."""
        with self._scorer_lock:
            if not self._scorer:
                from copl_core.study.scoring import Scorer

                self._scorer.append(Scorer(self.settings, self.embed))
            return self._scorer[0]
