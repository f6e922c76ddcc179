"""The words of the product as plain data: what the store keeps, what the verbs pass, what the models read.

One vocabulary for code, SQL and screen: study, user, prompt, response, pair, task, label, label edge, embedding,
expert, gate, snapshot, champion, run.  Ids are integers and travel with their rows: position means something only in a
table that lists the id of each row.  This module imports nothing of the project and no torch.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

if TYPE_CHECKING:
    from copl_core.tags import Tags

MOST_REASONS = 20  # why lines of a file are left out: so many are kept, the others are counted
BROKEN = "the file ends early or is damaged here; the lines before it were read"
_PARTS = ("answers ", "an annotation")  # how reasons begin that concern a part of a line
LARGEST = 2**31 - 1  # whole number that every database can store: an integer column of PostgreSQL
LONGEST_TEXT = 500_000  # characters of a prompt, a response or a reason


def counted(n: int, what: str, many: str = "") -> str:
    """A number with its word: 1 line, 2 lines; ``many`` where that is no "s" at the end: 1 person, 2 people."""
    return f"{n:,} {what if n == 1 else many or what + 's'}"


def counted_people(n: int) -> str:
    return counted(n, "person", "people")


class CoplError(Exception):
    """An error for a person to read: its text says what was got, what is needed and what to do."""

    where = ""  # the file or address of the database it is about: for terminal, logs and doctor, never for a screen

    @property
    def in_full(self) -> str:
        return f"{self} (The database: {self.where})" if self.where else str(self)


class StoreUnavailable(CoplError):
    """The database is busy, full or unreachable: nothing was saved, and a later try may succeed."""


class LinkExpired(CoplError):
    """The time of a sign-in link is over: it signs nobody in, and its person can have another."""


class NotMigrated(CoplError):
    """A database on a server has tables of an older version, which stay as they are until ``copl migrate``."""


class RankLost(CoplError):
    """Another process of a fit has ended or does not answer; the fit resumes from its last saved state."""


class LeaseLost(CoplError):
    """Another trainer has taken a run over: the one that had it writes nothing more of it."""

    @classmethod
    def of(cls, run_id: int) -> LeaseLost:
        return cls(
            f"Run {run_id} was taken over by another trainer, since this one did not renew its lease in time; "
            "nothing more of it is written here."
        )


class SnapshotAway(CoplError):
    """A snapshot that is not on this machine: it is being fetched, or cannot be fetched at present."""

    def __init__(self, message: str, *, failed: bool = False) -> None:
        super().__init__(message)
        self.failed = failed


class NotInStudy(CoplError):
    """A person or group that a study does not have."""


class Choice(StrEnum):
    """The answer to a task, named by the side on which a response was shown."""

    LEFT = "left"
    RIGHT = "right"
    TIE = "tie"
    BOTH_BAD = "both_bad"


class Kind(StrEnum):
    """Whether a user is a person, a simulation, or a language model that judges; every screen marks the last two."""

    HUMAN = "human"
    SIMULATED = "simulated"
    MODEL = "model"

    @property
    def mark(self) -> str:
        """What a screen writes beside the name of such a user; empty for a person."""
        return {"simulated": "simulated", "model": "language model"}.get(self.value, "")

    @property
    def noun(self) -> str:
        """What such a user is."""
        return {"human": "person", "simulated": "simulated person", "model": "language model"}[self.value]


LEFT = "left"  # the stored kind of a user who has left: a row without name and labels, which no list shows


class Role(StrEnum):
    OWNER = "owner"
    RESEARCHER = "researcher"
    ANNOTATOR = "annotator"


RUN_KINDS = ("graph", "full")  # of runs that train
WRITE = "write"  # the kind of run in which a language model writes answers for a page
OFFERED_KINDS = (*RUN_KINDS, WRITE)  # of runs; a trainer offers some of them or all


class Right(StrEnum):
    """What a process may do while others that share its database may not, or wait."""

    FILL = "fill"  # a study that no list shows yet
    FIRST = "first"  # make the first study of a database
    IMPORT = "import"  # rows into any study


class RunState(StrEnum):
    """Life of a training job: queued → running → done | failed | cancelled | interrupted (then queued again)."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    INTERRUPTED = "interrupted"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class StudyRecord:
    id: int
    name: str
    include_simulated: bool
    champion: str | None  # snapshot version that pages use
    revision: int  # increases with every label change; a watermark is one of its values
    demo: bool
    include_models: bool = False  # whether training learns from language models too
    forgotten: int = 0  # the revision when a user last left: snapshots of earlier labels know them; 0: nobody has left
    created_at: datetime | None = None


