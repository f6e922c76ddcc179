"""Names that owners gave to groups, by group number."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("study", sa.Column("group_names", sa.JSON(), nullable=True))


def downgrade() -> None:
    op.drop_column("study", "group_names")
