"""The tables of a study's settings: guidelines, drafts, pinned pairs, reports, invites, e-mail addresses, tokens; and
the counts that everybody of it sees.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, Index, String, Text, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from db.base import Base, child_of


class GuidelineRow(Base):
    """One version of a study's guidelines; a version never changes."""

    __tablename__ = "guideline"
    __table_args__ = (UniqueConstraint("study_id", "version"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    study_id: Mapped[int] = child_of("study")
    version: Mapped[int]
    text: Mapped[str] = mapped_column(Text)
    user_id: Mapped[int | None] = child_of("user")
    created_at: Mapped[datetime]


class DraftRow(Base):
    """The reason and tags a user is writing at an open task; deleted when the task closes."""

    __tablename__ = "draft"
    task_id: Mapped[int] = child_of("task", primary_key=True, autoincrement=False)
    text: Mapped[str] = mapped_column(Text)
    tags: Mapped[list[str] | None] = mapped_column(JSON(none_as_null=True))
    at: Mapped[datetime]


class PinRow(Base):
    """A pinned pair, until somebody unpins it; the row stays.  The table is named after an earlier word for it."""

    __tablename__ = "ask"
    __table_args__ = (
        Index(
            "ix_ask_open",
            "study_id",
            "pair_id",
            unique=True,
            sqlite_where=text("ended_at is null"),
            postgresql_where=text("ended_at is null"),
        ),
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    study_id: Mapped[int] = child_of("study")
    pair_id: Mapped[int] = child_of("pair")
    user_id: Mapped[int | None] = child_of("user")  # who pinned it
    at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
    ended_by: Mapped[int | None] = child_of("user")


class ReportRow(Base):
    """A problem with a response, as a user reported it."""

    __tablename__ = "report"
    id: Mapped[int] = mapped_column(primary_key=True)
    study_id: Mapped[int] = child_of("study", index=True)
    user_id: Mapped[int] = child_of("user")
    response_id: Mapped[int] = child_of("response")
    text: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime]
    resolved_at: Mapped[datetime | None]
    resolved_by: Mapped[int | None] = child_of("user")


class InviteRow(Base):
    """An invite link; only a hash of its secret is stored."""

    __tablename__ = "invite"
    id: Mapped[int] = mapped_column(primary_key=True)
    study_id: Mapped[int] = child_of("study", index=True)
    hash: Mapped[str] = mapped_column(String(200), unique=True)
    role: Mapped[str] = mapped_column(String(20))
    uses: Mapped[int | None]
    used: Mapped[int] = mapped_column(default=0)
    user_id: Mapped[int | None] = child_of("user")  # who made it
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]


class EmailRow(Base):
    """The role of an e-mail address at sign-in; without a role the address is refused."""

    __tablename__ = "email"
    __table_args__ = (UniqueConstraint("study_id", "email"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    study_id: Mapped[int] = child_of("study")
    email: Mapped[str] = mapped_column(String(320))
    role: Mapped[str | None] = mapped_column(String(20))
    user_id: Mapped[int | None] = child_of("user")
    created_at: Mapped[datetime]


class SharedCountRow(Base):
    """Counts of one day that everybody of a study sees, with their noise; a row never changes."""

    __tablename__ = "shared_count"
    __table_args__ = (UniqueConstraint("study_id", "day"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    study_id: Mapped[int] = child_of("study")
    day: Mapped[str] = mapped_column(String(10))  # in UTC, such as 2026-11-30
    epsilon: Mapped[float]
    answers: Mapped[int]
    by_source: Mapped[dict[str, Any]]  # source → [preferred, not preferred]


class ServiceTokenRow(Base):
    """A token by which another program asks the reward server; only a hash of it is stored."""

    __tablename__ = "service_token"
    id: Mapped[int] = mapped_column(primary_key=True)
    study_id: Mapped[int] = child_of("study", index=True)
    hash: Mapped[str] = mapped_column(String(200), unique=True)
    name: Mapped[str] = mapped_column(String(200))
    role: Mapped[str] = mapped_column(String(20))
    per_minute: Mapped[int]
    user_id: Mapped[int | None] = child_of("user")  # who made it; null: the terminal
    created_at: Mapped[datetime]
    revoked_at: Mapped[datetime | None]