class Deletion(StrEnum):
    """What is to be done yet of the deletion of a study."""

    ROWS = "rows"
    FILES = "files"
    DONE = "done"  # nothing


@dataclass(frozen=True, slots=True)
class DeletedStudy:
    """What stays of a study that an owner deleted: one line."""

    id: int
    name: str
    labels: int  # that it had
    users: int
    at: datetime
    in_app: bool  # deleted by an owner in the app, and not in a terminal
    state: Deletion
    created_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class BrowserSession:
    """A browser in which somebody is signed in."""

    studies: tuple[StudyRecord, ...]  # that it may open, oldest first
    last: int | None  # id of the study that it opened last
    terminal: bool  # begun with a link of the terminal: it opens every study, as its owner
    identity: Identity | None = None  # of the account at an identity provider with which it began


@dataclass(frozen=True, slots=True)
class Activity:
    """How much a user does, for the owners of their study."""

    n_labels: int  # that count
    seen_at: (
        datetime | None
    )  # the last visit in a browser that is signed in, to the hour; None: there is no such browser


@dataclass(frozen=True, slots=True)
class SignedInBrowser:
    """A browser in which a user is signed in, as a list shows it to them."""

    id: int
    name: str  # such as "Firefox on Linux"; empty where it is not known
    since: datetime
    seen_at: datetime  # the last visit, at most an hour too early
    here: bool  # whether it is the browser that asks


@dataclass(frozen=True, slots=True)
class Identity:
    """An account at an identity provider.  Issuer and subject name it for ever; an address may change hands."""

    issuer: str
    subject: str
    address: str | None = None  # that the provider has verified, in small letters
    name: str = ""  # as the provider gives it


@dataclass(frozen=True, slots=True)
class User:
    id: int
    name: str
    kind: Kind
    role: Role
    true_group: str | None = None  # of a simulated user: the group it was made in; training never reads it
    excluded: bool = False  # from training; reversible
    quarantined: bool = False  # left out of training and votes until an owner decides, or the account has shown itself

    @property
    def trained(self) -> bool:
        """Whether training and votes count this user's labels, if they count those of its kind."""
        return not (self.excluded or self.quarantined)


@dataclass(frozen=True, slots=True)
class Ground:
    """Why an account is quarantined."""

    kind: str  # "repeats" | "gold" | "fast" | "new"
    sentence: str  # with its numbers; it accuses nobody


@dataclass(frozen=True, slots=True)
class Quarantine:
    """An account that was quarantined, and what became of it."""

    user: User
    grounds: tuple[Ground, ...]
    since: datetime
    labels: int  # that would count for training
    # "counted" | "left out" by an owner, "shown" by repeats of a new account, "promoted" to owner; empty: nothing yet
    decided: str = ""
    decided_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Response:
    id: int
    prompt_id: int
    text: str
    source: str | None = None


@dataclass(frozen=True, slots=True)
class Pair:
    id: int
    prompt_id: int
    prompt: str
    first: Response
    second: Response


@dataclass(frozen=True, slots=True)
class Task:
    """A pair handed out to a user, with the side on which each response is shown."""

    id: int
    user_id: int
    pair_id: int
    prompt: str
    left: Response
    right: Response
    reason: str  # why this pair: a value of ``copl_core.study_settings.SelectionReason``


