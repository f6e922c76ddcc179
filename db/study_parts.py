"""The tables of one study, parents before children, and which of their rows are the study's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Table, delete, select, update

from db.identity_models import IdentityUserRow
from db.import_models import UnfinishedRow
from db.models import (
    AuditRow,
    BrowserSessionRow,
    LabelRow,
    PairRow,
    PromptRow,
    ResponseRow,
    RunRow,
    SessionUserRow,
    SnapshotRow,
    StudyRow,
    TaskRow,
    TokenRow,
    UserRow,
    WriteRunRow,
)
from db.study_models import (
    DraftRow,
    EmailRow,
    GuidelineRow,
    InviteRow,
    PinRow,
    ReportRow,
    ServiceTokenRow,
    SharedCountRow,
)
from db.unfinished import cut_ranges

DELETED = "study deleted"  # the event of the audit trail that stays of a deleted study


@dataclass(frozen=True, slots=True)
class Part:
    """One table of a study."""

    name: str  # in a bundle, in the words of the product
    table: Table
    of: Callable[[int], ColumnElement[bool]]  # study id → the condition of its rows


def _own(row: Any) -> Callable[[int], ColumnElement[bool]]:
    return lambda study_id: row.study_id == study_id


def _of_users(column: Any) -> Callable[[int], ColumnElement[bool]]:
    return lambda study_id: column.in_(select(UserRow.id).where(UserRow.study_id == study_id))


def _responses(study_id: int) -> ColumnElement[bool]:
    return ResponseRow.prompt_id.in_(select(PromptRow.id).where(PromptRow.study_id == study_id))


def _drafts(study_id: int) -> ColumnElement[bool]:
    users = select(UserRow.id).where(UserRow.study_id == study_id)
    return DraftRow.task_id.in_(select(TaskRow.id).where(TaskRow.user_id.in_(users)))


def _part(name: str, row: Any, of: Callable[[int], ColumnElement[bool]] | None = None) -> Part:
    return Part(name, row.__table__, of or _own(row))


# What makes up a study.  How people and programs sign in is not part of it (``_SIGN_IN``), nor what nobody keeps.
PARTS = (
    _part("users", UserRow),
    _part("prompts", PromptRow),
    _part("responses", ResponseRow, _responses),
    _part("pairs", PairRow),
    _part("guidelines", GuidelineRow),
    _part("tasks", TaskRow, _of_users(TaskRow.user_id)),
    _part("drafts", DraftRow, _drafts),
    _part("labels", LabelRow),
    _part("pins", PinRow),
    _part("reports", ReportRow),
    _part("invites", InviteRow),
    _part("emails", EmailRow),
    _part("service_tokens", ServiceTokenRow),
    _part("shared_counts", SharedCountRow),
    _part("audit", AuditRow),
    _part("runs", RunRow),
    _part("snapshots", SnapshotRow),
)
_SIGN_IN = (
    _part("tokens", TokenRow, _of_users(TokenRow.user_id)),
    _part("identity_users", IdentityUserRow, _of_users(IdentityUserRow.user_id)),
    _part("session_users", SessionUserRow, _of_users(SessionUserRow.user_id)),
)


_NOT_KEPT = (_part("write_runs", WriteRunRow),)
ALL_PARTS = (*PARTS, *_SIGN_IN, *_NOT_KEPT)


def drop_some(connection: Connection, study_id: int, n: int) -> bool:
    """Delete ``n`` rows or so of a study that nobody has seen; returns whether the study is gone."""
    if not drop_rows(connection, study_id, n):
        return False
    connection.execute(delete(UnfinishedRow).where(UnfinishedRow.study_id == study_id))  # pairs to be counted again
    connection.execute(delete(StudyRow).where(StudyRow.id == study_id))
    return True


def all_of(part: Part, study_id: int) -> ColumnElement[bool]:
    """The condition of the rows of a study that go with it."""
    which = part.of(study_id)
    return which & (AuditRow.event != DELETED) if part.table is AuditRow.__table__ else which


def drop_rows(connection: Connection, study_id: int, n: int) -> bool:
    """Delete ``n`` rows or so of a study, but neither its own nor the entry of its deletion; whether all are gone."""
    opened = BrowserSessionRow.study_id == study_id
    connection.execute(update(BrowserSessionRow).where(opened).values(study_id=None))
    for part in reversed(ALL_PARTS):
        which = all_of(part, study_id)
        if "id" in part.table.c:
            which = part.table.c.id.in_(select(part.table.c.id).where(which).order_by(part.table.c.id.desc()).limit(n))
        if connection.execute(delete(part.table).where(which)).rowcount >= n:
            cut_ranges(connection)
            return False
    cut_ranges(connection)
    return True
