"""Pairs at the front of the queue, with who asked for them and when."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "ask",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("study_id", sa.Integer(), nullable=False),
        sa.Column("pair_id", sa.Integer(), nullable=False),
        sa.Column("user_id", sa.Integer(), nullable=True),
        sa.Column("at", sa.DateTime(), nullable=False),
        sa.Column("ended_at", sa.DateTime(), nullable=True),
        sa.Column("ended_by", sa.Integer(), nullable=True),
        sa.ForeignKeyConstraint(["study_id"], ["study.id"], name="fk_ask_study_id"),
        sa.ForeignKeyConstraint(["pair_id"], ["pair.id"], name="fk_ask_pair_id"),
        sa.ForeignKeyConstraint(["user_id"], ["user.id"], name="fk_ask_user_id"),
        sa.ForeignKeyConstraint(["ended_by"], ["user.id"], name="fk_ask_ended_by"),
        sa.PrimaryKeyConstraint("id", name="pk_ask"),
    )
    op.create_index(
        "ix_ask_open",
        "ask",
        ["study_id", "pair_id"],
        unique=True,
        sqlite_where=sa.text("ended_at is null"),
        postgresql_where=sa.text("ended_at is null"),
    )


def downgrade() -> None:
    op.drop_table("ask")
