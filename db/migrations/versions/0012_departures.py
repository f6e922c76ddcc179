"""People who leave: up to which revision a study's snapshots may know one, and after how many files are not clean."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("study", sa.Column("forgotten", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("study", sa.Column("unclean", sa.Integer(), nullable=False, server_default="0"))


def downgrade() -> None:
    for column in ("unclean", "forgotten"):
        op.drop_column("study", column)
