"""PostgreSQL's statistics hold the commonest values of a column: none of the columns with what people type."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

_TYPED: tuple[tuple[str, str, sa.String], ...] = (
    ("user", "name", sa.String(200)),
    ("user", "taste", sa.Text()),
    ("label", "reason", sa.Text()),
    ("label", "key", sa.String(64)),
    ("draft", "text", sa.Text()),
    ("report", "text", sa.Text()),
    ("email", "email", sa.String(320)),
    ("response", "source", sa.Text()),
    ("service_token", "name", sa.String(200)),
)


def upgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        for table, column, kind in _TYPED:
            op.execute(sa.text(f'alter table "{table}" alter column {column} set statistics 0'))
            op.alter_column(table, column, type_=kind)  # the type that it has: this drops what was gathered before


def downgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        for table, column, _ in _TYPED:
            op.execute(sa.text(f'alter table "{table}" alter column {column} set statistics -1'))
