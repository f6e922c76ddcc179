"""What a study has settled with its people: how pairs are handed out, the guidelines, gold pairs, invites, reports.

Plain data like ``copl_core.records``, checked at birth; no torch, no database.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

import numpy as np

from copl_core.records import Choice, CoplError, Role

STRENGTHS = (1, 2, 3)  # slightly better, better, much better


class SelectionReason(StrEnum):
    """Why a task was handed out (``Task.reason``)."""

    INFORMATIVE = "informative"  # the pair that teaches most about this person
    UNIFORM = "uniform"  # drawn by chance
    IMPORTED = "imported"  # the next in the order of the file
    REPEAT = "repeat"  # an earlier pair of the same person, sides swapped
    GOLD = "gold"  # the answer is known; only for attention
    PRACTICE = "practice"  # a gold pair before the real ones, with feedback
    PINNED = "front"  # a researcher pinned it; databases store "front"


CHECK_REASONS = frozenset(
    {SelectionReason.GOLD, SelectionReason.PRACTICE}
)  # answers that are no preference and train nothing
UNBIASED_REASONS = frozenset(
    {SelectionReason.UNIFORM, SelectionReason.IMPORTED}
)  # chosen without the model, so accuracy may be measured on them
ORDERS = (SelectionReason.INFORMATIVE.value, "random", SelectionReason.IMPORTED.value)


@dataclass(frozen=True, slots=True)
class AssignmentSettings:
    """How one study hands out its pairs.

    Raises:
        CoplError: a setting is out of its range, or the shares leave nothing for new pairs.
    """

    overlap: int | None = None  # people who label one pair; None is everybody
    open: bool = True  # anyone with the address may join; otherwise only by invite
    order: str = "informative"  # of new pairs: "informative", "random" or "imported"
    uniform: float = 0.2  # share drawn by chance while the order is "informative"
    repeats: float = 0.1  # share asked a second time, sides swapped
    gold: float = 0.05  # share with a known answer, once the study has gold pairs
    practice: int = 0  # gold pairs with feedback before a newcomer's first real one
    reserve_minutes: float | None = None  # a pair not answered goes back after this; None is the installation's setting
    daily_goal: int | None = None  # labels a day that the room shows as a goal

    def __post_init__(self) -> None:
        if self.order not in ORDERS:
            raise CoplError(f"The order of pairs is {self.order!r}; choose one of {', '.join(ORDERS)}.")
        for name, least in (("overlap", 1), ("daily_goal", 1), ("practice", 0)):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or not least <= value <= 1_000_000):
                raise CoplError(f"{_NAMES[name]} is {value!r}; it is a whole number of {least} or more.")
        if self.reserve_minutes is not None and not 0 < self.reserve_minutes <= 60 * 24 * 30:
            raise CoplError(
                f"A pair would be reserved for {self.reserve_minutes} minutes; give it more than 0 and at most 30 days."
            )
        shares = {name: getattr(self, name) for name in ("uniform", "repeats", "gold")}
        for name, share in shares.items():
            if not 0 <= share <= 1:
                raise CoplError(f"The share of {name} pairs is {share}; a share is a number from 0 to 1.")
        if self.repeats + self.gold >= 1:
            raise CoplError(
                f"Repeats ({self.repeats:.0%}) and gold pairs ({self.gold:.0%}) leave nothing for new "
                "pairs; lower one of them."
            )
        if sum(shares.values()) > 1 + 1e-9:
            raise CoplError(
                f"Pairs by chance ({self.uniform:.0%}), repeats ({self.repeats:.0%}) and gold pairs "
                f"({self.gold:.0%}) are more than 100 %; lower one of them."
            )

    @classmethod
    def of(cls, saved: Mapping[str, object] | None) -> AssignmentSettings:
        """From a saved mapping; a field that this version does not know is left aside."""
        known = {spec.name for spec in fields(cls)}
        return cls(**{name: value for name, value in (saved or {}).items() if name in known})

    def saved(self) -> dict[str, object]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Schedule:
    """When the trainer acts by itself for one study.

    Raises:
        CoplError: a number is out of its range.
    """

    automatic: bool = True  # off: only runs that somebody asks for
    refit_labels: int = 8  # changed labels that make a refit of the graph due
    refit_seconds: float = 15.0  # between the end of a run and the next refit, at least
    reward_labels: int = 40  # changed labels that make a refit of the reward model due
    reward_seconds: float = 120.0  # between two of those, at least

    def __post_init__(self) -> None:
        for name, what in (("refit_labels", "a refit of the graph"), ("reward_labels", "a refit of the reward model")):
            value = getattr(self, name)
            if type(value) is not int or not 1 <= value <= 1_000_000:
                raise CoplError(f"The labels that make {what} due are {value!r}; give a whole number of 1 or more.")
        for name, what in (("refit_seconds", "the graph"), ("reward_seconds", "the reward model")):
            if not 0 <= getattr(self, name) <= 30 * 24 * 3600:
                raise CoplError(
                    f"The wait between two refits of {what} is {getattr(self, name)} seconds; give 0 or "
                    "more, and at most 30 days."
                )

    @classmethod
    def of(cls, saved: Mapping[str, object]) -> Schedule:
        """From a saved mapping; a field that this version does not know is left aside."""
        known = {spec.name for spec in fields(cls)}
        return cls(**{name: value for name, value in saved.items() if name in known})

    def saved(self) -> dict[str, object]:
        return asdict(self)


_NAMES = {
    "overlap": "The number of people per pair",
    "daily_goal": "The daily goal",
    "practice": "The number of practice pairs",
}


@dataclass(frozen=True, slots=True)
class Prediction:
    """What was expected of an answer when its task was handed out, before anything of it was known."""

    left: float  # P(this person prefers the left response), by the model
    crowd: float  # the same by the majority of the others
    snapshot: str


@dataclass(frozen=True, slots=True)
class PredictionRecord:
    """An honest label beside its forecast; one row of prequential accuracy."""

    label_id: int
    at: datetime
    left: bool  # the answer; ties are not foretold
    prediction: Prediction


class LabelSummary(NamedTuple):
    """As much of a label as is needed to place its user and to ask again."""

    pair_id: int
    left_id: int
    right_id: int
    choice: Choice
    strength: int


@dataclass(frozen=True, slots=True)
class AvailablePairs:
    """What one person may be handed at this moment, read at once.  A pair is (id, first, second response id)."""

    settings: AssignmentSettings
    champion: str | None  # of the study
    summaries: list[LabelSummary]  # their preferences that count, oldest first
    pairs: list[tuple[int, int, int]]  # with room and not labelled by them; else the one they put off longest ago
    gold: list[tuple[int, int, int]]  # gold pairs they have neither answered nor skipped
    skipped: frozenset[int]  # pairs they have put off and not answered
    n_practice: int  # practice answers so far
    newcomer: bool  # no label of theirs counts yet, practice aside
    pinned: list[tuple[int, int, int]] = field(
        default_factory=list
    )  # those of all these that researchers pinned, first


@dataclass(frozen=True, slots=True)
class PinnedPair:
    """A pair at the front of the queue."""

    pair_id: int
    by: int | None
    at: datetime
    answered: int  # people who have answered it since


@dataclass(frozen=True, slots=True)
class Draft:
    """The reason somebody is typing, kept until their answer is given."""

    text: str = ""
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Guidelines:
    version: int  # 0 before anything was written
    text: str  # Markdown
    by: int | None = None
    at: datetime | None = None


@dataclass(frozen=True, slots=True)
class GoldPair:
    pair_id: int
    first_id: int
    second_id: int
    preferred_id: int


@dataclass(frozen=True, slots=True)
class Report:
    """A problem that somebody saw in a response."""

    id: int
    user_id: int
    response_id: int
    text: str
    at: datetime
    resolved_at: datetime | None = None
    resolved_by: int | None = None


@dataclass(frozen=True, slots=True)
class Invite:
    """A way in; its secret was shown once and only a hash of it is kept."""

    id: int
    role: Role
    uses: int | None  # people it lets in; None is any number
    used: int
    expires_at: datetime | None
    revoked_at: datetime | None
    by: int | None
    at: datetime

    def state(self, now: datetime) -> str:
        """One of: open, revoked, used up, expired."""
        if self.revoked_at is not None:
            return "revoked"
        if self.uses is not None and self.used >= self.uses:
            return "used up"
        return "expired" if self.expires_at is not None and self.expires_at <= now else "open"


@dataclass(frozen=True, slots=True)
class EmailRule:
    """Who somebody is that signs in with an e-mail address; without a role they are refused."""

    email: str
    role: Role | None
    user_id: int | None  # none before their first sign-in


@dataclass(frozen=True, slots=True)
class AnswerTable:
    """Every counting answer as columns, oldest first: what quality is computed from.  Row i is one label."""

    user: np.ndarray  # (N,) int64, id
    pair: np.ndarray  # (N,) int64, id
    left: np.ndarray  # (N,) int64, response id
    right: np.ndarray  # (N,) int64, response id
    choice: np.ndarray  # (N,) int64, index in ``tuple(Choice)``
    milliseconds: np.ndarray  # (N,) int64, -1 where it was not measured
    selection_reason: np.ndarray  # (N,) int64, index in ``tuple(SelectionReason)``, -1 for a label of a file
    gold: np.ndarray  # (N,) int64, response id of the pair's known answer, -1 without one
    characters: np.ndarray  # (N,) int64, length of both responses together

    def __len__(self) -> int:
        return len(self.user)

    def take(self, rows: np.ndarray) -> AnswerTable:
        """The answers of the given rows (an index or a mask)."""
        return AnswerTable(*(getattr(self, name)[rows] for name in self.__slots__))
