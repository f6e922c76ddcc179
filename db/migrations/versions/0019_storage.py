"""Which storage belongs to the database, and the digest of each snapshot's manifest."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("snapshot", sa.Column("manifest", sa.String(length=64), nullable=True))
    op.create_table(
        "storage",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("mark", sa.String(length=32), nullable=False),
        sa.Column("left", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_storage"),
    )


def downgrade() -> None:
    op.drop_table("storage")
    op.drop_column("snapshot", "manifest")
