"""Everything that is stored of one user, as JSON values, with the texts it is about."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Connection, and_, or_, select
from sqlalchemy.orm import aliased

from db.identity_models import IdentityRow, IdentityUserRow
from db.identity_rows import addresses_of, rules_of
from db.models import (
    AuditRow,
    BrowserSessionRow,
    LabelRow,
    PairRow,
    PromptRow,
    ResponseRow,
    SessionUserRow,
    TaskRow,
    TokenRow,
    WriteRunRow,
)
from db.quarantine import alike_sets
from db.study_models import DraftRow, EmailRow, GuidelineRow, InviteRow, PinRow, ReportRow, ServiceTokenRow
from db.transactions import Transactions, user_row

_LEFT, _RIGHT = aliased(ResponseRow), aliased(ResponseRow)
_TEXTS = (PromptRow.text.label("prompt"), _LEFT.text.label("left"), _RIGHT.text.label("right"))
_OF_LABEL = (
    "id", "choice", "strength", "reason", "tags", "milliseconds", "created_at", "edited_at", "counts", "attention",
    "confirmed_at", "position_known", "guidelines", "meta", "successor_id",
)  # fmt: skip
_OF_TASK = (
    "id", "reason", "state", "handed_at", "closed_at", "skipped", "predicted_left", "predicted_crowd",
    "predicted_snapshot",
)  # fmt: skip


class PersonalData(Transactions):
    def stored_of(self, user_id: int) -> dict[str, Any]:
        with self._read() as connection:
            user = user_row(connection, user_id)
            mine = select(TaskRow.id).where(TaskRow.user_id == user_id)
            browsers = select(SessionUserRow.session_id).where(SessionUserRow.user_id == user_id)
            typed = [ReportRow.response_id, ReportRow.text, ReportRow.created_at, ReportRow.resolved_at]
            made = [InviteRow.role, InviteRow.uses, InviteRow.used, InviteRow.created_at, InviteRow.expires_at]
            programs = [ServiceTokenRow.name, ServiceTokenRow.role, ServiceTokenRow.created_at]
            seen = [getattr(BrowserSessionRow, name) for name in ("name", "created_at", "seen_at", "ended_at")]
            about = or_(AuditRow.user_id == user_id, AuditRow.detail["user"].as_integer() == user_id)
            accepted = [entry for entry, _, users in alike_sets(connection, user.study_id) if user_id in users]
            addresses = addresses_of(connection, user)
            ruled = and_(AuditRow.event == "e-mail", AuditRow.detail["email"].as_string().in_(addresses))
            about = or_(about, AuditRow.id.in_(accepted), ruled)
            tables = {
                "labels": _shown(LabelRow, _OF_LABEL).where(LabelRow.user_id == user_id).order_by(LabelRow.id),
                "tasks": _shown(TaskRow, _OF_TASK).where(TaskRow.user_id == user_id).order_by(TaskRow.id),
                "drafts": _columns(DraftRow.task_id, DraftRow.text, DraftRow.tags, DraftRow.at).where(
                    DraftRow.task_id.in_(mine)
                ),
                "reports": _columns(*typed).where(ReportRow.user_id == user_id),
                "addresses": _columns(EmailRow.email, EmailRow.role, EmailRow.created_at)
                .where(EmailRow.id.in_([rule.id for rule in rules_of(connection, user)]))
                .order_by(EmailRow.id),
                "accounts": _columns(IdentityRow.issuer, IdentityRow.subject, IdentityRow.email, IdentityRow.name)
                .join(IdentityUserRow, IdentityUserRow.identity_id == IdentityRow.id)
                .where(IdentityUserRow.user_id == user_id),
                "sign_in_links": _columns(TokenRow.created_at, TokenRow.expires_at).where(TokenRow.user_id == user_id),
                "browsers": _columns(*seen).where(BrowserSessionRow.id.in_(browsers)),
                "invites": _columns(*made).where(InviteRow.user_id == user_id),
                "tokens_of_programs": _columns(*programs).where(ServiceTokenRow.user_id == user_id),
                "guidelines": _columns(GuidelineRow.version, GuidelineRow.text, GuidelineRow.created_at).where(
                    GuidelineRow.user_id == user_id
                ),
                "pins": _columns(PinRow.pair_id, PinRow.at, PinRow.ended_at).where(PinRow.user_id == user_id),
                "answers_being_written": _columns(WriteRunRow.request, WriteRunRow.pieces).where(
                    WriteRunRow.user_id == user_id
                ),
                "record": _columns(AuditRow.event, AuditRow.detail, AuditRow.at)
                .where(AuditRow.study_id == user.study_id, about)
                .order_by(AuditRow.id),
                "responses_named_after": _columns(ResponseRow.id, ResponseRow.text)
                .join(PromptRow, PromptRow.id == ResponseRow.prompt_id)
                .where(PromptRow.study_id == user.study_id, ResponseRow.source == user.name),
            }
            own = ("name", "kind", "role", "true_group", "excluded", "quarantined", "quarantine", "created_at")
            person = {name: _plain(getattr(user, name)) for name in own}
            return {"person": person} | {name: _rows(connection, query) for name, query in tables.items()}


def _columns(*columns: Any) -> Any:
    return select(*columns)


def _shown(row: Any, names: tuple[str, ...]) -> Any:
    """Columns of labels or tasks, with the texts that were on screen."""
    return (
        select(*(getattr(row, name) for name in names), *_TEXTS)
        .join(PairRow, PairRow.id == row.pair_id)
        .join(PromptRow, PromptRow.id == PairRow.prompt_id)
        .join(_LEFT, _LEFT.id == row.left_id)
        .join(_RIGHT, _RIGHT.id == row.right_id)
    )


def _rows(connection: Connection, query: Any) -> list[dict[str, Any]]:
    return [{name: _plain(value) for name, value in row._mapping.items()} for row in connection.execute(query)]


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value
