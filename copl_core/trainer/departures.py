"""What files still hold of people who have left: snapshots that learned from them, training states, deleted rows.

The transaction that forgets somebody says so in the database; this work follows it, and the trainer repeats what it
finds undone, so a kill in between leaves nothing for good.  The champion stays until a run without them replaces it.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from copl_core.config import Settings
from copl_core.insight.layout import Layout
from copl_core.records import CoplError
from copl_core.snapshots.snapshot import load_snapshot, on_disk, prune
from copl_core.store import Store
from copl_core.trainer.shared_snapshots import SharedSnapshots


def clean_up(store: Store, settings: Settings) -> bool:
    """Remove what the files of an installation hold of people who have left; False: a part of it waits for later."""
    studies = store.unclean_studies()
    for study_id in studies:
        remove_outdated(store, settings.snapshots / str(study_id), study_id)
        for kind in ("graph", "full"):
            shutil.rmtree(settings.cache / "training" / f"{study_id}-{kind}", ignore_errors=True)
    if not all([_remove_stored(store, settings, study_id) for study_id in studies]):
        return False
    if studies and not store.overwrite_deleted():
        return False
    for study_id, n_left in studies.items():
        store.mark_clean(study_id, n_left)
    return True


def remove_outdated(store: Store, root: Path, study_id: int) -> list[str]:
    """Remove the snapshots, but the champion, that have learned from somebody who has left; returns their versions."""
    outdated = set(store.forgotten_snapshots(study_id)) - {store.study(study_id).champion}
    return prune(root, on_disk(root) - outdated)


def _remove_stored(store: Store, settings: Settings, study_id: int) -> bool:
    """The same in the storage; False where it fails."""
    outdated = set(store.forgotten_snapshots(study_id)) - {store.study(study_id).champion}
    return SharedSnapshots(store, settings).forget(study_id, outdated)


def map_without_left(store: Store, root: Path, study_id: int) -> Layout | None:
    """The champion's map without the people who have left; None where it cannot be read."""
    champion = store.champion(study_id)
    if champion is None:
        return None
    try:
        return load_snapshot(root, champion.version).without(store.left_users(study_id), 0).layout
    except (CoplError, OSError):
        return None