@dataclass(frozen=True, slots=True)
class Label:
    id: int
    task_id: int | None
    user_id: int
    pair_id: int
    prompt_id: int
    left_id: int
    right_id: int
    choice: Choice
    strength: float  # 1, 2 or 3; a typical value in a hypothetical label, which nobody stores
    reason: str
    milliseconds: int | None
    created_at: datetime
    tags: tuple[str, ...] = ()
    guidelines: int | None = None  # version of the guidelines that the user read
    selection_reason: str | None = None  # why its task was handed out; None: the label came in a file
    counts: bool = True  # false once undone or superseded
    successor_id: int | None = None  # the label that superseded this one
    edited_at: datetime | None = None  # when it superseded an earlier label
    position_known: bool = True  # false: nobody knows which response was shown on the left, and the order is drawn
    confirmed_at: datetime | None = None  # when its user answered that it is right

    @property
    def preferred_id(self) -> int | None:
        return {Choice.LEFT: self.left_id, Choice.RIGHT: self.right_id}.get(self.choice)

    @property
    def order(self) -> tuple[int, datetime, int]:
        """Sorts the labels of a user that count in the order given, whatever the clock shows; imported ones first."""
        return self.task_id or 0, self.created_at, self.id


@dataclass(frozen=True, slots=True)
class ImportRow:
    """One line of a file of pairs or labels; a pair without a label has neither ``annotator`` nor ``choice``."""

    line: int
    prompt: str
    response_a: str
    response_b: str
    choice: Choice | None = None  # LEFT means response_a
    annotator: str | None = None
    source_a: str | None = None
    source_b: str | None = None
    key: str = ""  # identity of the label: a key is imported once, however often its file is
    kind: Kind = Kind.HUMAN
    true_group: str | None = None
    created_at: datetime | None = None
    strength: int = 1
    strength_known: bool = True  # false: the file says none, and the label counts like "slightly better"
    reason: str = ""
    milliseconds: int | None = None
    tags: tuple[str, ...] = ()
    group: str | None = None  # of the user; evaluation compares groups
    split: str | None = None  # "test": a test label of evaluation
    excluded: bool = False  # from training: this user's labels
    position_known: bool = False  # true: response_a was shown on the left; false: the order of the two means nothing
    meta: Mapping[str, Any] | None = None  # what else the file has about the row: its own ids, its split, its topic …

    def in_shown_order(self) -> ImportRow:
        """The row with the response on the left first.

        Where the position is unknown, the order is drawn by the label's key, whichever order the file has: a file may
        write the preferred response first, and nothing may learn that the left one always wins.
        """
        if self.choice is None or self.position_known:
            return self
        identity = self.key or "\0".join(map(str, (self.prompt, self.annotator, self.line)))
        first_in_order = self.response_a <= self.response_b
        drawn = sha256(identity.encode("utf-8", "surrogatepass")).digest()[0] % 2 == 0
        return self if first_in_order == drawn else self._swapped()

    def _swapped(self) -> ImportRow:
        opposite = {Choice.LEFT: Choice.RIGHT, Choice.RIGHT: Choice.LEFT}
        return replace(
            self,
            response_a=self.response_b,
            response_b=self.response_a,
            source_a=self.source_b,
            source_b=self.source_a,
            choice=self.choice and opposite.get(self.choice, self.choice),
        )


@dataclass(slots=True)
class LeftOut:
    """What of a file is not taken, in the memory of twenty reasons however many there are.

    Lines are counted once if all reasons of a line come one after the other, as readers give them.

    Attributes:
        first: the first twenty (line, reason) by line.
        n: reasons.
        whole: lines of which nothing is taken.
        part: lines of which something is taken.
        broken: whether the file ends early or is damaged.
    """

    first: list[tuple[int, str]] = field(default_factory=list)
    n: int = 0
    whole: int = 0
    part: int = 0
    broken: bool = False
    _last: tuple[int, bool] | None = field(default=None, compare=False, repr=False)  # (line, whether it is whole)

    def append(self, problem: tuple[int, str]) -> None:
        """Take one more (line, reason)."""
        number, reason = problem
        self.n += 1
        if len(self.first) < MOST_REASONS or number < self.first[-1][0]:
            insort(self.first, problem, key=_line_of)
            del self.first[MOST_REASONS:]
        if reason.startswith(BROKEN):
            self.broken = True
            return
        whole = not reason.startswith(_PARTS)
        again = self._last is not None and self._last[0] == number
        if again and self._last == (number, False) and whole:
            self.part -= 1
        elif again:
            return
        self.whole, self.part = self.whole + whole, self.part + (not whole)
        self._last = (number, whole)

    def __add__(self, later: LeftOut) -> LeftOut:
        """Both, of the same file.  A line in part here and whole there counts as whole where both reasons are kept."""
        parts = {number for number, reason in self.first if reason.startswith(_PARTS)}
        twice = len(parts & {number for number, _ in later.first})
        return LeftOut(
            [*self.first, *later.first][:MOST_REASONS],
            self.n + later.n,
            self.whole + later.whole,
            self.part + later.part - twice,
            self.broken or later.broken,
        )


