"""What files still hold of people who have left: snapshots that learned from them, training states, deleted rows,
copies of the database.

The transaction that forgets somebody says so in the database; this work follows it, and the trainer repeats what it
finds undone, so a kill in between leaves nothing for good.  The champion stays until a run without them replaces it.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from scipy.special import expit

from copl_core.config import Settings
from copl_core.ids import rows_of
from copl_core.insight.layout import Layout
from copl_core.preference.state import GraphState
from copl_core.records import (
    RUN_KINDS,
    Comparisons,
    CoplError,
    StudyRecord,
    TrainingData,
    counted,
    counted_people,
)
from copl_core.snapshots.snapshot import Snapshot, load_snapshot, on_disk, outdated, prune
from copl_core.store import Store
from copl_core.trainer.shared_snapshots import SharedSnapshots

COMPARED = 2000  # predictions for others, before and after somebody is forgotten
Part = TypeVar("Part")


def clean_up(store: Store, settings: Settings) -> list[str]:
    """Remove what the files of an installation hold of people who have left; what waits for later, in sentences."""
    return CleanUp(store, settings).attempt()


class CleanUp:
    """Removes it step by step: one that fails stops no other, and the database is not rewritten again for a storage
    that is away.
    """

    def __init__(self, store: Store, settings: Settings) -> None:
        self.store, self.settings = store, settings
        self._overwritten: dict[int, int] = {}  # study → how many had left when the database was rewritten

    def attempt(self) -> list[str]:
        """What waits for later, in sentences; empty once all is done."""
        return [*_problems(self._clean_home), *_problems(self._clean_shared)]

    def _clean_home(self) -> list[str]:
        """Remove what this home holds.  The database says once for all homes that somebody has left, so each notes
        what it has removed: a trainer that was stopped meanwhile, or has a home of its own, goes through it later.
        """
        studies = [study for study in self.store.studies() if study.forgotten]
        return [
            f"Files of study {study.id} in {self.settings.home} that learned from people who have left cannot be "
            "removed; make the folder writable."
            for study in studies
            if not _clean_study(self.store, self.settings, study)
        ]

    def _clean_shared(self) -> list[str]:
        """Overwrite the deleted rows and empty the storage; the database says that it is done once both are."""
        studies = self.store.unclean_studies()
        if not studies:
            return []
        waits = _problems(partial(self._overwrite, list(studies)))
        for study_id in studies:
            waits += _problems(partial(self._remove_stored, study_id))
        if not waits:
            for study_id, n_left in studies.items():
                self.store.drop_forgotten_snapshots(study_id)
                self.store.mark_clean(study_id, n_left)
        return waits

    def _overwrite(self, study_ids: list[int]) -> None:
        left = {study_id: len(self.store.left_users(study_id)) for study_id in study_ids}
        if not left.items() <= self._overwritten.items():
            self.store.overwrite_deleted()
            self.store.drop_backups()
            self._overwritten = left

    def _remove_stored(self, study_id: int) -> None:
        versions = set(self.store.forgotten_snapshots(study_id)) - {self.store.study(study_id).champion}
        SharedSnapshots(self.store, self.settings).forget(study_id, versions)


def _problems(act: Callable[[], list[str] | None]) -> list[str]:
    """What a step says or raises."""
    try:
        return act() or []
    except (CoplError, OSError) as problem:
        return [str(problem)]


def remove_outdated(store: Store, root: Path, study_id: int) -> list[str]:
    """Remove the snapshots, but the champion, that have learned from somebody who has left; returns their versions.

    Those that the database no longer names are found by their manifests.
    """
    study = store.study(study_id)
    found = set(store.forgotten_snapshots(study_id)) | outdated(root, study.forgotten)
    return prune(root, on_disk(root) - (found - {study.champion}))


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


@dataclass(frozen=True, slots=True)
class Change:
    """How far predictions for those who stay have moved, once somebody who has left is forgotten."""

    mean: float  # mean |P before − P after| that a person prefers the first answer of a pair
    pairs: int  # (person, pair) of which that is the mean
    people: int

    @property
    def sentence(self) -> str:
        return (
            f"Trained without the people who have left: predictions for the others changed by {self.mean:.3f} on "
            f"average ({counted(self.pairs, 'prediction')} for {counted_people(self.people)})."
        )


def champion_without_left(store: Store, root: Path, study_id: int) -> Snapshot | None:
    """The champion without the rows of people who have left; None where there is none, or its files are lost."""
    champion = store.champion(study_id)
    if champion is None:
        return None
    try:
        return load_snapshot(root, champion.version).without(store.left_users(study_id), 0)
    except (CoplError, OSError):
        return None


def map_of(champion: Snapshot | None) -> Layout | None:
    """The map of ``champion_without_left``; None where it cannot be read."""
    return None if champion is None else _readable(lambda: champion.layout)


def change_for_others(
    store: Store, study_id: int, champion: Snapshot | None, data: TrainingData, after: GraphState
) -> Change | None:
    """What forgetting has changed for others, between ``champion_without_left`` and ``after``; None where nobody whom
    the champion knew has left, or it cannot be read.

    Some people of both graphs, each with a labelled pair that both graphs know, are drawn (``COMPARED``).
    """
    if champion is None or not store.knows_forgotten(study_id):
        return None
    before = _readable(lambda: champion.graph)
    if before is None:
        return None
    people = np.intersect1d(before.user_ids, after.user_ids)
    rng = np.random.default_rng(0)
    some = data.labels.take(rng.integers(len(data.labels), size=10 * COMPARED))  # a study may have millions
    pairs = np.column_stack([data.response_ids[some.left], data.response_ids[some.right]])
    pairs = pairs[np.isin(pairs, np.intersect1d(before.response_ids, after.response_ids)).all(1)]
    if not len(people) or not len(pairs):
        return None
    drawn, about = rng.choice(people, COMPARED), rng.choice(pairs, COMPARED)
    p, q = (expit(_margins(state, drawn, about)) for state in (before, after))
    return Change(float(np.abs(p - q).mean()), COMPARED, len(np.unique(drawn)))


def _readable(part: Callable[[], Part]) -> Part | None:
    try:
        return part()
    except (CoplError, OSError):
        return None


def _margins(state: GraphState, people: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Log-odds (N,) by the ids of people (N,) and of responses (N, 2)."""
    user, (left, right) = rows_of(people, state.user_ids), rows_of(pairs.T, state.response_ids)
    return state.margins(Comparisons.build(user, left, right, np.ones(len(user))))
