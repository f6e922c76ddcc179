"""What the trainer reads and writes: training data, runs, snapshots, the champion, the schedule, heartbeats."""

from __future__ import annotations

from datetime import datetime
from enum import Enum
from typing import Any

import numpy as np
from sqlalchemy import Connection, case, func, insert, select, update

from copl_core.records import LEFT, Choice, Comparisons, CoplError, Run, RunState, SnapshotRecord, TrainingData
from copl_core.study_settings import Schedule
from db.base import AnyRow
from db.departures import knows, refuse_forgotten
from db.models import AuditRow, HeartbeatRow, LabelRow, PromptRow, ResponseRow, RunRow, SnapshotRow, StudyRow, UserRow
from db.transactions import Transactions, audit, now, only_trained, only_visible, plain_rows, study_row

_RUN = tuple(getattr(RunRow, name) for name in Run.__dataclass_fields__)
_SNAPSHOT = tuple(getattr(SnapshotRow, name) for name in SnapshotRecord.__dataclass_fields__)
_ACTIVE = (RunState.QUEUED.value, RunState.RUNNING.value)
_ENDED = (RunState.DONE.value, RunState.FAILED.value, RunState.CANCELLED.value)
_CHOICE = "champion"  # the event of the audit trail by which a person chooses the champion; runs have their own list
_AFTER_CHOICE = "after_choice"  # in a run's config: the last such entry when it was queued
NOTE_LENGTH = 4_000
_CHANGEABLE = frozenset(Run.__dataclass_fields__) - {"id", "created_at"}


