"""Accounts at identity providers, by issuer and subject: an address may change hands."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "identity",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("issuer", sa.String(length=500), nullable=False),
        sa.Column("subject", sa.String(length=255), nullable=False),
        sa.Column("email", sa.String(length=320), nullable=True),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_identity"),
        sa.UniqueConstraint("issuer", "subject", name="uq_identity_issuer_subject"),
    )
    op.create_table(
        "identity_user",
        sa.Column("identity_id", sa.Integer(), nullable=False),
        sa.Column("user_id", sa.Integer(), nullable=False),
        sa.Column("study_id", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(["identity_id"], ["identity.id"], name="fk_identity_user_identity_id"),
        sa.ForeignKeyConstraint(["user_id"], ["user.id"], name="fk_identity_user_user_id"),
        sa.ForeignKeyConstraint(["study_id"], ["study.id"], name="fk_identity_user_study_id"),
        sa.PrimaryKeyConstraint("identity_id", "user_id", name="pk_identity_user"),
        sa.UniqueConstraint("identity_id", "study_id", name="uq_identity_user_identity_id_study_id"),
    )
    op.create_index("ix_identity_user_user_id", "identity_user", ["user_id"], unique=False)
    op.create_index("ix_identity_user_study_id", "identity_user", ["study_id"], unique=False)
    op.create_table(
        "identity_session",
        sa.Column("session_id", sa.Integer(), nullable=False),
        sa.Column("identity_id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["session_id"], ["browser_session.id"], name="fk_identity_session_session_id"),
        sa.ForeignKeyConstraint(["identity_id"], ["identity.id"], name="fk_identity_session_identity_id"),
        sa.PrimaryKeyConstraint("session_id", name="pk_identity_session"),
    )
    op.create_index("ix_identity_session_identity_id", "identity_session", ["identity_id"], unique=False)
    if op.get_bind().dialect.name == "postgresql":  # as in revision 0014
        for column in ("issuer", "subject", "email", "name"):
            op.execute(sa.text(f"alter table identity alter column {column} set statistics 0"))


def downgrade() -> None:
    op.drop_table("identity_session")
    op.drop_table("identity_user")
    op.drop_table("identity")
