"""A session has the name of its browser, such as "Firefox on Linux"; those that began before have none."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("browser_session", sa.Column("name", sa.String(length=60), nullable=False, server_default=""))


def downgrade() -> None:
    op.drop_column("browser_session", "name")