class Training(Transactions):
    def training_data(self, study_id: int) -> TrainingData:
        with self._read() as connection:
            study = study_row(connection, study_id)
            users = select(UserRow.id).where(UserRow.study_id == study_id, UserRow.kind != LEFT)
            users = only_visible(users, study, UserRow.id)
            user_ids = _columns(connection, users.order_by(UserRow.id), 1)[0]
            prompts = connection.execute(
                select(PromptRow.id, PromptRow.text).where(PromptRow.study_id == study_id).order_by(PromptRow.id)
            ).all()
            responses = connection.execute(
                select(ResponseRow.id, ResponseRow.prompt_id, ResponseRow.text)
                .join(PromptRow, PromptRow.id == ResponseRow.prompt_id)
                .where(PromptRow.study_id == study_id)
                .order_by(ResponseRow.id)
            ).all()
            user, left, right, doubled, both_bad, strength, known = _columns(connection, _compared(study), 7)
        prompt_ids = np.fromiter((row[0] for row in prompts), np.int64, len(prompts))
        response_ids = np.fromiter((row[0] for row in responses), np.int64, len(responses))
        response_prompt = np.fromiter((row[1] for row in responses), np.int64, len(responses))
        # All id columns are sorted and contain every id looked up, so a binary search gives the row.
        labels = Comparisons.build(
            np.searchsorted(user_ids, user),
            np.searchsorted(response_ids, left),
            np.searchsorted(response_ids, right),
            doubled / 2,
            both_bad,
            strength,
            known,
        )
        return TrainingData(
            user_ids,
            response_ids,
            np.searchsorted(prompt_ids, response_prompt),
            tuple(row[1] for row in prompts),
            tuple(row[2] for row in responses),
            labels,
            study.revision,
        )

    # ---- runs
    def add_run(self, study_id: int, kind: str, reason: str, *, retry_of: int | None = None) -> Run:
        with self._write() as connection:
            study_row(connection, study_id)
            after = _last_choice(connection, study_id)
            if retry_of is not None:
                after = _run_row(connection, retry_of).config.get(_AFTER_CHOICE, after)
            run_id = connection.execute(
                insert(RunRow)
                .values(
                    study_id=study_id,
                    kind=kind,
                    reason=reason,
                    state=RunState.QUEUED.value,
                    retry_of=retry_of,
                    created_at=now(),
                    config={_AFTER_CHOICE: after},
                )
                .returning(RunRow.id)
            ).scalar_one()
            return _run(_run_row(connection, run_id))

    def claim_run(self, run_id: int | None = None, *, kind: str | None = None) -> Run | None:
        queued = select(RunRow.id).where(RunRow.state == RunState.QUEUED.value).order_by(RunRow.id).limit(1)
        if kind is not None:
            queued = queued.where(RunRow.kind == kind)
        if run_id is not None:
            queued = queued.where(RunRow.id == run_id)
        with self._read() as connection:
            if run_id is not None:
                _run_row(connection, run_id)  # a run that does not exist is an error
            if connection.execute(queued).first() is None:
                return None  # found without a write lock, which an idle worker would take again and again
        with self._write() as connection:
            claimed = connection.execute(queued.with_for_update(skip_locked=True)).scalar()
            if claimed is None:
                return None  # another worker was faster
            running = {"state": RunState.RUNNING.value, "started_at": now()}
            connection.execute(update(RunRow).where(RunRow.id == claimed).values(running))
            return _run(_run_row(connection, claimed))

    def update_run(self, run_id: int, **changes: object) -> None:
        """Change fields of ``records.Run`` by name; the first change to running sets the start time.

        A run that is done, failed or cancelled stays unchanged: a late report does not restart it.
        """
        unknown = sorted(set(changes) - _CHANGEABLE)
        if unknown:
            known = ", ".join(sorted(_CHANGEABLE))
            raise TypeError(f"a run has no changeable field {', '.join(unknown)}; it has {known}")
        values = {name: value.value if isinstance(value, Enum) else value for name, value in changes.items()}
        if values.get("state") == RunState.RUNNING.value:
            values.setdefault("started_at", func.coalesce(RunRow.started_at, now()))
        with self._write() as connection:
            _run_row(connection, run_id)
            if values:
                connection.execute(
                    update(RunRow).where(RunRow.id == run_id, RunRow.state.not_in(_ENDED)).values(values)
                )

    def finish_run(self, run_id: int, state: RunState, *, message: str = "", snapshot: str | None = None) -> None:
        """The first end is final: a cancelled run does not fail or succeed afterwards."""
        with self._write() as connection:
            _run_row(connection, run_id)
            connection.execute(
                update(RunRow)
                .where(RunRow.id == run_id, RunRow.state.in_(_ACTIVE))
                .values(
                    state=state.value,
                    message=message,
                    ended_at=now(),
                    seconds_left=None,
                    snapshot=func.coalesce(snapshot, RunRow.snapshot),
                )
            )

    def run(self, run_id: int) -> Run:
        with self._read() as connection:
            return _run(_run_row(connection, run_id))

    def runs(self, study_id: int, *, kind: str | None = None, limit: int = 50) -> list[Run]:
        of_kind = [RunRow.kind == kind] if kind else []
        with self._read() as connection:
            rows = connection.execute(
                select(*_RUN).where(RunRow.study_id == study_id, *of_kind).order_by(RunRow.id.desc()).limit(limit)
            )
            return [_run(row) for row in rows]

    def active_runs(self) -> list[Run]:
        with self._read() as connection:
            rows = connection.execute(select(*_RUN).where(RunRow.state.in_(_ACTIVE)).order_by(RunRow.id))
            return [_run(row) for row in rows]

    def study_of_run(self, run_id: int) -> int:
        with self._read() as connection:
            found = connection.execute(select(RunRow.study_id).where(RunRow.id == run_id)).scalar()
            if found is None:
                raise _no_run(run_id)
            return found

    # ---- snapshots
    def publish(self, study_id: int, record: SnapshotRecord, *, run_id: int | None) -> bool:
        with self._write() as connection:
            study = study_row(connection, study_id, lock=True)
            run = None if run_id is None else _run_row(connection, run_id, lock=True)
            if run is not None and run.state == RunState.CANCELLED.value:
                raise CoplError(f"Run {run_id} was cancelled; its snapshot is not published and the champion stays.")
            refuse_forgotten(study, record.version, record.watermark, record.metrics)
            becomes_champion = (
                study.champion is None
                or run is None
                or not _chosen_since(connection, study_id, run.config)
                or _champion_knows_forgotten(connection, study)
            )
            if _snapshot_row(connection, study_id, record.version) is not None:
                raise CoplError(f"Snapshot {record.version} exists already; give the new snapshot another version.")
            connection.execute(
                insert(SnapshotRow).values(
                    study_id=study_id,
                    version=record.version,
                    run_id=run_id,
                    watermark=record.watermark,
                    n_labels=record.n_labels,
                    metrics=record.metrics,
                    created_at=record.created_at,
                )
            )
            if becomes_champion:
                _set_champion(connection, study_id, record.version)
            if run_id is not None:
                connection.execute(
                    update(RunRow)
                    .where(RunRow.id == run_id)
                    .values(state=RunState.DONE.value, snapshot=record.version, ended_at=now(), seconds_left=None)
                )
            return becomes_champion

    def snapshots(self, study_id: int) -> list[SnapshotRecord]:
        with self._read() as connection:
            rows = connection.execute(
                select(*_SNAPSHOT).where(SnapshotRow.study_id == study_id).order_by(SnapshotRow.id.desc())
            )
            return [SnapshotRecord(*row) for row in rows]

    def promote(self, study_id: int, version: str, *, by: int | None = None) -> None:
        with self._write() as connection:
            study = study_row(connection, study_id, lock=True)
            before, chosen = study.champion, _snapshot_row(connection, study_id, version)
            if chosen is None:
                raise _no_snapshot(version)
            refuse_forgotten(study, version, chosen.watermark, chosen.metrics)
            _set_champion(connection, study_id, version)
            audit(connection, study_id, _CHOICE, by, before=before, after=version)

    def write_note(self, study_id: int, version: str, note_text: str, *, by: int | None = None) -> None:
        if len(note_text) > NOTE_LENGTH:
            raise CoplError(f"The note has {len(note_text):,} characters; {NOTE_LENGTH:,} are kept; shorten it.")
        with self._write() as connection:
            study_row(connection, study_id, lock=True)
            before = _snapshot_row(connection, study_id, version)
            if before is None:
                raise _no_snapshot(version)
            if before.note == note_text:
                return
            connection.execute(
                update(SnapshotRow)
                .values(note=note_text)
                .where(SnapshotRow.study_id == study_id, SnapshotRow.version == version)
            )
            audit(connection, study_id, "note", by, snapshot=version, before=before.note, after=note_text)

    def champion(self, study_id: int) -> SnapshotRecord | None:
        with self._read() as connection:
            version = study_row(connection, study_id).champion
            row = None if version is None else _snapshot_row(connection, study_id, version)
            return None if row is None else SnapshotRecord(*row)

    def newest_watermarks(self, study_id: int) -> tuple[int | None, int | None]:
        reward = SnapshotRow.metrics["reward_watermark"].as_integer()
        query = select(func.max(SnapshotRow.watermark), func.max(reward)).where(SnapshotRow.study_id == study_id)
        with self._read() as connection:
            graph, full = connection.execute(query).one()
            return graph, full

    # ---- when the trainer starts runs automatically
    def schedule(self, study_id: int) -> Schedule | None:
        with self._read() as connection:
            saved = study_row(connection, study_id).schedule
            return None if saved is None else Schedule.of(saved)

    def set_schedule(self, study_id: int, schedule: Schedule | None, *, by: int | None = None) -> None:
        with self._write() as connection:
            before, after = study_row(connection, study_id, lock=True).schedule, schedule and schedule.saved()
            if before != after:
                connection.execute(update(StudyRow).where(StudyRow.id == study_id).values(schedule=after))
                audit(connection, study_id, "schedule", by, before=before, after=after)

    def revision(self, study_id: int) -> int:
        with self._read() as connection:
            return study_row(connection, study_id).revision

    def revisions_since(self, study_id: int, watermark: int) -> int:
        return max(0, self.revision(study_id) - watermark)

    # ---- the worker's heartbeat
    def heartbeat(self, pid: int, state: str) -> None:
        beat = {"pid": pid, "state": state, "at": now()}
        with self._write() as connection:
            if not connection.execute(update(HeartbeatRow).where(HeartbeatRow.id == 1).values(beat)).rowcount:
                connection.execute(insert(HeartbeatRow).values(id=1, **beat))

    def worker(self) -> tuple[int, str, datetime] | None:
        with self._read() as connection:
            row = connection.execute(select(HeartbeatRow.pid, HeartbeatRow.state, HeartbeatRow.at)).first()
            return None if row is None else (row.pid, row.state, row.at)


