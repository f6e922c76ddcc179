"""The words of the product as plain data: what the store keeps, what the verbs pass, what the models read.

One vocabulary, here, in SQL and on screen: study, user, prompt, response, pair, task, label, label edge, embedding,
expert, gate, snapshot, champion, run.  Ids are integers and travel with their rows; nothing is ever found by position
unless a table says which id stands in which row.  This module imports nothing of the project and no torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

import numpy as np


class CoplError(Exception):
    """A mishap that is told to a person: its text says what was got, what is needed and what to do."""


class StoreUnavailable(CoplError):
    """The database is busy, full or out of reach: nothing was saved, and a later try may succeed."""


class Choice(StrEnum):
    """The answer to a task, told by the side a response was shown on."""

    LEFT = "left"
    RIGHT = "right"
    TIE = "tie"
    BOTH_BAD = "both_bad"


class Kind(StrEnum):
    """Who a user is: a person, or a simulation that must be marked as one wherever it appears."""

    HUMAN = "human"
    SIMULATED = "simulated"


class Role(StrEnum):
    OWNER = "owner"
    RESEARCHER = "researcher"
    ANNOTATOR = "annotator"


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
    revision: int  # grows with every change of a label; a watermark is a value of it
    demo: bool


@dataclass(frozen=True, slots=True)
class User:
    id: int
    name: str
    kind: Kind
    role: Role
    true_group: str | None = None  # of a simulated user: the group it was made in; training never reads it
    excluded: bool = False  # from training, reversibly


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
    """A pair handed to a user, with the side each response was shown on."""

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
    strength: float  # 1, 2 or 3; of answers that nobody stores, what is usual
    reason: str
    milliseconds: int | None
    created_at: datetime
    tags: tuple[str, ...] = ()
    guidelines: int | None = None  # version of the guidelines it was made under
    selection_reason: str | None = None  # why its task was handed out; None: the label came in a file
    counts: bool = True  # off once taken back or superseded
    successor_id: int | None = None  # the label that superseded this one
    edited_at: datetime | None = None  # when it superseded an earlier one

    @property
    def preferred_id(self) -> int | None:
        return {Choice.LEFT: self.left_id, Choice.RIGHT: self.right_id}.get(self.choice)


@dataclass(frozen=True, slots=True)
class ImportRow:
    """One line of a file of pairs or labels; ``annotator`` and ``choice`` are absent in a pair to be labelled."""

    line: int
    prompt: str
    response_a: str
    response_b: str
    choice: Choice | None = None  # LEFT means response_a
    annotator: str | None = None
    source_a: str | None = None
    source_b: str | None = None
    key: str = ""  # identity of the label: the same key is the same label, however often it is imported
    kind: Kind = Kind.HUMAN
    true_group: str | None = None
    created_at: datetime | None = None
    strength: int = 1
    reason: str = ""
    milliseconds: int | None = None
    tags: tuple[str, ...] = ()
    group: str | None = None  # of the person, where evaluation compares groups
    split: str | None = None  # "test" of a row that evaluation asks
    excluded: bool = False  # the person's labels train nothing


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What an import did.  ``problems`` are (line, reason); good lines are kept whatever the bad ones say."""

    labels_new: int = 0
    labels_known: int = 0
    pairs_new: int = 0
    users_new: int = 0
    problems: tuple[tuple[int, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Comparisons:
    """Labels as columns, one row a label; users and responses are named by row in a ``TrainingData``.

    ``outcome`` is 1 where the left response was preferred, 0 where the right one was, 0.5 for a tie.
    """

    user: np.ndarray  # (N,) int64
    left: np.ndarray  # (N,) int64
    right: np.ndarray  # (N,) int64
    outcome: np.ndarray  # (N,) float32
    both_bad: np.ndarray  # (N,) bool
    strength: np.ndarray  # (N,) float32, 1 where nothing was said

    def __len__(self) -> int:
        return len(self.user)

    def take(self, rows: np.ndarray) -> Comparisons:
        """The labels of the given rows (an index or a mask)."""
        return Comparisons(*(getattr(self, name)[rows] for name in self.__slots__))

    def joined(self, other: Comparisons) -> Comparisons:
        """These labels and then those of ``other``."""
        return Comparisons(*(np.concatenate([getattr(self, name), getattr(other, name)]) for name in self.__slots__))

    @property
    def decided(self) -> np.ndarray:
        """Mask (N,) of labels that prefer one side."""
        return self.outcome != 0.5

    @classmethod
    def build(cls, user, left, right, outcome, both_bad=None, strength=None) -> Comparisons:
        """From any sequences; missing columns take their neutral value."""
        n = len(user)
        return cls(
            user=np.asarray(user, np.int64),
            left=np.asarray(left, np.int64),
            right=np.asarray(right, np.int64),
            outcome=np.asarray(outcome, np.float32),
            both_bad=np.zeros(n, bool) if both_bad is None else np.asarray(both_bad, bool),
            strength=np.ones(n, np.float32) if strength is None else np.asarray(strength, np.float32),
        )


@dataclass(frozen=True, slots=True)
class TrainingData:
    """Everything a fit reads, cut at one watermark.  Row i of the users is ``user_ids[i]``; likewise responses."""

    user_ids: np.ndarray  # (U,) int64
    response_ids: np.ndarray  # (R,) int64
    response_prompt: np.ndarray  # (R,) int64, row in ``prompts``
    prompts: tuple[str, ...]
    responses: tuple[str, ...]  # (R,) texts
    labels: Comparisons
    watermark: int = 0

    @property
    def n_users(self) -> int:
        return len(self.user_ids)

    @property
    def n_responses(self) -> int:
        return len(self.response_ids)

    def with_labels(self, labels: Comparisons) -> TrainingData:
        """The same users and texts with other labels (a split)."""
        return TrainingData(
            self.user_ids, self.response_ids, self.response_prompt, self.prompts, self.responses, labels, self.watermark
        )

    def texts(self) -> Iterator[tuple[str, str]]:
        """(prompt, response) of every response, in row order."""
        for prompt, response in zip(self.response_prompt, self.responses, strict=True):
            yield self.prompts[prompt], response


@dataclass(frozen=True, slots=True)
class Run:
    """One training job and how far it is."""

    id: int
    kind: str  # "graph" | "full"
    state: RunState
    reason: str  # why it was asked for
    phase: str
    step: int
    steps: int
    loss: float | None
    seconds_left: float | None
    snapshot: str | None
    message: str  # the reason of a failure, in a sentence
    retry_of: int | None
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    config: dict = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SnapshotRecord:
    version: str
    run_id: int | None
    watermark: int
    n_labels: int
    metrics: dict
    created_at: datetime
    note: str = ""  # what people wrote about it


@dataclass(frozen=True, slots=True)
class Progress:
    """Where one annotator stands: labels that count (practice aside), pairs left for them, labels made today."""

    done: int
    left: int
    today: int
    skipped: int = 0  # of the pairs left, those they have put off


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """A line of the trail of changes."""

    user_id: int | None  # who; None is the product itself
    event: str  # what changed: "undo", "edit", "role", "champion", "import", "room", "guidelines", "gold", "invite" …
    detail: dict
    at: datetime
