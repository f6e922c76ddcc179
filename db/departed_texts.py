"""The texts of a person who leaves, in rows that stay: details of the audit trail, sources of responses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, select, update

from db.base import AnyRow
from db.identity_rows import addresses_of
from db.models import AuditRow, PromptRow, ResponseRow
from db.study_models import ServiceTokenRow
from db.texts import IDS

REMOVED = "(removed)"
# Events whose details hold what somebody typed, and under which names
_TYPED = {
    "note": ("before", "after"),
    "group name": ("before", "after"),
    "service token": ("name",),
    "service token revoked": ("name",),
    "e-mail": ("email",),
    "import": ("file",),
}


def named_after(connection: Connection, study_id: int, name: str) -> list[int]:
    """The ids of the responses whose source is a name: no index finds them."""
    prompts = select(PromptRow.id).where(PromptRow.study_id == study_id)
    named = select(ResponseRow.id).where(ResponseRow.prompt_id.in_(prompts), ResponseRow.source == name)
    return list(connection.execute(named).scalars())


def remove_texts(connection: Connection, study_id: int, user: AnyRow, named: Sequence[int]) -> dict[str, int]:
    """Replace the texts and the name of a user in rows that stay, among them the responses ``named`` after the user;
    returns how many, by name.
    """
    connection.execute(update(ServiceTokenRow).where(ServiceTokenRow.user_id == user.id).values(name=REMOVED))
    sources = remove_sources(connection, user.id, named)
    return {"sources": sources, "entries": _remove_from_audit(connection, study_id, user)}


def remove_sources(connection: Connection, user_id: int, named: Sequence[int]) -> int:
    replaced = 0
    for start in range(0, len(named), IDS):
        some = update(ResponseRow).where(ResponseRow.id.in_(named[start : start + IDS]))
        replaced += connection.execute(some.values(source=f"person {user_id}")).rowcount
    return replaced


def _remove_from_audit(connection: Connection, study_id: int, user: AnyRow) -> int:
    """What the user typed, their e-mail addresses wherever they stand, and files that are named after them."""
    addresses, name = addresses_of(connection, user), user.name.casefold()
    query = select(AuditRow.id, AuditRow.user_id, AuditRow.event, AuditRow.detail)
    changed = 0
    for row in connection.execute(query.where(AuditRow.study_id == study_id, AuditRow.event.in_(_TYPED))).all():
        named = name in str(row.detail.get("file", "")).casefold()
        if row.user_id == user.id or row.detail.get("email") in addresses or named:
            detail = row.detail | {one: _removed(row.detail[one]) for one in _TYPED[row.event] if one in row.detail}
            if detail == row.detail:
                continue
            connection.execute(update(AuditRow).where(AuditRow.id == row.id).values(detail=detail))
            changed += 1
    return changed


def _removed(value: Any) -> Any:
    return REMOVED if value else value