def _line_of(problem: tuple[int, str]) -> int:
    return problem[0]


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What an import did; the lines that are not left out are imported."""

    labels_new: int = 0
    labels_known: int = 0
    pairs_new: int = 0
    users_new: int = 0
    models_new: int = 0  # of the new users: language models
    positions_unknown: int = 0  # new labels whose row does not say which response was shown on the left
    left_out: LeftOut = field(default_factory=LeftOut)

    @property
    def problems(self) -> tuple[tuple[int, str], ...]:
        """The first (line, reason) of those left out."""
        return tuple(self.left_out.first)


@dataclass(frozen=True, slots=True)
class Comparisons:
    """Labels as columns, one row per label; users and responses are row numbers of a ``TrainingData``.

    ``outcome`` is 1 where the left response was preferred, 0 where the right one was, 0.5 for a tie.  Where the
    position on screen is unknown, left and right are names only, and no position bias applies.
    """

    user: np.ndarray  # (N,) int64
    left: np.ndarray  # (N,) int64
    right: np.ndarray  # (N,) int64
    outcome: np.ndarray  # (N,) float32
    both_bad: np.ndarray  # (N,) bool
    strength: np.ndarray  # (N,) float32, 1 to 3; 1 where the user gave none
    position_known: np.ndarray  # (N,) bool, whether the left response is known to have been shown on the left

    def __len__(self) -> int:
        return len(self.user)

    def take(self, rows: np.ndarray) -> Comparisons:
        """The labels of the given rows (row numbers or a mask)."""
        return Comparisons(*(getattr(self, name)[rows] for name in self.__slots__))

    def joined(self, other: Comparisons) -> Comparisons:
        """These labels, followed by those of ``other``."""
        return Comparisons(*(np.concatenate([getattr(self, name), getattr(other, name)]) for name in self.__slots__))

    @property
    def decided(self) -> np.ndarray:
        """Mask (N,) of labels that prefer one side."""
        return self.outcome != 0.5

    @classmethod
    def build(
        cls,
        user: ArrayLike,
        left: ArrayLike,
        right: ArrayLike,
        outcome: ArrayLike,
        both_bad: ArrayLike | None = None,
        strength: ArrayLike | None = None,
        position_known: ArrayLike | None = None,
    ) -> Comparisons:
        """From any sequences; missing columns take a neutral value."""
        n = len(np.asarray(user))
        return cls(
            user=np.asarray(user, np.int64),
            left=np.asarray(left, np.int64),
            right=np.asarray(right, np.int64),
            outcome=np.asarray(outcome, np.float32),
            both_bad=np.zeros(n, bool) if both_bad is None else np.asarray(both_bad, bool),
            strength=np.ones(n, np.float32) if strength is None else np.asarray(strength, np.float32),
            position_known=np.ones(n, bool) if position_known is None else np.asarray(position_known, bool),
        )


@dataclass(frozen=True, slots=True)
class TrainingData:
    """Everything a fit reads, as of one watermark.  Row i of the users is ``user_ids[i]``; likewise for responses."""

    user_ids: np.ndarray  # (U,) int64
    response_ids: np.ndarray  # (R,) int64
    response_prompt: np.ndarray  # (R,) int64, index in ``prompts``
    prompts: tuple[str, ...]
    responses: tuple[str, ...]  # (R,) texts
    labels: Comparisons
    watermark: int = 0
    tags: Tags | None = None  # of the reasons of the labels, where any has one

    @property
    def n_users(self) -> int:
        return len(self.user_ids)

    @property
    def n_responses(self) -> int:
        return len(self.response_ids)

    def with_labels(self, labels: Comparisons) -> TrainingData:
        """The same users and texts with other labels, which have no tags."""
        return replace(self, labels=labels, tags=None)

    def take(self, rows: np.ndarray) -> TrainingData:
        """The same users and texts with some of the labels (row numbers or a mask) and their tags."""
        return replace(self, labels=self.labels.take(rows), tags=None if self.tags is None else self.tags.take(rows))

    def texts(self) -> Iterator[tuple[str, str]]:
        """(prompt, response) of every response, in row order."""
        for prompt, response in zip(self.response_prompt, self.responses, strict=True):
            yield self.prompts[prompt], response


@dataclass(frozen=True, slots=True)
class Run:
    """One training job and its progress."""

    id: int
    kind: str  # "graph" | "full"
    state: RunState
    reason: str  # why it was requested
    phase: str
    step: int
    steps: int
    loss: float | None
    seconds_left: float | None
    snapshot: str | None
    message: str  # why it failed, in one sentence
    retry_of: int | None
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    config: dict = field(default_factory=dict)
    worker: str | None = None  # the trainer that claimed it
    token: int = 0  # of its claim, larger than that of every earlier claim in the study


@dataclass(frozen=True, slots=True)
class WriteRun:
    """Answers that a trainer writes for somebody's page."""

    id: int
    study_id: int
    user_id: int  # who requested them
    request: dict  # what ``trainer.writing`` reads
    state: RunState
    message: str  # why it failed, in one sentence
    pieces: list[list[str]]  # of each answer so far
    token: int  # of its claim