def _compared(study: AnyRow) -> Any:
    """Counting preferences as integers: the outcome is doubled (2 left, 1 tie, 0 right)."""
    doubled = case({Choice.LEFT.value: 2, Choice.RIGHT.value: 0}, value=LabelRow.choice, else_=1)
    both_bad = case({Choice.BOTH_BAD.value: 1}, value=LabelRow.choice, else_=0)
    known = case((LabelRow.position_known, 1), else_=0)
    query = select(LabelRow.user_id, LabelRow.left_id, LabelRow.right_id, doubled, both_bad, LabelRow.strength, known)
    query = query.where(LabelRow.study_id == study.id, LabelRow.counts, LabelRow.attention.is_(False))
    return only_trained(query, study, LabelRow.user_id).order_by(LabelRow.id)


def _columns(connection: Connection, query: Any, n: int) -> np.ndarray:
    """The rows of a query of integers as columns, (n, rows) int64."""
    rows = plain_rows(connection, query)
    return np.array(rows, np.int64).reshape(len(rows), n).T


def _run_row(connection: Connection, run_id: int, *, lock: bool = False) -> AnyRow:
    query = select(*_RUN).where(RunRow.id == run_id)
    row = connection.execute(query.with_for_update() if lock else query).first()
    if row is None:
        raise _no_run(run_id)
    return row


