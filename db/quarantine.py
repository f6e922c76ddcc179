"""Accounts whose labels stay and are left out of training and votes until somebody decides.

The column ``quarantined`` of a user says that they are left out now.  ``quarantine`` says why, since when and what was
decided, and stays.  An account that an owner has decided to count is not quarantined again.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, cast

from sqlalchemy import Connection, Select, func, select, update

from copl_core.records import LEFT, CoplError, Ground, Kind, Quarantine, Role, User
from copl_core.study_settings import QUARANTINE_NEW
from db.base import AnyRow
from db.models import AuditRow, LabelRow, UserRow
from db.overlap import assignment_of, recount_some
from db.transactions import (
    Transactions,
    audit,
    bump_other,
    bump_revision,
    locked_user,
    now,
    study_row,
    user_of,
    user_row,
)

COUNTED, LEFT_OUT, SHOWN, PROMOTED = "counted", "left out", "shown", "promoted"
# Events of the audit trail: an owner accepts accounts whose answers are alike, and takes that back.
ALIKE, ALIKE_ENDED = "alike", "alike ended"
NEW = Ground("new", "Has just joined, and has not yet answered enough pairs twice.")


class Quarantines(Transactions):
    def quarantine(self, user_id: int, grounds: Sequence[Ground]) -> bool:
        with self._write() as connection:
            study, user = locked_user(connection, user_id)
            if user.kind != Kind.HUMAN.value or user.excluded or user.role == Role.OWNER.value:
                return False
            before = user.quarantine or {}
            known = {one["kind"] for one in before["grounds"]} if user.quarantined else set()
            new = [one for one in grounds if one.kind not in known]
            if before.get("decided") == COUNTED or not new:
                return False
            if user.quarantined:
                values = {"quarantine": {**before, "grounds": [*before["grounds"], *_rows(new)]}}
                connection.execute(update(UserRow).where(UserRow.id == user_id).values(values))
                changes = n_labels(connection, study, user_id)
            else:
                changes = change_training(connection, study, user_id, quarantined=True, quarantine=_stored(new))
            words = [one.sentence for one in new]
            audit(connection, study.id, "quarantine", user=user_id, grounds=words, labels=changes)
            return True

    def end_quarantine(self, user_id: int) -> bool:
        with self._write() as connection:
            study, user = locked_user(connection, user_id)
            if not user.quarantined:
                return False
            changes = change_training(connection, study, user_id, **decision(user, SHOWN))
            audit(connection, study.id, "quarantine ended", user=user_id, labels=changes)
            return True

    def decide_quarantine(self, user_id: int, count: bool, *, by: int | None = None) -> User:
        with self._write() as connection:
            study, user = locked_user(connection, user_id)
            if not user.quarantined:
                raise CoplError(f"{user.name} does not wait for a decision any more; load the page again.")
            decided = decision(user, COUNTED if count else LEFT_OUT)
            changes = change_training(connection, study, user_id, excluded=not count, **decided)
            audit(connection, study.id, "quarantine decided", by, user=user_id, count=count, labels=changes)
            return user_of(user_row(connection, user_id))

    def accept_alike(self, study_id: int, user_ids: Sequence[int], *, by: int | None = None) -> None:
        with self._write() as connection:
            study_row(connection, study_id)
            audit(connection, study_id, ALIKE, by, users=sorted(user_ids))

    def end_alike(self, study_id: int, user_ids: Collection[int], *, by: int | None = None) -> bool:
        with self._write() as connection:
            study_row(connection, study_id, lock=True)
            ended = frozenset(user_ids) in _accepted(connection, study_id)
            if ended:
                audit(connection, study_id, ALIKE_ENDED, by, users=sorted(user_ids))
            return ended

    def accepted_alike(self, study_id: int) -> list[frozenset[int]]:
        with self._read() as connection:
            return _accepted(connection, study_id)

    def quarantines(self, study_id: int) -> list[Quarantine]:
        counting = (LabelRow.user_id == UserRow.id, LabelRow.counts, LabelRow.attention.is_(False))
        n = select(func.count()).where(LabelRow.study_id == study_id, *counting).correlate(UserRow).scalar_subquery()
        query = select(UserRow.__table__, n.label("labels")).where(UserRow.study_id == study_id, UserRow.kind != LEFT)
        with self._read() as connection:
            rows = connection.execute(query.where(UserRow.quarantine.is_not(None)).order_by(UserRow.id))
            found = [_quarantine_of(row) for row in rows]
        return sorted(found, key=lambda one: one.since, reverse=True)


def alike_sets(connection: Connection, study_id: int) -> list[tuple[int, str, list[int]]]:
    """(id in the audit trail, event, ids of users) wherever an owner has accepted accounts as alike, or taken it back,
    the first one first."""
    of_them = AuditRow.study_id == study_id, AuditRow.event.in_([ALIKE, ALIKE_ENDED])
    query = select(AuditRow.id, AuditRow.event, AuditRow.detail).where(*of_them).order_by(AuditRow.id)
    return [(row.id, row.event, row.detail["users"]) for row in connection.execute(query)]


def _accepted(connection: Connection, study_id: int) -> list[frozenset[int]]:
    """The sets of accounts that are accepted now, the one that was accepted first first."""
    found = dict[frozenset[int], None]()
    for _, event, users in alike_sets(connection, study_id):
        found.pop(frozenset(users), None)
        if event == ALIKE:
            found[frozenset(users)] = None
    return list(found)


def change_training(connection: Connection, study: AnyRow, user_id: int, **values: Any) -> int:
    """Change why a user is left out of training, or whether; returns the labels that it is about.

    If it changes whether, each label of the user counts as changed; at least one, so that the trainer always notices.
    The caller has locked the rows of the study and the user.
    """
    before = user_of(user_row(connection, user_id)).trained
    connection.execute(update(UserRow).where(UserRow.id == user_id).values(values))
    labels = n_labels(connection, study, user_id)
    if user_of(user_row(connection, user_id)).trained != before:
        bump_revision(connection, study.id, max(1, labels))
        pairs = list(connection.execute(_pairs(study.id, user_id)).scalars())
        recount_some(connection, assignment_of(study), pairs)
    else:
        bump_other(connection, study.id)  # figures say why somebody is left out
    return labels


def n_labels(connection: Connection, study: AnyRow, user_id: int) -> int:
    """Labels of a user that would count for training."""
    return int(connection.execute(select(UserRow.n_preferences).where(UserRow.id == user_id)).scalar_one())


def _pairs(study_id: int, user_id: int) -> Select[int]:
    """A query of the pairs of a user's labels that would count for training."""
    theirs = (LabelRow.study_id == study_id, LabelRow.user_id == user_id, LabelRow.counts)
    return select(LabelRow.pair_id).distinct().where(*theirs, LabelRow.attention.is_(False))


