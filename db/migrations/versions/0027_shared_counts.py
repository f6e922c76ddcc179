"""Counts of a study that everybody of it sees, with noise, day by day."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0027"
down_revision = "0026"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "shared_count",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("study_id", sa.Integer(), nullable=False),
        sa.Column("day", sa.String(length=10), nullable=False),
        sa.Column("epsilon", sa.Double(), nullable=False),
        sa.Column("answers", sa.Integer(), nullable=False),
        sa.Column("by_source", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["study_id"], ["study.id"], name=op.f("fk_shared_count_study_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_shared_count")),
        sa.UniqueConstraint("study_id", "day", name=op.f("uq_shared_count_study_id_day")),
    )


def downgrade() -> None:
    op.drop_table("shared_count")
