"""A study may be deleted: its row stays as a number, so that no later study gets its id."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0029"
down_revision = "0028"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("study", sa.Column("deletion", sa.String(length=10), nullable=True))


def downgrade() -> None:
    op.drop_column("study", "deletion")
