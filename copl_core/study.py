"""The verbs of a study: what a page, the terminal and the trainer may ask for.

A verb loads, checks, computes, saves and returns.  It knows the database only as a ``Store`` and the trained state only
as a ``Snapshot``; it imports no torch until a verb needs a language model.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from typing import TypeVar

from copl_core import access, divisions, experts_room, measure, people, places, portrait, rewards, room, runs, taste
from copl_core.config import Settings
from copl_core.records import (
    ImportReport,
    ImportRow,
    Pair,
    Response,
    RunState,
    StudyRecord,
    User,
)
from copl_core.store import Store
from copl_core.training.snapshot import Snapshot, load_snapshot
from copl_core.views import (
    PeopleView,
    Person,
    Place,
    TrainerStatus,
)

_SILENT_AFTER = 15.0  # seconds without a heartbeat after which the worker counts as gone
_KEPT_SNAPSHOTS = 3
Made = TypeVar("Made")


class Study:
    """One study of an installation, open for use by any number of threads."""

    def __init__(self, store: Store, settings: Settings, study_id: int) -> None:
        self.store, self.settings, self.id = store, settings, study_id
        self._snapshots: dict[str, Snapshot] = {}
        self._lock = Lock()  # over what is held open
        self._once: dict[str, tuple[object, object]] = {}
        self._once_locks: dict[str, Lock] = {}
        self._judge = None
        self._judge_lock = Lock()  # of its own: importing torch takes seconds, and labelling does not wait for it

    # ---- the study itself

    @property
    def record(self) -> StudyRecord:
        return self.store.study(self.id)

    @property
    def snapshot_root(self) -> Path:
        return self.settings.snapshots / str(self.id)

    def import_rows(self, rows: Iterable[ImportRow], *, by: int | None = None) -> ImportReport:
        """Take pairs and labels; what is there already is left alone.  ``by`` is the user who asks."""
        return self.store.import_rows(self.id, rows, by=by)

    def export(self) -> Iterator[dict]:
        return self.store.export(self.id)

    def include_simulated(self, include: bool, *, by: int | None = None) -> None:
        self.store.include_simulated(self.id, include, by=by)

    def prompts(self) -> list[tuple[int, str]]:
        return self.store.prompts(self.id)

    def prompt_responses(self, prompt_id: int) -> list[Response]:
        return self.store.prompt_responses(prompt_id)

    def pair(self, pair_id: int) -> Pair:
        return self.store.pair(pair_id)

    # ---- people and sign-in

    def users(self) -> list[User]:
        return self.store.users(self.id)

    def user(self, user_id: int) -> User:
        return self.store.user(user_id)

    # copl_core/access.py
    join, enter, sign_in_token, sign_in = access.join, access.enter, access.sign_in_token, access.sign_in
    sign_out_everywhere = access.sign_out_everywhere
    invite, invites, invited = access.invite, access.invites, access.invited
    accept_invite, revoke_invite = access.accept_invite, access.revoke_invite
    sign_in_email, set_email, emails = access.sign_in_email, access.set_email, access.emails
    set_role, exclude, audit = access.set_role, access.exclude, access.audit
    studies, switch = access.studies, access.switch

    # ---- labelling: copl_core/room.py

    next_task, submit, skip, undo = room.next_task, room.submit, room.skip, room.undo
    draft, draft_of, progress = room.draft, room.draft_of, room.progress
    labels_of, history, edit = room.labels_of, room.history, room.edit
    room_settings, set_room = room.room_settings, room.set_room
    guidelines, guidelines_history = room.guidelines, room.guidelines_history
    write_guidelines = room.write_guidelines
    set_gold, gold, find_pairs, responses = room.set_gold, room.gold, room.find_pairs, room.responses
    report, reports, resolve = room.report, room.reports, room.resolve

    # ---- quality: copl_core/measure.py

    quality, answered, prequential = measure.quality, measure.answered, measure.prequential

    # ---- what a person sees of themselves: copl_core/taste.py

    taste, evidence, past = taste.taste, taste.evidence, taste.past

    # ---- trained state

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
        """What ``make`` gives, made once and kept under its name until it is asked for by another key."""
        with self._lock:
            making = self._once_locks.setdefault(name, Lock())
        with making:
            if name not in self._once or self._once[name][0] != key:
                self._once[name] = (key, make())
            return self._once[name][1]

    # copl_core/runs.py
    snapshots, promote, write_note, compare, paying = (
        runs.snapshots,
        runs.promote,
        runs.write_note,
        runs.compare,
        runs.paying,
    )

    # ---- looking

    # copl_core/people.py, copl_core/portrait.py; first, since below the name means the verb
    map_of_people, map_extent, portraits = people.map_of_people, people.map_extent, portrait.portraits
    consistency, foreseen, experts_of = people.consistency, people.foreseen, people.experts_of
    nearest, compare_people, labels_of_people = people.nearest, people.compare_people, people.labels_of_people

    def place(self, user_id: int) -> Place | None:
        """Where the user stands by the labels of this moment; None before the first snapshot."""
        snapshot = self.snapshot()
        if snapshot is None:
            return None
        return places.place(snapshot, user_id, self.store.labels(self.id, user_id=user_id))

    def people(self, *, live: Sequence[int] = ()) -> PeopleView | None:
        """Users on the map of the champion; ``live`` users are placed by their labels of this moment."""
        snapshot = self.snapshot()
        if snapshot is None:
            return None
        layout, counts = snapshot.layout, snapshot.graph.n_labels
        rows = dict(zip(layout.user_ids.tolist(), range(len(layout.user_ids)), strict=True))
        people = []
        for user in self.store.users(self.id):
            row = rows.get(user.id)
            if user.id in live:
                labels = self.store.labels(self.id, user_id=user.id)
                people.append(_live_person(user, places.place(snapshot, user.id, labels)))
            elif row is None or layout.group[row] < 0:
                people.append(Person(user.id, user.name, user.kind, 0, None, None, None, "not placed"))
            else:
                x, y = layout.xy[row].tolist()
                people.append(
                    Person(user.id, user.name, user.kind, int(counts[row]), int(layout.group[row]), x, y, "trained")
                )
        return PeopleView(
            tuple(people),
            tuple(sorted(set(layout.group[layout.group >= 0].tolist()))),
            layout.silhouette,
            layout.parameters,
            snapshot.version,
            len(snapshot.graph.labels),
        )

    # copl_core/experts_room.py
    experts, expert_loads, expert_voices = experts_room.experts, experts_room.loads, experts_room.voices

    # copl_core/divisions.py
    controversy, divided_pair = divisions.controversy, divisions.divided_pair
    division_csv, what_differs, sources = divisions.division_csv, divisions.what_differs, divisions.sources
    ask, end_ask, asks = divisions.ask, divisions.end_ask, divisions.asks
    divisions = divisions.divisions  # last, since from here on the name means the verb

    # copl_core/rewards.py
    reward, moved, probe, writer, writing_styles = (
        rewards.reward,
        rewards.moved,
        rewards.probe,
        rewards.writer,
        rewards.styles,
    )

    def judge(self):
        """The part that reads texts with a language model, made at first use since it imports torch."""
        with self._judge_lock:
            if self._judge is None:
                from copl_core.judge import Judge

                self._judge = Judge(self.settings)
            return self._judge

    # ---- training

    # copl_core/runs.py
    request_fit, cancel, run_log, curves = runs.request_fit, runs.cancel, runs.run_log, runs.curves
    schedule, set_schedule = runs.schedule, runs.set_schedule
    runs = runs.runs  # last, since from here on the name means the verb

    def trainer(self) -> TrainerStatus:
        """Is a worker there, what does it do, and how far is the next refit?"""
        seen = self.store.worker()
        fresh = seen is not None and (datetime.now(UTC) - seen[2]).total_seconds() < _SILENT_AFTER
        active = [run for run in self.store.active_runs() if self.store.study_of_run(run.id) == self.id]
        running = next((run for run in active if run.state == RunState.RUNNING), None)
        champion = self.store.champion(self.id)
        since = self.store.revisions_since(self.id, champion.watermark if champion else 0)
        return TrainerStatus(
            bool(fresh and _runs_here(seen[0])),
            seen[1] if seen else "",
            seen[2] if seen else None,
            running,
            len(active) - (running is not None),
            since,
            self.schedule().refit_labels,
        )


def _live_person(user: User, place: Place) -> Person:
    x, y = place.xy or (None, None)
    return Person(user.id, user.name, user.kind, place.n_labels, place.group, x, y, place.source)


def _runs_here(pid: int) -> bool:
    """Whether a process of that number exists on this machine."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