def end_for_owner(connection: Connection, user: AnyRow, by: int | None) -> None:
    """Count a quarantined person who becomes an owner.  The caller has locked the rows of the study and the user."""
    if user.quarantined:
        study = study_row(connection, user.study_id)
        labels = change_training(connection, study, user.id, **decision(user, PROMOTED))
        audit(connection, study.id, "quarantine ended", by, user=user.id, owner=True, labels=labels)


def decision(user: AnyRow, decided: str) -> dict[str, Any]:
    """The columns of a quarantined user once it is decided."""
    quarantine = {**user.quarantine, "decided": decided, "decided_at": now().isoformat()}
    return {"quarantined": False, "quarantine": quarantine}


def of_newcomer(study: AnyRow, role: Role) -> dict[str, Any]:
    """The columns of an account that has just joined."""
    if role != Role.ANNOTATOR or assignment_of(study).quarantine != QUARANTINE_NEW:
        return {}
    return {"quarantined": True, "quarantine": _stored([NEW])}


def note_newcomer(connection: Connection, user: AnyRow) -> None:
    """Write into the record that an account waits from the start."""
    if user.quarantined:
        audit(connection, user.study_id, "quarantine", user=user.id, grounds=[NEW.sentence], new=True, labels=0)


def _stored(grounds: Sequence[Ground]) -> dict[str, Any]:
    return {"grounds": _rows(grounds), "since": now().isoformat()}


def _rows(grounds: Sequence[Ground]) -> list[dict[str, str]]:
    return [{"kind": one.kind, "sentence": one.sentence} for one in grounds]


def is_readable(kept: object) -> bool:
    """Whether a stored quarantine, or none, has the form of one."""
    if kept is None:
        return True
    try:
        _times(cast(dict[str, Any], kept))
        return all(isinstance(one["kind"] + one["sentence"], str) for one in cast(dict[str, Any], kept)["grounds"])
    except (KeyError, TypeError, ValueError, AttributeError):
        return False


def _times(kept: dict[str, Any]) -> tuple[datetime, datetime | None]:
    """(since when, when it was decided)."""
    decided_at = kept.get("decided_at")
    return _as_time(kept["since"]), None if decided_at is None else _as_time(decided_at)


def _as_time(text: str) -> datetime:
    at = datetime.fromisoformat(text)
    if at.tzinfo is None:
        raise ValueError(text)
    return at


def _quarantine_of(row: AnyRow) -> Quarantine:
    kept = row.quarantine
    since, decided_at = _times(kept)
    return Quarantine(
        user_of(row),
        tuple(Ground(str(one["kind"]), str(one["sentence"])) for one in kept["grounds"]),
        since,
        row.labels,
        str(kept.get("decided", "")),
        decided_at,
    )
