"""What a file has about a pair or a label beside what the studio reads: its own ids, its split, its topic, as JSON."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for table in ("pair", "label"):
        op.add_column(table, sa.Column("meta", sa.JSON(), nullable=True))


def downgrade() -> None:
    for table in ("label", "pair"):
        op.drop_column(table, "meta")
