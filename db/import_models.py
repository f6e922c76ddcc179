"""The table of what an import has not finished."""

from __future__ import annotations

from sqlalchemy import Index, String
from sqlalchemy.orm import Mapped, mapped_column

from db.base import Base, child_of


class UnfinishedRow(Base):
    """Rows of a table, by their ids, that an import has written and nobody sees before it is whole; or a study whose
    pairs an import has yet to recount (``part`` is ``RECOUNT``, without ids).
    """

    __tablename__ = "unfinished"
    __table_args__ = (Index("ix_unfinished_part", "part", "first_id"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    study_id: Mapped[int] = child_of("study")
    part: Mapped[str] = mapped_column(String(20))  # name of the table
    first_id: Mapped[int] = mapped_column(default=0)
    last_id: Mapped[int] = mapped_column(default=0)
