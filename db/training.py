"""What the trainer reads and publishes: training data, snapshots, the champion, the schedule."""

from __future__ import annotations

from typing import Any

import numpy as np
from sqlalchemy import Connection, case, func, insert, select, update

from copl_core.records import LEFT, Choice, Comparisons, CoplError, RunState, SnapshotRecord, TrainingData
from copl_core.study_settings import Schedule
from copl_core.tags import Tags
from db.base import AnyRow
from db.departures import knows, refuse_forgotten
from db.engine import limit
from db.models import LabelRow, PromptRow, ResponseRow, RunRow, SnapshotRow, StudyRow, UserRow
from db.runs import AFTER_CHOICE, CHOICE, check_held, last_choice, run_row
from db.transactions import Transactions, audit, clock, only_trained, only_visible, plain_rows, study_row

_SNAPSHOT = tuple(getattr(SnapshotRow, name) for name in SnapshotRecord.__dataclass_fields__)
NOTE_LENGTH = 4_000


class Training(Transactions):
    def training_data(self, study_id: int) -> TrainingData:
        with self._read() as connection:
            limit(connection, statement_seconds=0)
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
            numbers, user, left, right, doubled, both_bad, strength, known = _columns(connection, _compared(study), 8)
            tags = connection.execute(_tagged(study)).all()
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
            Tags.of((np.searchsorted(numbers, row.id), row.tags) for row in tags) if tags else None,
        )

    # ---- snapshots
    def publish(self, study_id: int, record: SnapshotRecord, *, run_id: int | None, token: int | None = None) -> bool:
        with self._write(patient=True) as connection:
            study = study_row(connection, study_id, lock=True)
            run = None if run_id is None else run_row(connection, run_id, lock=True)
            if run is not None and run.state == RunState.DONE.value and run.snapshot == record.version:
                return study.champion == record.version  # done before, and the answer of the database was lost
            if run is not None:
                _end_with(connection, run, record.version, token)
            refuse_forgotten(study, record.version, record.watermark, record.metrics)
            becomes_champion = (
                study.champion is None
                or run is None
                or not _chosen_since(connection, study_id, run.config)
                or _champion_knows_forgotten(connection, study)
            )
            if _snapshot_row(connection, study_id, record.version) is not None:
                raise CoplError(f"Snapshot {record.version} exists already; give the new snapshot another version.")
            _add_snapshot(connection, study_id, run_id, record)
            if becomes_champion:
                _set_champion(connection, study_id, record.version)
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
            audit(connection, study_id, CHOICE, by, before=before, after=version)

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

    def write_audit(self, study_id: int, version: str, facts: dict[str, Any]) -> None:
        with self._write() as connection:
            study_row(connection, study_id, lock=True)
            row = _snapshot_row(connection, study_id, version)
            if row is None:
                raise _no_snapshot(version)
            connection.execute(
                update(SnapshotRow)
                .values(metrics={**row.metrics, "audit": facts})
                .where(SnapshotRow.study_id == study_id, SnapshotRow.version == version)
            )

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


def _compared(study: AnyRow) -> Any:
    """Counting preferences as integers: the outcome is doubled (2 left, 1 tie, 0 right)."""
    doubled = case({Choice.LEFT.value: 2, Choice.RIGHT.value: 0}, value=LabelRow.choice, else_=1)
    both_bad = case({Choice.BOTH_BAD.value: 1}, value=LabelRow.choice, else_=0)
    known = case((LabelRow.position_known, 1), else_=0)
    preference = LabelRow.user_id, LabelRow.left_id, LabelRow.right_id, doubled, both_bad, LabelRow.strength, known
    return _learned(select(LabelRow.id, *preference), study)


def _tagged(study: AnyRow) -> Any:
    """The same rows, those with tags only: their ids and tags."""
    return _learned(select(LabelRow.id, LabelRow.tags).where(LabelRow.tags.is_not(None)), study)


def _learned(query: Any, study: AnyRow) -> Any:
    """Rows of labels that training learns from, oldest first."""
    query = query.where(LabelRow.study_id == study.id, LabelRow.counts, LabelRow.attention.is_(False))
    return only_trained(query, study, LabelRow.user_id).order_by(LabelRow.id)


def _columns(connection: Connection, query: Any, n: int) -> np.ndarray:
    """The rows of a query of integers as columns, (n, rows) int64."""
    rows = plain_rows(connection, query)
    return np.array(rows, np.int64).reshape(len(rows), n).T


def _end_with(connection: Connection, run: AnyRow, version: str, token: int | None) -> None:
    """End a run with its snapshot.

    Raises:
        LeaseLost: it is not held under the token any more.
        CoplError: it was cancelled.
    """
    if run.state == RunState.CANCELLED.value:
        raise CoplError(f"Run {run.id} was cancelled; its snapshot is not published and the champion stays.")
    if token is not None:
        check_held(connection, run.id, token)
    done = {"state": RunState.DONE.value, "snapshot": version, "ended_at": clock(connection), "seconds_left": None}
    connection.execute(update(RunRow).where(RunRow.id == run.id).values(done))


def _add_snapshot(connection: Connection, study_id: int, run_id: int | None, record: SnapshotRecord) -> None:
    connection.execute(
        insert(SnapshotRow).values(
            study_id=study_id,
            version=record.version,
            run_id=run_id,
            watermark=record.watermark,
            n_labels=record.n_labels,
            metrics=record.metrics,
            manifest=record.manifest,
            created_at=record.created_at,
        )
    )


def _no_snapshot(version: str) -> CoplError:
    return CoplError(f"There is no snapshot {version} in this study; take one of the list of snapshots.")


def _snapshot_row(connection: Connection, study_id: int, version: str) -> AnyRow | None:
    return connection.execute(
        select(*_SNAPSHOT).where(SnapshotRow.study_id == study_id, SnapshotRow.version == version)
    ).first()


def _set_champion(connection: Connection, study_id: int, version: str) -> None:
    connection.execute(update(StudyRow).where(StudyRow.id == study_id).values(champion=version))


def _champion_knows_forgotten(connection: Connection, study: AnyRow) -> bool:
    row = _snapshot_row(connection, study.id, study.champion)
    return row is not None and knows(study.forgotten, row.watermark, row.metrics)


def _chosen_since(connection: Connection, study_id: int, config: dict[str, Any]) -> bool:
    """Whether a person has chosen the champion since the run with this config was queued."""
    return AFTER_CHOICE in config and last_choice(connection, study_id) > config[AFTER_CHOICE]
