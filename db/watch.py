"""Watch over the database: its version, its copies, and small numbers in a time that does not depend on its size."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from sqlalchemy import func, select

from db.backups import back_up_by_clock, drop_backups
from db.models import LabelRow
from db.schema import problem
from db.transactions import Transactions, now

_LAST = 20_000  # labels that are looked at: their times have no index


class Watch(Transactions):
    def schema_problem(self) -> str:
        return problem(self.engine)

    def back_up_by_clock(self, hours: float, keep: int) -> Path | None:
        return back_up_by_clock(self.engine, hours, keep)

    def drop_backups(self) -> None:
        drop_backups(self.engine)

    def recent_labels(self, seconds: float) -> dict[int, int]:
        last = select(LabelRow.study_id, LabelRow.created_at, LabelRow.counts).order_by(LabelRow.id.desc()).limit(_LAST)
        label = last.subquery().c
        present, near = now(), timedelta(seconds=seconds)  # later times were written while a clock was ahead
        recent = select(label.study_id, func.count()).where(label.created_at.between(present - near, present + near))
        with self._read() as connection:
            rows = connection.execute(recent.where(label.counts).group_by(label.study_id))
            return {study_id: n for study_id, n in rows}
