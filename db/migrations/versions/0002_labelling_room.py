"""The labelling room: settings, guidelines, gold, drafts, reports, invites, e-mail addresses, forecasts."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _columns()
    op.drop_index("ix_label_counting", "label")
    op.create_index(
        "ix_label_counting",
        "label",
        ["study_id", "user_id", "pair_id", "attention"],
        sqlite_where=sa.text("counts = 1"),
        postgresql_where=sa.text("counts"),
    )
    op.create_index(
        "ix_task_skipped",
        "task",
        ["user_id", "pair_id"],
        sqlite_where=sa.text("skipped = 1"),
        postgresql_where=sa.text("skipped"),
    )
    op.create_table(
        "guideline",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("study_id", sa.Integer(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Integer(), nullable=True),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(["study_id"], ["study.id"], name="fk_guideline_study_id"),
        sa.ForeignKeyConstraint(["user_id"], ["user.id"], name="fk_guideline_user_id"),
        sa.PrimaryKeyConstraint("id", name="pk_guideline"),
        sa.UniqueConstraint("study_id", "version", name="uq_guideline_study_id_version"),
    )
    op.create_table(
        "draft",
        sa.Column("task_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("tags", sa.JSON(), nullable=True),
        sa.Column("at", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(["task_id"], ["task.id"], name="fk_draft_task_id"),
        sa.PrimaryKeyConstraint("task_id", name="pk_draft"),
    )
    op.create_table(
        "report",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("study_id", sa.Integer(), nullable=False),
        sa.Column("user_id", sa.Integer(), nullable=False),
        sa.Column("response_id", sa.Integer(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.Column("resolved_at", sa.DateTime(), nullable=True),
        sa.Column("resolved_by", sa.Integer(), nullable=True),
        sa.ForeignKeyConstraint(["resolved_by"], ["user.id"], name="fk_report_resolved_by"),
        sa.ForeignKeyConstraint(["response_id"], ["response.id"], name="fk_report_response_id"),
        sa.ForeignKeyConstraint(["study_id"], ["study.id"], name="fk_report_study_id"),
        sa.ForeignKeyConstraint(["user_id"], ["user.id"], name="fk_report_user_id"),
        sa.PrimaryKeyConstraint("id", name="pk_report"),
    )
    op.create_index("ix_report_study_id", "report", ["study_id"])
    op.create_table(
        "invite",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("study_id", sa.Integer(), nullable=False),
        sa.Column("hash", sa.String(length=200), nullable=False),
        sa.Column("role", sa.String(length=20), nullable=False),
        sa.Column("uses", sa.Integer(), nullable=True),
        sa.Column("used", sa.Integer(), nullable=False),
        sa.Column("user_id", sa.Integer(), nullable=True),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.Column("expires_at", sa.DateTime(), nullable=True),
        sa.Column("revoked_at", sa.DateTime(), nullable=True),
        sa.ForeignKeyConstraint(["study_id"], ["study.id"], name="fk_invite_study_id"),
        sa.ForeignKeyConstraint(["user_id"], ["user.id"], name="fk_invite_user_id"),
        sa.PrimaryKeyConstraint("id", name="pk_invite"),
        sa.UniqueConstraint("hash", name="uq_invite_hash"),
    )
    op.create_index("ix_invite_study_id", "invite", ["study_id"])
    op.create_table(
        "email",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("study_id", sa.Integer(), nullable=False),
        sa.Column("email", sa.String(length=320), nullable=False),
        sa.Column("role", sa.String(length=20), nullable=True),
        sa.Column("user_id", sa.Integer(), nullable=True),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(["study_id"], ["study.id"], name="fk_email_study_id"),
        sa.ForeignKeyConstraint(["user_id"], ["user.id"], name="fk_email_user_id"),
        sa.PrimaryKeyConstraint("id", name="pk_email"),
        sa.UniqueConstraint("study_id", "email", name="uq_email_study_id_email"),
    )


def _columns() -> None:
    """A column that refers to a table is added in plain SQL, which SQLite and PostgreSQL share: Alembic adds the
    reference afterwards, which SQLite cannot.
    """
    no = sa.false()
    op.add_column("study", sa.Column("room", sa.JSON(), nullable=True))
    op.add_column("user", sa.Column("excluded", sa.Boolean(), nullable=False, server_default=no))
    op.execute("ALTER TABLE pair ADD COLUMN gold_id INTEGER CONSTRAINT fk_pair_gold_id REFERENCES response (id)")
    op.add_column("pair", sa.Column("taken", sa.Integer(), nullable=False, server_default=sa.text("0")))
    op.add_column("task", sa.Column("skipped", sa.Boolean(), nullable=False, server_default=no))
    op.add_column("task", sa.Column("forecast_left", sa.Double(), nullable=True))
    op.add_column("task", sa.Column("forecast_crowd", sa.Double(), nullable=True))
    op.add_column("task", sa.Column("forecast_snapshot", sa.String(length=100), nullable=True))
    op.add_column("label", sa.Column("tags", sa.JSON(), nullable=True))
    op.add_column("label", sa.Column("guidelines", sa.Integer(), nullable=True))
    op.add_column("label", sa.Column("attention", sa.Boolean(), nullable=False, server_default=no))
    op.execute(
        "ALTER TABLE label ADD COLUMN successor_id INTEGER CONSTRAINT fk_label_successor_id REFERENCES label (id)"
    )
    op.add_column("label", sa.Column("edited_at", sa.DateTime(), nullable=True))


def downgrade() -> None:
    raise NotImplementedError("labels made in the room hold more than version 0001 keeps; go back to a backup instead")