@dataclass(frozen=True, slots=True)
class TrainerRecord:
    """A trainer and its last sign of life."""

    worker: str  # its own name, which no other trainer has
    host: str
    kinds: tuple[str, ...]  # of the runs that it executes
    state: str  # what it does, in words
    seen_at: datetime
    silent_seconds: float  # since then, by the clock of the database
    device: str = ""  # where it computes: cpu, cuda, cuda:1, mps; empty: not known

    @property
    def in_words(self) -> str:
        """Its name and what it offers."""
        return f"{self.worker} ({', '.join(self.kinds)}{f'; {self.device}' if self.device else ''})"


@dataclass(frozen=True, slots=True)
class SnapshotRecord:
    version: str
    run_id: int | None
    watermark: int
    n_labels: int
    metrics: dict
    created_at: datetime
    note: str = ""  # written by users
    manifest: str | None = None  # SHA-256 of its manifest.json; None: not known


@dataclass(frozen=True, slots=True)
class Progress:
    """Progress of one annotator: counting labels without practice, pairs left, labels made today (UTC)."""

    done: int
    left: int
    today: int
    skipped: int = 0  # of the pairs left, those the annotator skipped


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One entry of the audit trail."""

    user_id: int | None  # who; None: the product itself, or the terminal
    event: str  # what changed: "undo", "edit", "role", "champion", "import", "room", "guidelines", "gold", "invite" …
    detail: dict
    at: datetime


@dataclass(frozen=True, slots=True)
class DatabaseFacts:
    """What a database says of itself."""

    kind: str  # SQLite or PostgreSQL, with its version
    schema: str | None  # the newest migration applied; None: no tables yet
    newest_schema: str  # that this program knows; versions are ordered as text
    damage: str | None  # what is wrong with its pages, empty where they are whole; None: a server, which checks them
    now: datetime | None  # by the clock of a server; None: it has no clock of its own
    newest_label: datetime | None  # the latest time of the last thousand labels
    unfinished: bool  # whether it holds rows of an import that runs or was killed


@dataclass(frozen=True, slots=True)
class Departure:
    """What went with a user who left, in one transaction."""

    user_id: int
    study_id: int
    revision: int  # of the study, after it
    gone: dict[str, int]  # rows deleted or changed, by name: "labels", "reasons", "drafts", "tasks" …
    run_id: int | None  # the run that learns without them; None: nothing had learned from them, or too little is left
    kind: str | None  # of that run
    champion: str | None  # the snapshot that the study had before
