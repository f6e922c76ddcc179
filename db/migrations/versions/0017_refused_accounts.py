"""A refusal stays with the accounts that had the address, and addresses are in the Unicode form NFC."""

from __future__ import annotations

from unicodedata import normalize

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

_RULES = sa.table("email", *(sa.column(name) for name in ("id", "study_id", "email", "role", "user_id")))
_ACCOUNTS = sa.table("identity", sa.column("id"), sa.column("email"))
_BOUND = sa.table("identity_user", *(sa.column(name) for name in ("identity_id", "study_id", "refused")))


def upgrade() -> None:
    op.add_column("identity_user", sa.Column("refused", sa.String(length=320), nullable=True))
    connection = op.get_bind()
    if connection.dialect.name == "postgresql":  # as in revision 0014
        op.execute(sa.text("alter table identity_user alter column refused set statistics 0"))
    _compose_rules(connection)
    _compose_accounts(connection)
    for rule in connection.execute(sa.select(_RULES).where(_RULES.c.role.is_(None))).all():
        ids = sa.select(_ACCOUNTS.c.id).where(_ACCOUNTS.c.email == rule.email)
        theirs = (_BOUND.c.study_id == rule.study_id, _BOUND.c.identity_id.in_(ids))
        connection.execute(sa.update(_BOUND).where(*theirs).values(refused=rule.email))


def _compose_rules(connection: sa.Connection) -> None:
    """Of two rules for one address, the later one stays; a refusal is kept, and so is the person."""
    rules = {(one.study_id, one.email): one for one in connection.execute(sa.select(_RULES).order_by(_RULES.c.id))}
    for (study_id, email), rule in list(rules.items()):
        composed = normalize("NFC", email)
        if composed == email:
            continue
        same = rules.get((study_id, composed))
        if same is not None:
            role = None if None in (rule.role, same.role) else same.role
            merged = {"role": role, "user_id": same.user_id or rule.user_id}
            connection.execute(sa.delete(_RULES).where(_RULES.c.id == rule.id))
            connection.execute(sa.update(_RULES).where(_RULES.c.id == same.id).values(merged))
        else:
            connection.execute(sa.update(_RULES).where(_RULES.c.id == rule.id).values(email=composed))
            rules[study_id, composed] = rule


def _compose_accounts(connection: sa.Connection) -> None:
    for one in connection.execute(sa.select(_ACCOUNTS).where(_ACCOUNTS.c.email.is_not(None))).all():
        if normalize("NFC", one.email) != one.email:
            composed = normalize("NFC", one.email)
            connection.execute(sa.update(_ACCOUNTS).where(_ACCOUNTS.c.id == one.id).values(email=composed))


def downgrade() -> None:
    op.drop_column("identity_user", "refused")
