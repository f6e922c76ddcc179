"""Indexes find the names that a newcomer's name may be taken for.

On PostgreSQL a million people take some seconds.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None

_SQLITE = sa.text("length(cast(name as blob)) <> length(name)")
_POSTGRESQL = sa.text("octet_length(name) <> char_length(name)")


def upgrade() -> None:
    op.create_index("ix_user_folded", "user", ["study_id", sa.text("lower(name)")])
    if op.get_bind().dialect.name == "postgresql":  # which keeps the commonest values of an expression, too (0014)
        op.execute(sa.text("alter index ix_user_folded alter column 2 set statistics 0"))
    op.create_index("ix_user_beyond_ascii", "user", ["study_id"], sqlite_where=_SQLITE, postgresql_where=_POSTGRESQL)


def downgrade() -> None:
    op.drop_index("ix_user_beyond_ascii", "user")
    op.drop_index("ix_user_folded", "user")
