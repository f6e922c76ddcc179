"""Whether the position of a label's responses on screen is known; strengths from 1 to 3; an index of edited labels.

Until now a row imported without ``left`` was stored as if its ``response_a`` had been shown on the left, and the fits
learned a position bias from that.  A file that writes the preferred response first gave "left always wins".  Such rows
cannot be told apart from rows with ``left``: "a" by what is stored, except by the label's key:

- The label has a task: the product showed it, so its position is known.
- Its key has 32 characters (the product makes such keys) or begins with ``demo:``: it came from an export of the
  product, which always wrote ``left``, or from the demo study, which draws its sides.  Its position is known.
- Any other imported label has a key that was computed from its row, or one that another program wrote.  Its position
  is taken as unknown: the cost of a wrong guess is a label that does not count towards the position bias, while the
  opposite guess can ruin a model.  Its two responses get a drawn order.
- An edited label has the position of the label that it supersedes.

The revision of a study with such labels grows by their number, so the trainer fits it again.

A strength above 3, which only a file could bring in, becomes 3: it is a weight of the loss, and one label must not
outweigh a person.
"""

from __future__ import annotations

from collections import Counter
from hashlib import sha256

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

OPPOSITE = {"left": "right", "right": "left"}


def upgrade() -> None:
    op.add_column("label", sa.Column("position_known", sa.Boolean(), nullable=False, server_default=sa.true()))
    where = sa.text("successor_id is not null")
    op.create_index("ix_label_superseded", "label", ["study_id"], sqlite_where=where, postgresql_where=where)
    op.execute("update label set strength = 3 where strength > 3")
    _mark_unknown()


def _mark_unknown() -> None:
    connection = op.get_bind()
    columns = "id, study_id, key, left_id, right_id, choice, successor_id, task_id, edited_at"
    changes, left_of_edit, by_study = [], dict[int, int](), Counter[int]()
    for label in connection.execute(sa.text(f"select {columns} from label order by id")).all():
        # an edit has a larger id than the label that it supersedes
        imported = label.task_id is None and label.edited_at is None and not _of_the_product(label.key)
        if not (imported or label.id in left_of_edit):
            continue
        left = left_of_edit.get(label.id) or _drawn_left(label)
        if label.successor_id is not None:
            left_of_edit[label.successor_id] = left
        by_study[label.study_id] += 1
        changes.append(_with_left(label, left))
    update = sa.text(
        "update label set position_known = :known, left_id = :left, right_id = :right, choice = :choice where id = :id"
    )
    for start in range(0, len(changes), 1000):
        connection.execute(update, changes[start : start + 1000])
    for study_id, n in by_study.items():
        connection.execute(
            sa.text("update study set revision = revision + :n where id = :id"), {"n": n, "id": study_id}
        )


def _of_the_product(key: str) -> bool:
    return len(key) == 32 or key.startswith("demo:")


def _drawn_left(label: sa.Row) -> int:
    return sorted((label.left_id, label.right_id))[sha256(label.key.encode()).digest()[0] % 2]


def _with_left(label: sa.Row, left: int) -> dict:
    right, choice = label.left_id + label.right_id - left, label.choice
    return {
        "id": label.id,
        "known": False,
        "left": left,
        "right": right,
        "choice": choice if left == label.left_id else OPPOSITE.get(choice, choice),
    }


def downgrade() -> None:
    op.drop_index("ix_label_superseded", "label")
    op.drop_column("label", "position_known")
