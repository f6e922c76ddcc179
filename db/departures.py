"""A person leaves: everything of theirs goes in one transaction, and what has learned from them may not be published.

The row of the user stays as a number without a name, a role or labels (``LEFT``), so that no later user gets its id,
which snapshots and the audit trail still hold.  Every query of users leaves it out.  ``study.forgotten`` is the
revision at which somebody last left: a snapshot with an earlier watermark, of its graph or of its reward model, knows
them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, delete, func, insert, or_, select, update

from copl_core.records import LEFT, CoplError, Departure, Role, RunState
from db.base import AnyRow
from db.departed_texts import named_after, remove_sources, remove_texts
from db.engine import reading
from db.identity_rows import forget_identities, rules_of
from db.label_counts import trained_labels
from db.members import change_role
from db.models import LabelRow, RunRow, SnapshotRow, StudyRow, TaskRow, TokenRow, UserRow, WriteRunRow
from db.overlap import assignment_of, recount_some
from db.overwriting import overwrite_deleted
from db.sessions import end_made_by, end_sessions_of
from db.study_models import DraftRow, EmailRow, ReportRow
from db.transactions import (
    Transactions,
    audit,
    bump_revision,
    clock,
    locked_user,
    plain_rows,
    study_row,
    user_row,
)
from db.unfinished import cut_ranges

REASON = "a person has left"
_CANCELLED = "A person has left the study; another run learns without them."
_TOO_FEW = "A person has left the study, and too few labels are left for this run; label some more pairs."
_REWARD = SnapshotRow.metrics["reward_watermark"].as_integer()


class Departures(Transactions):
    def forget_user(self, user_id: int, *, fewest: Mapping[str, int], by: int | None = None) -> Departure:
        with reading(self.engine) as connection:  # hidden rows of an import, too
            user = user_row(connection, user_id)
            named = named_after(connection, user.study_id, user.name)
        done = self._forget(user_id, named, fewest, by)
        with reading(self.engine) as connection:  # what an import has added meanwhile
            late = named_after(connection, user.study_id, user.name)
        if late:
            with self._write() as connection:
                remove_sources(connection, user_id, late)
        return done

    def _forget(self, user_id: int, named: list[int], fewest: Mapping[str, int], by: int | None) -> Departure:
        with self._write() as connection:
            study, user = locked_user(connection, user_id)
            change_role(connection, user, Role.ANNOTATOR, by)
            pairs = list(connection.execute(select(LabelRow.pair_id).distinct().where(_of(user_id))).scalars())
            revision = bump_revision(connection, study.id, max(1, len(pairs)))
            gone = remove_texts(connection, study.id, user, named) | _delete(connection, user)
            recount_some(connection, assignment_of(study), pairs)
            changes: dict[str, Any] = {"unclean": StudyRow.unclean + 1}
            run_id, kind = None, None
            if gone["labels"]:
                changes["forgotten"] = revision
                n_labels = trained_labels(connection, study)
                kind = _kind_of_run(connection, study, n_labels, fewest)
                changes |= {} if kind else {"champion": None}
            connection.execute(update(StudyRow).where(StudyRow.id == study.id).values(changes))
            if gone["labels"]:
                _cancel_running(connection, study.id)
                _cancel_waiting(connection, study.id, [name for name, least in fewest.items() if n_labels < least])
                run_id = _queued_run(connection, study.id, kind) if kind else None
            who = None if by == user_id else by
            audit(connection, study.id, "left", who, user=user_id, own=by == user_id, labels=gone["labels"])
            return Departure(user_id, study.id, revision, gone, run_id, kind, study.champion)

    def left_users(self, study_id: int) -> list[int]:
        with self._read() as connection:
            left = select(UserRow.id).where(UserRow.study_id == study_id, UserRow.kind == LEFT).order_by(UserRow.id)
            return list(connection.execute(left).scalars())

    def knows_forgotten(self, study_id: int) -> bool:
        with self._read() as connection:
            study = study_row(connection, study_id)
            known = _outdated(study).where(SnapshotRow.version == study.champion)
            return connection.execute(known).first() is not None

    def drop_forgotten_snapshots(self, study_id: int) -> list[str]:
        """Versions stay in use while the champion is one of those that know a person who has left; a study in which
        too few labels are left has no champion.
        """
        with self._write() as connection:
            study = study_row(connection, study_id, lock=True)
            versions = list(connection.execute(_outdated(study)).scalars())
            if not versions or study.champion in versions:
                return []
            theirs = (SnapshotRow.study_id == study_id, SnapshotRow.version.in_(versions))
            connection.execute(delete(SnapshotRow).where(*theirs))
            return versions

    def forgotten_snapshots(self, study_id: int) -> list[str]:
        with self._read() as connection:
            return list(connection.execute(_outdated(study_row(connection, study_id))).scalars())

    # ---- what deleted rows leave in the files of the database
    def unclean_studies(self) -> dict[int, int]:
        with self._read() as connection:
            return dict(plain_rows(connection, select(StudyRow.id, StudyRow.unclean).where(StudyRow.unclean > 0)))

    def overwrite_deleted(self) -> None:
        overwrite_deleted(self.engine)

    def mark_clean(self, study_id: int, n_left: int) -> None:
        with self._write() as connection:
            study_row(connection, study_id, lock=True)
            same = (StudyRow.id == study_id, StudyRow.unclean == n_left)
            connection.execute(update(StudyRow).where(*same).values(unclean=0))


def refuse_forgotten(study: AnyRow, version: str, watermark: int, metrics: Mapping[str, Any]) -> None:
    """Raise if a snapshot has learned from somebody who has left since.

    Raises:
        CoplError: it has.
    """
    if not knows(study.forgotten, watermark, metrics):
        return
    raise CoplError(
        f"Snapshot {version} has learned from a person who has left the study since, so it cannot be the champion; "
        "take one that was trained after that, or start a new fit."
    )


def knows(forgotten: int, watermark: int, metrics: Mapping[str, Any]) -> bool:
    """Whether a snapshot, or the reward model it shares, is older than a study's last departure."""
    reward = metrics.get("reward_watermark")
    return watermark < forgotten or (reward is not None and reward < forgotten)


