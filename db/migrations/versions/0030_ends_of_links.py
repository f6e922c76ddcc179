"""A sign-in link has an end.

Those that exist open from now on as long as new ones do: for 7 days where the terminal printed them; the others for 180
days after they were last opened, since many are the one way back of the people who made them.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import sqlalchemy as sa
from alembic import op

revision = "0030"
down_revision = "0029"
branch_labels = None
depends_on = None

_PRINTED, _KEPT = timedelta(days=7), timedelta(days=180)


def upgrade() -> None:
    # A row without these has its end behind it.
    over = sa.text("'1970-01-01 00:00:00'")
    op.add_column("token", sa.Column("own", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("token", sa.Column("expires_at", sa.DateTime(), nullable=False, server_default=over))
    token = sa.table("token", sa.column("terminal", sa.Boolean), sa.column("own"), sa.column("expires_at", sa.DateTime))
    now = datetime.now(UTC).replace(tzinfo=None)
    op.execute(sa.update(token).where(token.c.terminal).values(expires_at=now + _PRINTED))
    op.execute(sa.update(token).where(~token.c.terminal).values(own=True, expires_at=now + _KEPT))


def downgrade() -> None:
    op.drop_column("token", "expires_at")
    op.drop_column("token", "own")
