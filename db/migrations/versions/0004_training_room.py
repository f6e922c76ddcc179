"""The training room: a study's own schedule, and notes on snapshots."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("study", sa.Column("schedule", sa.JSON(), nullable=True))
    op.add_column("snapshot", sa.Column("note", sa.Text(), nullable=False, server_default=sa.text("''")))


def downgrade() -> None:
    op.drop_column("snapshot", "note")
    op.drop_column("study", "schedule")