def _no_run(run_id: int) -> CoplError:
    return CoplError(f"There is no run with id {run_id}; take one of the list of runs.")


def _no_snapshot(version: str) -> CoplError:
    return CoplError(f"There is no snapshot {version} in this study; take one of the list of snapshots.")


def _run(row: AnyRow) -> Run:
    return Run(**{**row._mapping, "state": RunState(row.state)})


def _snapshot_row(connection: Connection, study_id: int, version: str) -> AnyRow | None:
    return connection.execute(
        select(*_SNAPSHOT).where(SnapshotRow.study_id == study_id, SnapshotRow.version == version)
    ).first()


def _set_champion(connection: Connection, study_id: int, version: str) -> None:
    connection.execute(update(StudyRow).where(StudyRow.id == study_id).values(champion=version))


def _champion_knows_forgotten(connection: Connection, study: AnyRow) -> bool:
    row = _snapshot_row(connection, study.id, study.champion)
    return row is not None and knows(study.forgotten, row.watermark, row.metrics)


def _last_choice(connection: Connection, study_id: int) -> int:
    """The entry of the audit trail by which a person last chose the champion; 0 where nobody has."""
    chosen = select(func.max(AuditRow.id)).where(AuditRow.study_id == study_id, AuditRow.event == _CHOICE)
    return connection.execute(chosen).scalar() or 0


def _chosen_since(connection: Connection, study_id: int, config: dict[str, Any]) -> bool:
    """Whether a person has chosen the champion since the run with this config was queued."""
    return _AFTER_CHOICE in config and _last_choice(connection, study_id) > config[_AFTER_CHOICE]
