"""Sessions of browsers, sign-in links made in the terminal, and studies that become visible once they are whole."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("token", sa.Column("terminal", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("study", sa.Column("ready", sa.Boolean(), nullable=False, server_default=sa.true()))
    op.create_table(
        "browser_session",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("hash", sa.String(length=200), nullable=False),
        sa.Column("terminal", sa.Boolean(), nullable=False),
        sa.Column("study_id", sa.Integer(), nullable=True),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.Column("seen_at", sa.DateTime(), nullable=False),
        sa.Column("ended_at", sa.DateTime(), nullable=True),
        sa.ForeignKeyConstraint(["study_id"], ["study.id"], name="fk_browser_session_study_id"),
        sa.PrimaryKeyConstraint("id", name="pk_browser_session"),
        sa.UniqueConstraint("hash", name="uq_browser_session_hash"),
    )
    op.create_table(
        "session_user",
        sa.Column("session_id", sa.Integer(), nullable=False),
        sa.Column("user_id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["session_id"], ["browser_session.id"], name="fk_session_user_session_id"),
        sa.ForeignKeyConstraint(["user_id"], ["user.id"], name="fk_session_user_user_id"),
        sa.PrimaryKeyConstraint("session_id", "user_id", name="pk_session_user"),
    )
    op.create_index("ix_session_user_user_id", "session_user", ["user_id"], unique=False)


def downgrade() -> None:
    op.drop_table("session_user")
    op.drop_table("browser_session")
    op.drop_column("study", "ready")
    op.drop_column("token", "terminal")
