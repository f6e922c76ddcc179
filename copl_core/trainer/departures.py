"""What files still hold of people who have left: snapshots that learned from them, training states, deleted rows.

The transaction that forgets somebody says so in the database; this work follows it, and the trainer repeats what it
finds undone, so a kill in between leaves nothing for good.  The champion stays until a run without them replaces it.
"""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

from copl_core.config import Settings
from copl_core.insight.layout import Layout
from copl_core.records import RUN_KINDS, CoplError, StudyRecord
from copl_core.snapshots.snapshot import load_snapshot, on_disk, outdated, prune
from copl_core.store import Store
from copl_core.trainer.shared_snapshots import SharedSnapshots


def clean_up(store: Store, settings: Settings) -> bool:
    """Remove what the files of an installation hold of people who have left; False: a part of it waits for later."""
    is_clean, studies = _clean_home(store, settings), store.unclean_studies()
    if not all([_remove_stored(store, settings, study_id) for study_id in studies]) or not is_clean:
        return False
    if studies and not store.overwrite_deleted():
        return False
    for study_id, n_left in studies.items():
        store.mark_clean(study_id, n_left)
    return True


def remove_outdated(store: Store, root: Path, study_id: int) -> list[str]:
    """Remove the snapshots, but the champion, that have learned from somebody who has left; returns their versions.

    Those that the database no longer names are found by their manifests.
    """
    study = store.study(study_id)
    found = set(store.forgotten_snapshots(study_id)) | outdated(root, study.forgotten)
    return prune(root, on_disk(root) - (found - {study.champion}))


def _clean_home(store: Store, settings: Settings) -> bool:
    """Remove what this home holds.  The database says once for all homes that somebody has left, so each home notes
    what it has removed: a trainer that was stopped meanwhile, or has a home of its own, goes through it later.
    """
    return all([_clean_study(store, settings, study) for study in store.studies() if study.forgotten])


def _clean_study(store: Store, settings: Settings, study: StudyRecord) -> bool:
    """The snapshots of a study again whenever another champion serves it, since a champion stays until then."""
    note, wanted = settings.cache / "training" / f"{study.id}.cleaned", [str(study.forgotten), str(study.champion)]
    root, states = settings.snapshots / str(study.id), []
    done = _words(note)
    if done == wanted:
        return True
    if done[:1] != wanted[:1]:
        states = [settings.cache / "training" / f"{study.id}-{kind}" for kind in RUN_KINDS]
        for folder in states:
            shutil.rmtree(folder, ignore_errors=True)
    remove_outdated(store, root, study.id)
    if any(folder.exists() for folder in states) or outdated(root, study.forgotten) - {study.champion}:
        return False
    with suppress(OSError):  # then it is looked through again
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(" ".join(wanted))
    return True


def _words(note: Path) -> list[str]:
    try:
        return note.read_text().split()
    except (OSError, ValueError):
        return []


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
