"""Tokens by which other programs ask the reward server.  Only hashes of secrets are stored."""

from __future__ import annotations

from sqlalchemy import Connection, insert, select, update

from copl_core.records import CoplError
from copl_core.study_settings import MOST_PER_MINUTE, ServiceRole, ServiceToken
from db.base import AnyRow
from db.members import checked_name
from db.study_models import ServiceTokenRow
from db.transactions import THERE, Transactions, audit, now, study_row


class ServiceTokens(Transactions):
    def add_service_token(
        self, study_id: int, token_hash: str, name: str, role: ServiceRole, per_minute: int, *, by: int | None = None
    ) -> ServiceToken:
        name = checked_name(name, "token")
        if not 1 <= per_minute <= MOST_PER_MINUTE:
            raise CoplError(f"The token would allow {per_minute} requests a minute; give 1 to {MOST_PER_MINUTE:,}.")
        with self._write() as connection:
            study_row(connection, study_id, lock=True)
            if any(row.name == name and row.revoked_at is None for row in _rows(connection, study_id)):
                raise CoplError(f"A token with the name {name!r} is in use; revoke it, or choose another name.")
            row = {
                "study_id": study_id,
                "hash": token_hash,
                "name": name,
                "role": role.value,
                "per_minute": per_minute,
                "user_id": by,
                "created_at": now(),
            }
            made = connection.execute(insert(ServiceTokenRow).values(row).returning(*ServiceTokenRow.__table__.c)).one()
            audit(connection, study_id, "service token", by, token=made.id, name=name, role=role.value)
            return _token(made)

    def service_tokens(self, study_id: int) -> list[ServiceToken]:
        with self._read() as connection:
            study_row(connection, study_id)
            return [_token(row) for row in _rows(connection, study_id)]

    def service_token(self, token_hash: str) -> ServiceToken | None:
        with self._read() as connection:
            row = connection.execute(
                select(ServiceTokenRow.__table__).where(
                    ServiceTokenRow.hash == token_hash,
                    ServiceTokenRow.revoked_at.is_(None),
                    ServiceTokenRow.study_id.in_(THERE),
                )
            ).first()
            return None if row is None else _token(row)

    def revoke_service_token(self, study_id: int, token_id: int, *, by: int | None = None) -> ServiceToken:
        with self._write() as connection:
            row = next((row for row in _rows(connection, study_id) if row.id == token_id), None)
            if row is None:
                raise CoplError(f"There is no token with id {token_id} in this study; take one of its tokens.")
            if row.revoked_at is None:
                row = connection.execute(
                    update(ServiceTokenRow)
                    .where(ServiceTokenRow.id == token_id)
                    .values(revoked_at=now())
                    .returning(*ServiceTokenRow.__table__.c)
                ).one()
                audit(connection, study_id, "service token revoked", by, token=token_id, name=row.name)
            return _token(row)


def _rows(connection: Connection, study_id: int) -> list[AnyRow]:
    query = select(ServiceTokenRow.__table__).where(ServiceTokenRow.study_id == study_id)
    return list(connection.execute(query.order_by(ServiceTokenRow.id.desc())))


def _token(row: AnyRow) -> ServiceToken:
    return ServiceToken(
        row.id,
        row.study_id,
        row.name,
        ServiceRole(row.role),
        row.per_minute,
        row.user_id,
        row.created_at,
        row.revoked_at,
    )
