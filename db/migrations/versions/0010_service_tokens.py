"""Tokens by which other programs ask the reward server, each with a role of its own; only hashes are stored."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "service_token",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("study_id", sa.Integer(), nullable=False),
        sa.Column("hash", sa.String(length=200), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("role", sa.String(length=20), nullable=False),
        sa.Column("per_minute", sa.Integer(), nullable=False),
        sa.Column("user_id", sa.Integer(), nullable=True),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.Column("revoked_at", sa.DateTime(), nullable=True),
        sa.ForeignKeyConstraint(["study_id"], ["study.id"], name="fk_service_token_study_id"),
        sa.ForeignKeyConstraint(["user_id"], ["user.id"], name="fk_service_token_user_id"),
        sa.PrimaryKeyConstraint("id", name="pk_service_token"),
        sa.UniqueConstraint("hash", name="uq_service_token_hash"),
    )
    op.create_index("ix_service_token_study_id", "service_token", ["study_id"], unique=False)


def downgrade() -> None:
    op.drop_table("service_token")
