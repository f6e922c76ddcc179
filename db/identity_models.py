"""The tables of accounts at identity providers: who they are, as whom they sign in, and in which browsers."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from db.base import Base, child_of


class IdentityRow(Base):
    """An account that has signed in to this installation."""

    __tablename__ = "identity"
    __table_args__ = (UniqueConstraint("issuer", "subject"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    issuer: Mapped[str] = mapped_column(String(500))
    subject: Mapped[str] = mapped_column(String(255))
    email: Mapped[str | None] = mapped_column(String(320))  # verified, at the last sign-in
    name: Mapped[str] = mapped_column(String(200))  # likewise
    created_at: Mapped[datetime]


class IdentityUserRow(Base):
    """The user as whom an account signs in to a study."""

    __tablename__ = "identity_user"
    __table_args__ = (UniqueConstraint("identity_id", "study_id"),)
    identity_id: Mapped[int] = child_of("identity", primary_key=True, autoincrement=False)
    user_id: Mapped[int] = child_of("user", primary_key=True, autoincrement=False, index=True)
    study_id: Mapped[int] = child_of("study", index=True)
    created_at: Mapped[datetime]
    # The refused address that the account had when an owner refused it: it stays out with any other one, or with none.
    refused: Mapped[str | None] = mapped_column(String(320))


class IdentitySessionRow(Base):
    """The account with which a session of a browser began."""

    __tablename__ = "identity_session"
    session_id: Mapped[int] = child_of("browser_session", primary_key=True, autoincrement=False)
    identity_id: Mapped[int] = child_of("identity", index=True)
