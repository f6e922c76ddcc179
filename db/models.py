"""The tables, in the product's words: study, user, prompt, response, pair, task, label, run, snapshot and so on.

The SHA-256 digest of a text identifies it (a prompt within its study, a response within its prompt), so an import can
be repeated and compares no texts.  A label names its responses by id, by the side on which each was shown.  Times are
UTC.  Some columns keep the name of an earlier version, and the attribute has the product's word: their first argument
is the name in the database.  The tables of a study's settings (guidelines, invites, reports …) are in
``db.study_models``.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, CheckConstraint, Index, String, Text, UniqueConstraint, false, text, true
from sqlalchemy.orm import Mapped, mapped_column

from db.base import Base, child_of

# Whether a user's name holds a letter beyond ASCII, by dialect, as a query repeats it for the partial index
IS_BEYOND_ASCII = {
    "sqlite": "length(cast(name as blob)) <> length(name)",
    "postgresql": "octet_length(name) <> char_length(name)",
}
# What ``copl_core.names.look`` makes of a name of ASCII
LOOK = "replace(replace(replace(replace(lower(name), '0', 'o'), '1', 'l'), '|', 'l'), 'i', 'l')"
IS_APART = "excluded or quarantined or kind <> 'human'"  # as a query repeats it, for the partial index
IS_SETTLED = "confirmed_at is not null or edited_at is not null"


class StudyRow(Base):
    __tablename__ = "study"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(200), unique=True)
    include_simulated: Mapped[bool] = mapped_column(default=True)
    include_models: Mapped[bool] = mapped_column(default=False, server_default=false())  # in training
    champion: Mapped[str | None] = mapped_column(String(100))  # version of a snapshot of this study
    revision: Mapped[int] = mapped_column(default=0)  # number of label changes so far
    demo: Mapped[bool] = mapped_column(default=False)
    opened_seq: Mapped[int] = mapped_column("opened", key="opened_seq", default=0)  # the largest is the current study
    # ``AssignmentSettings.saved()``; null: the default settings
    assignment: Mapped[dict[str, Any] | None] = mapped_column("room", JSON(none_as_null=True), key="assignment")
    schedule: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))  # null: as the installation is set
    ready: Mapped[bool] = mapped_column(default=True, server_default=true())  # lists show no study that is being made
    deletion: Mapped[str | None] = mapped_column(String(10))  # of a deleted study: a ``Deletion``; its row stays
    # Names that owners gave to groups, by group number; null: none
    group_names: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    forgotten: Mapped[int] = mapped_column(default=0, server_default=text("0"))  # revision when a user last left
    # Users who have left and of whom the files may still hold what went
    unclean: Mapped[int] = mapped_column(default=0, server_default=text("0"))
    # Changes of answers that raise no revision: checks, and those of people who are left out
    other_changes: Mapped[int] = mapped_column(default=0, server_default=text("0"))
    claims: Mapped[int] = mapped_column(default=0, server_default=text("0"))  # of its runs; the token of the last one
    versions: Mapped[int] = mapped_column(default=0, server_default=text("0"))  # the largest number given to a snapshot
    created_at: Mapped[datetime]


class UserRow(Base):
    __tablename__ = "user"
    __table_args__ = (
        UniqueConstraint("study_id", "name"),
        # ``db.transactions.APART``: the few of a study of people whom lists, training or votes may leave out
        Index("ix_user_apart", "study_id", "kind", sqlite_where=text(IS_APART), postgresql_where=text(IS_APART)),
        # ``db.names``
        Index("ix_user_look", "study_id", text(LOOK)),
        Index(
            "ix_user_beyond_ascii",
            "study_id",
            sqlite_where=text(IS_BEYOND_ASCII["sqlite"]),
            postgresql_where=text(IS_BEYOND_ASCII["postgresql"]),
        ),
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    study_id: Mapped[int] = child_of("study")
    name: Mapped[str] = mapped_column(String(200))
    kind: Mapped[str] = mapped_column(String(20))
    role: Mapped[str] = mapped_column(String(20))
    true_group: Mapped[str | None] = mapped_column("taste", Text, key="true_group")  # of a simulated user
    excluded: Mapped[bool] = mapped_column(default=False, server_default=false())  # from training
    # Left out of training and votes until somebody decides (``db.quarantine``); null: it never was
    quarantined: Mapped[bool] = mapped_column(default=False, server_default=false())
    quarantine: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    # Labels of the user that count, with those of people who are left out (``db.label_counts``)
    n_preferences: Mapped[int] = mapped_column(default=0, server_default=text("0"))
    n_checks: Mapped[int] = mapped_column(default=0, server_default=text("0"))  # answers to gold and practice pairs
    created_at: Mapped[datetime]


class TokenRow(Base):
    __tablename__ = "token"
    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int] = child_of("user", index=True)
    hash: Mapped[str] = mapped_column(String(200), unique=True)
    # Made in the terminal, by somebody who has the whole installation: it opens every study.
    terminal: Mapped[bool] = mapped_column(default=False, server_default=false())
    # Made by its user, as their way back: each use moves its end
    own: Mapped[bool] = mapped_column(default=False, server_default=false())
    created_at: Mapped[datetime]  # by the clock of the database, as its end
    expires_at: Mapped[datetime] = mapped_column(server_default=text("'1970-01-01 00:00:00'"))


class BrowserSessionRow(Base):
    """A browser in which somebody is signed in; its cookie holds the secret, and only a hash of it is stored."""

    __tablename__ = "browser_session"
    id: Mapped[int] = mapped_column(primary_key=True)
    hash: Mapped[str] = mapped_column(String(200), unique=True)
    name: Mapped[str] = mapped_column(String(60), default="", server_default="")  # of its program and its system
    terminal: Mapped[bool] = mapped_column(default=False)  # begun with a link of the terminal
    study_id: Mapped[int | None] = child_of("study")  # opened last
    created_at: Mapped[datetime]
    seen_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]


class SessionUserRow(Base):
    """A user as whom a browser is signed in: one in each study at most."""

    __tablename__ = "session_user"
    session_id: Mapped[int] = child_of("browser_session", primary_key=True, autoincrement=False)
    user_id: Mapped[int] = child_of("user", primary_key=True, autoincrement=False, index=True)
    # The user has joined here and has no sign-in link yet that brings them back
    link_due: Mapped[bool] = mapped_column(default=False, server_default=false())


class PromptRow(Base):
    __tablename__ = "prompt"
    __table_args__ = (UniqueConstraint("study_id", "digest"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    study_id: Mapped[int] = child_of("study")
    digest: Mapped[bytes]
    text: Mapped[str] = mapped_column(Text)


class ResponseRow(Base):
    __tablename__ = "response"
    __table_args__ = (UniqueConstraint("prompt_id", "digest"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    prompt_id: Mapped[int] = child_of("prompt")
    digest: Mapped[bytes]
    text: Mapped[str] = mapped_column(Text)
    source: Mapped[str | None] = mapped_column(Text)


class PairRow(Base):
    """Two responses to one prompt, the smaller id first: a pair is one row, in whichever order a file names it."""

    __tablename__ = "pair"
    __table_args__ = (
        UniqueConstraint("first_id", "second_id"),
        CheckConstraint("first_id < second_id", name="order"),
        Index(
            "ix_pair_withdrawn",
            "study_id",
            sqlite_where=text("withdrawn_at is not null"),
            postgresql_where=text("withdrawn_at is not null"),
        ),
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    study_id: Mapped[int] = child_of("study", index=True)
    prompt_id: Mapped[int] = child_of("prompt", index=True)
    first_id: Mapped[int] = child_of("response")
    second_id: Mapped[int] = child_of("response", index=True)
    gold_id: Mapped[int | None] = child_of("response")  # the known answer: the pair is for attention checks only
    # Users with a counting preference here; kept up to date if the study has an overlap (``db.overlap.recount``).
    n_annotators: Mapped[int] = mapped_column("taken", key="n_annotators", default=0, server_default=text("0"))
    meta: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))  # of the file's row without a label
    withdrawn_at: Mapped[datetime | None]  # since then nobody is handed it (``db.withdrawn_pairs``)


class TaskRow(Base):
    """A pair handed to a user.  state: open → answered | withdrawn; a user has one open task at most.

    A skip is a withdrawal by the user.  The prediction of the answer is stored as the task is handed out.
    """

    __tablename__ = "task"
    __table_args__ = (
        Index(
            "ix_task_open_user",
            "user_id",
            unique=True,
            sqlite_where=text("state = 'open'"),
            postgresql_where=text("state = 'open'"),
        ),
        Index(
            "ix_task_open_pair", "pair_id", sqlite_where=text("state = 'open'"), postgresql_where=text("state = 'open'")
        ),
        Index(
            "ix_task_skipped", "user_id", "pair_id", sqlite_where=text("skipped = 1"), postgresql_where=text("skipped")
        ),
        CheckConstraint("state in ('open', 'answered', 'withdrawn')", name="state"),
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int] = child_of("user")
    pair_id: Mapped[int] = child_of("pair")
    left_id: Mapped[int] = child_of("response")
    right_id: Mapped[int] = child_of("response")
    reason: Mapped[str] = mapped_column(String(50))
    state: Mapped[str] = mapped_column(String(20), default="open")
    handed_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    closed_at: Mapped[datetime | None]
    skipped: Mapped[bool] = mapped_column(default=False, server_default=false())
    # P(left is preferred): by the model, and by the votes of the other users
    predicted_left: Mapped[float | None] = mapped_column("forecast_left", key="predicted_left")
    predicted_crowd: Mapped[float | None] = mapped_column("forecast_crowd", key="predicted_crowd")
    predicted_snapshot: Mapped[str | None] = mapped_column("forecast_snapshot", String(100), key="predicted_snapshot")


class LabelRow(Base):
    """A user's answer.  Never deleted: an undone or superseded label stays, with ``counts`` off.

    A repeated pair has several rows.  The answer to a gold pair is an ``attention`` check and no preference.
    """

    __tablename__ = "label"
    __table_args__ = (
        UniqueConstraint("study_id", "key"),
        # "counts = 1" literally: SQLite uses a partial index only if the query repeats its condition
        Index(
            "ix_label_counting",
            "study_id",
            "user_id",
            "pair_id",
            "attention",
            sqlite_where=text("counts = 1"),
            postgresql_where=text("counts"),
        ),
        Index(
            "ix_label_superseded",
            "study_id",
            sqlite_where=text("successor_id is not null"),
            postgresql_where=text("successor_id is not null"),
        ),
        # What the database looks for as a label is deleted; without it, it reads the table for each one
        Index(
            "ix_label_successor",
            "successor_id",
            sqlite_where=text("successor_id is not null"),
            postgresql_where=text("successor_id is not null"),
        ),
        Index("ix_label_settled", "study_id", sqlite_where=text(IS_SETTLED), postgresql_where=text(IS_SETTLED)),
        CheckConstraint("choice in ('left', 'right', 'tie', 'both_bad')", name="choice"),
        CheckConstraint("left_id <> right_id", name="sides"),
        CheckConstraint("strength >= 1", name="strength"),
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    study_id: Mapped[int] = child_of("study")
    task_id: Mapped[int | None] = child_of("task", unique=True)  # null: an imported label
    user_id: Mapped[int] = child_of("user")
    pair_id: Mapped[int] = child_of("pair", index=True)
    left_id: Mapped[int] = child_of("response")
    right_id: Mapped[int] = child_of("response")
    choice: Mapped[str] = mapped_column(String(10))
    strength: Mapped[int] = mapped_column(default=1)
    strength_known: Mapped[bool] = mapped_column(default=True, server_default=true())  # false: its file says none
    reason: Mapped[str] = mapped_column(Text, default="")
    tags: Mapped[list[str] | None] = mapped_column(JSON(none_as_null=True))
    guidelines: Mapped[int | None]  # version on the screen
    milliseconds: Mapped[int | None]
    key: Mapped[str] = mapped_column(String(64))  # identity across files: a key is imported once
    counts: Mapped[bool] = mapped_column(default=True)
    attention: Mapped[bool] = mapped_column(default=False, server_default=false())
    successor_id: Mapped[int | None] = child_of("label")  # the edited label that replaces it
    edited_at: Mapped[datetime | None]
    confirmed_at: Mapped[datetime | None]  # when its user answered that it is right
    revision: Mapped[int]  # of the study, at the label's last change
    # false: no file names which response was shown on the left, so left_id and right_id are in a drawn order
    position_known: Mapped[bool] = mapped_column(default=True, server_default=true())
    meta: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))  # of the file's row
    created_at: Mapped[datetime]


class RunRow(Base):
    """A training job.  While it runs, its trainer holds it by a lease, and a study has one running job of each kind."""

    __tablename__ = "run"
    __table_args__ = (
        Index(
            "ix_run_running",
            "study_id",
            "kind",
            unique=True,
            sqlite_where=text("state = 'running'"),
            postgresql_where=text("state = 'running'"),
        ),
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    study_id: Mapped[int] = child_of("study", index=True)
    kind: Mapped[str] = mapped_column(String(20))
    state: Mapped[str] = mapped_column(String(20), index=True)
    reason: Mapped[str] = mapped_column(Text, default="")
    phase: Mapped[str] = mapped_column(String(100), default="")
    step: Mapped[int] = mapped_column(default=0)
    steps: Mapped[int] = mapped_column(default=0)
    loss: Mapped[float | None]
    seconds_left: Mapped[float | None]
    snapshot: Mapped[str | None] = mapped_column(String(100))
    message: Mapped[str] = mapped_column(Text, default="")
    retry_of: Mapped[int | None] = child_of("run")
    created_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]
    config: Mapped[dict[str, Any]] = mapped_column(default=dict)
    worker: Mapped[str | None] = mapped_column(String(200))  # the trainer that claimed it
    lease_until: Mapped[datetime | None]  # by the clock of the database; null: claimed by an earlier version
    token: Mapped[int] = mapped_column(default=0, server_default=text("0"))  # of the claim: grows with each of a study
    has_turn: Mapped[bool] = mapped_column(default=False, server_default=false())  # while it fits the study's graph


class WriteRunRow(Base):
    """Answers that a trainer writes for somebody's page (``db.write_runs``); removed once the page has them."""

    __tablename__ = "write_run"
    id: Mapped[int] = mapped_column(primary_key=True)
    study_id: Mapped[int] = child_of("study")
    user_id: Mapped[int] = child_of("user")
    request: Mapped[dict[str, Any]]
    state: Mapped[str] = mapped_column(String(20))
    message: Mapped[str] = mapped_column(Text, default="")
    pieces: Mapped[list[list[str]]] = mapped_column(JSON)  # of each answer so far
    worker: Mapped[str | None] = mapped_column(String(200))
    token: Mapped[int] = mapped_column(default=0)  # counts the claims
    lease_until: Mapped[datetime | None]
    wanted_until: Mapped[datetime]


