"""A pair may be withdrawn: it is handed out no more, and its labels stay."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None

_INDEX, _WITHDRAWN = "ix_pair_withdrawn", sa.text("withdrawn_at is not null")


def upgrade() -> None:
    op.add_column("pair", sa.Column("withdrawn_at", sa.DateTime(), nullable=True))
    op.create_index(_INDEX, "pair", ["study_id"], sqlite_where=_WITHDRAWN, postgresql_where=_WITHDRAWN)


def downgrade() -> None:
    op.drop_index(_INDEX, "pair")
    op.drop_column("pair", "withdrawn_at")