def _outdated(study: AnyRow) -> Any:
    """A query of the versions that know somebody who has left."""
    old = or_(SnapshotRow.watermark < study.forgotten, _REWARD < study.forgotten)
    return select(SnapshotRow.version).where(SnapshotRow.study_id == study.id, old)


def _of(user_id: int) -> Any:
    return LabelRow.user_id == user_id


def _delete(connection: Connection, user: AnyRow) -> dict[str, int]:
    """Delete the rows of a user and leave a number in place of the user; returns how many rows went, by name."""
    tasks = select(TaskRow.id).where(TaskRow.user_id == user.id)
    with_reason = select(func.count()).where(_of(user.id), LabelRow.reason != "")
    gone = {"reasons": connection.execute(with_reason).scalar_one(), "browsers": end_sessions_of(connection, user.id)}
    rules = rules_of(connection, user)  # while it is known which accounts are the user's
    gone["refusals"] = sum(rule.role is None for rule in rules)
    gone["accounts"] = forget_identities(connection, user.id)
    for name, row, theirs in (
        ("drafts", DraftRow, DraftRow.task_id.in_(tasks)),
        ("labels", LabelRow, _of(user.id)),
        ("tasks", TaskRow, TaskRow.user_id == user.id),
        ("reports", ReportRow, ReportRow.user_id == user.id),
        ("addresses", EmailRow, EmailRow.id.in_([rule.id for rule in rules])),
        ("links", TokenRow, TokenRow.user_id == user.id),
        ("write_runs", WriteRunRow, WriteRunRow.user_id == user.id),
    ):
        gone[name] = connection.execute(delete(row).where(theirs)).rowcount
    cut_ranges(connection)
    end_made_by(connection, user.id)
    nobody = {
        "name": f" left {user.id}",  # no name that anybody types or imports begins with a space
        "kind": LEFT,
        "role": Role.ANNOTATOR.value,
        "true_group": None,
        "excluded": True,
        "quarantined": False,
        "quarantine": None,
        "n_preferences": 0,
        "n_checks": 0,
    }
    connection.execute(update(UserRow).where(UserRow.id == user.id).values(nobody))
    return gone


def _kind_of_run(connection: Connection, study: AnyRow, n: int, fewest: Mapping[str, int]) -> str | None:
    """The run that replaces the champion; None: the ``n`` labels that are left are too few for any."""
    reward = select(func.max(_REWARD)).where(SnapshotRow.study_id == study.id)
    if n >= fewest["full"] and connection.execute(reward).scalar() is not None:
        return "full"
    return "graph" if n >= fewest["graph"] else None


def _cancel_running(connection: Connection, study_id: int) -> None:
    """End the runs that may have read the labels; their fits end at the next step, and could not be published."""
    running = (RunRow.study_id == study_id, RunRow.state == RunState.RUNNING.value)
    connection.execute(update(RunRow).where(*running).values(_cancelled(connection, _CANCELLED)))


def _cancel_waiting(connection: Connection, study_id: int, kinds: list[str]) -> None:
    """End the waiting runs of kinds for which too few labels are left."""
    waiting = (RunRow.study_id == study_id, RunRow.state == RunState.QUEUED.value, RunRow.kind.in_(kinds))
    connection.execute(update(RunRow).where(*waiting).values(_cancelled(connection, _TOO_FEW)))


def _cancelled(connection: Connection, message: str) -> dict[str, Any]:
    return {
        "state": RunState.CANCELLED.value,
        "message": message,
        "ended_at": clock(connection),
        "seconds_left": None,
    }


def _queued_run(connection: Connection, study_id: int, kind: str) -> int:
    waiting = (RunRow.study_id == study_id, RunRow.kind == kind, RunRow.state == RunState.QUEUED.value)
    found = connection.execute(select(RunRow.id).where(*waiting).limit(1)).scalar()
    if found is not None:
        return int(found)
    row = {"study_id": study_id, "kind": kind, "reason": REASON, "state": RunState.QUEUED.value}
    row["created_at"] = clock(connection)
    return int(connection.execute(insert(RunRow).values(row | {"config": {}}).returning(RunRow.id)).scalar_one())
