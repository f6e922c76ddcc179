"""One queue for trainers on any machine: who executes a run until when, and which trainers there are."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

_LEFT_BEHIND = "The run was left behind: the worker was killed, or could not write to the database."
_COLUMNS = {
    "study": ("claims", "versions"),
    "run": ("worker", "lease_until", "token", "has_turn"),
}


def upgrade() -> None:
    for name in _COLUMNS["study"]:
        op.add_column("study", sa.Column(name, sa.Integer(), nullable=False, server_default="0"))
    op.add_column("run", sa.Column("worker", sa.String(length=200), nullable=True))
    op.add_column("run", sa.Column("lease_until", sa.DateTime(), nullable=True))
    op.add_column("run", sa.Column("token", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("run", sa.Column("has_turn", sa.Boolean(), nullable=False, server_default=sa.false()))
    _end_doubles()
    op.create_index(
        "ix_run_running",
        "run",
        ["study_id", "kind"],
        unique=True,
        sqlite_where=sa.text("state = 'running'"),
        postgresql_where=sa.text("state = 'running'"),
    )
    op.create_table(
        "trainer",
        sa.Column("worker", sa.String(length=200), nullable=False),
        sa.Column("host", sa.String(length=200), nullable=False),
        sa.Column("kinds", sa.String(length=200), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("seen_at", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("worker", name="pk_trainer"),
    )
    op.drop_table("heartbeat")


def _end_doubles() -> None:
    """Two trainers of earlier versions could leave several runs of one kind running in a study: the newest stays."""
    op.execute(
        sa.text(
            "update run set state = 'interrupted', message = :message where state = 'running' and exists ("
            "select 1 from run as newer where newer.study_id = run.study_id and newer.kind = run.kind "
            "and newer.state = 'running' and newer.id > run.id)"
        ).bindparams(message=_LEFT_BEHIND)
    )


def downgrade() -> None:
    op.create_table(
        "heartbeat",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=100), nullable=False),
        sa.Column("at", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_heartbeat"),
    )
    op.drop_table("trainer")
    op.drop_index("ix_run_running", table_name="run")
    for table, names in _COLUMNS.items():
        for name in names:
            op.drop_column(table, name)
