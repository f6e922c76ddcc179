"""A study that an owner has deleted goes: its rows in short transactions, then its files here and in the storage.

The database says what is to be done yet, so the next one goes on: the process in which it was deleted, or a
trainer after a kill.  Each home removes what it holds itself.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial

from copl_core.config import Settings
from copl_core.records import RUN_KINDS, CoplError, DeletedStudy, Deletion, StudyRecord
from copl_core.snapshots.fetching import presence_of
from copl_core.snapshots.stored import key_of_study
from copl_core.storage import storage_of, without_secrets
from copl_core.store import Store


def go_on(store: Store, settings: Settings, seconds: float | None = None) -> list[str]:
    """Delete what is left of deleted studies; what waits for later, in sentences.

    Args:
        seconds: for which rows of each are deleted, at most; None: until all are gone.

    Raises:
        CoplError: the database cannot be written now.
    """
    waits = []
    for study in store.deleted_studies():
        if study.state is Deletion.ROWS and not store.delete_rows(study.id, seconds=seconds):
            waits.append(f"Rows of {study.name!r} are left; the trainer goes on deleting them.")
    studies = store.deleted_studies()
    waits += [problem for study in studies for problem in _clean_home(settings, study)]
    if not any(study.state is Deletion.ROWS for study in studies):
        waits += _clean_shared(store, settings, [study for study in studies if study.state is Deletion.FILES])
    return waits


def _clean_home(settings: Settings, study: DeletedStudy) -> list[str]:
    """Remove what this home holds, again and again: a run may have been fitting while the study was deleted."""
    training = settings.cache / "training"
    states = [training / f"{study.id}-{kind}" for kind in RUN_KINDS]
    folders = [settings.snapshots / str(study.id), training / str(study.id), *states]
    for folder in folders:
        if folder.exists():
            shutil.rmtree(folder, ignore_errors=True)
    (training / f"{study.id}.cleaned").unlink(missing_ok=True)
    left = [folder for folder in folders if folder.exists()]
    return [f"{folder} of the deleted study cannot be removed; make it writable." for folder in left]


def _clean_shared(store: Store, settings: Settings, studies: list[DeletedStudy]) -> list[str]:
    """Rewrite the database without the deleted rows, and empty the storage; the database then says that it is done."""
    if not studies:
        return []
    steps: list[Callable[[], object]] = [store.overwrite_deleted, store.drop_backups]
    steps += [partial(_empty_storage, store, settings, study) for study in studies]
    waits = [problem for step in steps for problem in _problem_of(step)]
    if not waits:
        for study in studies:
            store.finish_deletion(study.id)
    return waits


def _empty_storage(store: Store, settings: Settings, study: DeletedStudy) -> None:
    storage = storage_of(settings.storage)
    if storage is None:
        return
    record = StudyRecord(study.id, study.name, False, None, 0, False, created_at=study.created_at)
    try:
        presence_of(storage, settings, store.storage_mark).check()  # what is not there would pass for removed
        key = key_of_study(record)
        for folder in (f"snapshots/{key}", *(f"training/{key}-{kind}" for kind in RUN_KINDS)):
            storage.remove(folder, folder=True)
    except Exception as problem:  # the package of the address has errors of its own
        what = f"The storage {settings.storage} still holds files of the deleted study {study.name!r} ({problem})"
        raise CoplError(f"{without_secrets(what)}; make it reachable and writable.") from problem


def _problem_of(step: Callable[[], object]) -> list[str]:
    try:
        step()
        return []
    except (CoplError, OSError) as problem:
        return [str(problem)]