class SnapshotRow(Base):
    __tablename__ = "snapshot"
    __table_args__ = (UniqueConstraint("study_id", "version"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    study_id: Mapped[int] = child_of("study")
    version: Mapped[str] = mapped_column(String(100))
    run_id: Mapped[int | None] = child_of("run")
    watermark: Mapped[int]
    n_labels: Mapped[int]
    metrics: Mapped[dict[str, Any]]
    note: Mapped[str] = mapped_column(Text, default="", server_default=text("''"))  # written by users
    manifest: Mapped[str | None] = mapped_column(String(64))  # SHA-256 of its manifest; null: not known
    created_at: Mapped[datetime]


class StorageRow(Base):
    """The mark of the storage that the machines of this database share; one row at most."""

    __tablename__ = "storage"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    mark: Mapped[str] = mapped_column(String(32))
    left: Mapped[bool] = mapped_column(default=False)  # whether a storage has it


class TrainerRow(Base):
    """A trainer and its last sign of life, by the clock of the database."""

    __tablename__ = "trainer"
    worker: Mapped[str] = mapped_column(String(200), primary_key=True)
    host: Mapped[str] = mapped_column(String(200))
    kinds: Mapped[str] = mapped_column(String(200))  # of runs, with commas
    state: Mapped[str] = mapped_column(Text)
    seen_at: Mapped[datetime]
    device: Mapped[str] = mapped_column(String(20), default="", server_default=text("''"))  # empty: not known


class AuditRow(Base):
    """Who changed what, when: labels, roles, names, the champion, imports, settings, guidelines, gold, invites …"""

    __tablename__ = "audit"
    id: Mapped[int] = mapped_column(primary_key=True)
    study_id: Mapped[int] = child_of("study", index=True)
    user_id: Mapped[int | None] = child_of("user")  # null: the product itself, or the terminal
    event: Mapped[str] = mapped_column(String(50))
    detail: Mapped[dict[str, Any]]
    at: Mapped[datetime]
