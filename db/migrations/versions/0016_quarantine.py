"""Accounts that are left out of training and votes until somebody decides, and why."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("user", sa.Column("quarantined", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("user", sa.Column("quarantine", sa.JSON(none_as_null=True), nullable=True))


def downgrade() -> None:
    for column in ("quarantine", "quarantined"):
        op.drop_column("user", column)
