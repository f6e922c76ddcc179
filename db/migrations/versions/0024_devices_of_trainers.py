"""A trainer says where it computes, such as "cuda"; those that have been seen before say nothing."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("trainer", sa.Column("device", sa.String(length=20), nullable=False, server_default=""))


def downgrade() -> None:
    op.drop_column("trainer", "device")
