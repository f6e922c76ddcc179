"""What an import has not finished."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "unfinished",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("study_id", sa.Integer(), nullable=False),
        sa.Column("part", sa.String(length=20), nullable=False),
        sa.Column("first_id", sa.Integer(), nullable=False),
        sa.Column("last_id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["study_id"], ["study.id"], name="fk_unfinished_study_id"),
        sa.PrimaryKeyConstraint("id", name="pk_unfinished"),
    )
    op.create_index("ix_unfinished_part", "unfinished", ["part", "first_id"])


def downgrade() -> None:
    op.drop_table("unfinished")
