"""The labels that a label has taken the place of are found by an index, which every deletion of a label looks in."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0032"
down_revision = "0031"
branch_labels = None
depends_on = None

_INDEX, _SUPERSEDED = "ix_label_successor", sa.text("successor_id is not null")


def upgrade() -> None:
    op.create_index(_INDEX, "label", ["successor_id"], sqlite_where=_SUPERSEDED, postgresql_where=_SUPERSEDED)


def downgrade() -> None:
    op.drop_index(_INDEX, "label")
