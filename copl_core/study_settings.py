"""Settings of a study: how pairs are handed out, guidelines, gold pairs, invites, e-mail addresses, reports.

Plain data like ``copl_core.records``, validated when it is created; no torch, no database.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import date, datetime
from enum import StrEnum
from typing import Any, NamedTuple

import numpy as np

from copl_core.records import Choice, CoplError, Role

STRENGTHS = (1, 2, 3)  # slightly better, better, much better


class SelectionReason(StrEnum):
    """Why a task was handed out (``Task.reason``)."""

    INFORMATIVE = "informative"  # the pair from which the model learns most about this user
    UNIFORM = "uniform"  # drawn at random
    IMPORTED = "imported"  # the next one in the order of the file
    REPEAT = "repeat"  # an earlier pair of the same user, sides swapped
    GOLD = "gold"  # the answer is known; an attention check
    PRACTICE = "practice"  # a gold pair with feedback, before the first new pair
    PINNED = "front"  # a researcher pinned it; databases store "front"


# Answers to these are checks: they are no preferences, and nothing is trained on them.
CHECK_REASONS = frozenset({SelectionReason.GOLD, SelectionReason.PRACTICE})
# The model has no part in choosing these pairs, so accuracy may be measured on them.
UNBIASED_REASONS = frozenset({SelectionReason.UNIFORM, SelectionReason.IMPORTED})
ORDERS = (SelectionReason.INFORMATIVE.value, "random", SelectionReason.IMPORTED.value)
TEXT_FORMATS = ("markdown", "plain", "formulas")
# Which accounts are left out until somebody decides: those on evidence, those and every new one, or none.
QUARANTINE_EVIDENCE, QUARANTINE_NEW, QUARANTINE_OFF = QUARANTINES = ("evidence", "new", "off")


MOST_PICTURE_HOSTS = 10
LEAST_EPSILON, MOST_EPSILON, MOST_TOTAL = 0.01, 10.0, 100.0  # of shared counts
_HOST = re.compile(r"(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z][a-z0-9-]{0,61}[a-z0-9](?::[1-9]\d{0,4})?")


@dataclass(frozen=True, slots=True)
class AssignmentSettings:
    """How one study hands out its pairs, and how it sets their texts.

    Raises:
        CoplError: a setting is out of range, or the shares leave nothing for new pairs.
    """

    overlap: int | None = None  # users who label one pair; None: everybody
    open: bool = True  # anyone with the address may join; otherwise an invite is needed
    order: str = "informative"  # of new pairs: "informative", "random" or "imported"
    uniform: float = 0.2  # share drawn at random while the order is "informative"
    repeats: float = 0.1  # share shown a second time, sides swapped
    gold: float = 0.05  # share with a known answer, once the study has gold pairs
    practice: int = 0  # gold pairs with feedback before a user's first new pair
    reserve_minutes: float | None = None  # how long a task stays reserved; None: as the installation is set
    daily_goal: int | None = None  # labels per day, shown while labelling
    text_format: str = "markdown"  # how prompts and responses are set: "markdown", "plain" or "formulas"
    quarantine: str = QUARANTINE_EVIDENCE  # whose labels wait for a decision of an owner
    # Hosts whose pictures texts show, by HTTPS: each learns who reads, and when.  Other pictures are links.
    picture_hosts: tuple[str, ...] = ()
    shared_epsilon: float = 0.0  # noise of the counts that everybody sees, by its ε for a day; 0: nobody sees any
    shared_total: float = 10.0  # ε of one person over all days, after which their answers are counted no more
    shared_since: str = ""  # the first day that is counted, such as 2026-11-30

    def __post_init__(self) -> None:
        object.__setattr__(self, "picture_hosts", _hosts(self.picture_hosts))
        if self.order not in ORDERS:
            raise CoplError(f"The order of pairs is {self.order!r}; choose one of {', '.join(ORDERS)}.")
        if self.text_format not in TEXT_FORMATS:
            raise CoplError(f"The format of texts is {self.text_format!r}; choose one of {', '.join(TEXT_FORMATS)}.")
        if self.quarantine not in QUARANTINES:
            raise CoplError(f"The quarantine is {self.quarantine!r}; choose one of {', '.join(QUARANTINES)}.")
        _check_shared(self.shared_epsilon, self.shared_total, self.shared_since)
        for name, least in (("overlap", 1), ("daily_goal", 1), ("practice", 0)):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or not least <= value <= 1_000_000):
                raise CoplError(f"{_NAMES[name]} is {value!r}; give a whole number of {least} or more.")
        if self.reserve_minutes is not None and not 0 < self.reserve_minutes <= 60 * 24 * 30:
            raise CoplError(
                f"A pair would be reserved for {self.reserve_minutes} minutes; give more than 0 minutes "
                "and at most 30 days."
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
                f"Random pairs ({self.uniform:.0%}), repeats ({self.repeats:.0%}) and gold pairs "
                f"({self.gold:.0%}) are more than 100%; lower one of them."
            )

    @classmethod
    def of(cls, saved: Mapping[str, Any] | None) -> AssignmentSettings:
        """From a saved mapping; unknown fields are ignored."""
        known = {spec.name for spec in fields(cls)}
        return cls(**{name: value for name, value in (saved or {}).items() if name in known})

    def saved(self) -> dict[str, Any]:
        return asdict(self)


def _check_shared(epsilon: float, total: float, since: str) -> None:
    """
    Raises:
        CoplError: a setting of shared counts is out of range.
    """
    if epsilon != 0 and not LEAST_EPSILON <= epsilon <= MOST_EPSILON:
        raise CoplError(
            f"The ε of a day of shared counts is {epsilon!r}; give a number from {LEAST_EPSILON:g} to "
            f"{MOST_EPSILON:g}, or 0 to share none."
        )
    if not max(epsilon, LEAST_EPSILON) <= total <= MOST_TOTAL:
        raise CoplError(
            f"The ε of a person in shared counts is {total!r} in all; give at least that of a day ({epsilon:g}), and "
            f"{MOST_TOTAL:g} at most."
        )
    try:
        if since:
            date.fromisoformat(since)
    except (TypeError, ValueError):
        raise CoplError(f"Counts would be shared since {since!r}; give a day such as 2026-11-30.") from None


def _hosts(names: Iterable[str]) -> tuple[str, ...]:
    """Names of hosts in small letters, each once.

    Raises:
        CoplError: one is no such name, or there are too many.
    """
    hosts = tuple(sorted({str(name).strip().lower() for name in names}))
    for host in hosts:
        if len(host) > 253 or not _HOST.fullmatch(host):
            raise CoplError(
                f"Pictures would be shown of {host[:80]!r}; give names of hosts such as pictures.example.org or "
                "pictures.example.org:8443, without https:// and without a path."
            )
    if len(hosts) > MOST_PICTURE_HOSTS:
        raise CoplError(f"Pictures would be shown of {len(hosts)} hosts; name {MOST_PICTURE_HOSTS} at most.")
    return hosts


@dataclass(frozen=True, slots=True)
class Schedule:
    """When the trainer starts runs of a study automatically.

    Raises:
        CoplError: a number is out of range.
    """

    automatic: bool = True  # false: only runs that a user requests
    refit_labels: int = 8  # label changes that make a refit of the graph due
    refit_seconds: float = 15.0  # shortest time from the end of a run to the next refit
    reward_labels: int = 40  # label changes that make a refit of the reward model due
    reward_seconds: float = 120.0  # shortest time between two of those

    def __post_init__(self) -> None:
        for name, what in (("refit_labels", "a refit of the graph"), ("reward_labels", "a refit of the reward model")):
            value = getattr(self, name)
            if type(value) is not int or not 1 <= value <= 1_000_000:
                raise CoplError(
                    f"The number of labels that makes {what} due is {value!r}; give a whole number of 1 or more."
                )
        for name, what in (("refit_seconds", "the graph"), ("reward_seconds", "the reward model")):
            if not 0 <= getattr(self, name) <= 30 * 24 * 3600:
                raise CoplError(
                    f"The time between two refits of {what} is {getattr(self, name)} seconds; give 0 seconds or "
                    "more, and at most 30 days."
                )

    @classmethod
    def of(cls, saved: Mapping[str, Any]) -> Schedule:
        """From a saved mapping; unknown fields are ignored."""
        known = {spec.name for spec in fields(cls)}
        return cls(**{name: value for name, value in saved.items() if name in known})

    def saved(self) -> dict[str, Any]:
        return asdict(self)


_NAMES = {
    "overlap": "The number of people per pair",
    "daily_goal": "The daily goal",
    "practice": "The number of practice pairs",
}


@dataclass(frozen=True, slots=True)
class Prediction:
    """What an answer was expected to be, recorded as its task was handed out: before there was an answer."""

    left: float  # P(this user prefers the left response), by the model
    crowd: float  # the same, by the votes of the other users
    snapshot: str


@dataclass(frozen=True, slots=True)
class PredictionRecord:
    """A label on a pair chosen without the model, with its prediction: one row of prequential accuracy."""

    label_id: int
    at: datetime
    left: bool  # whether the user preferred the left response; ties have no record
    prediction: Prediction


class LabelSummary(NamedTuple):
    """The part of a label that is needed to compute its user's vector and to repeat its pair."""

    pair_id: int
    left_id: int
    right_id: int
    choice: Choice
    strength: int
    position_known: bool = True


@dataclass(frozen=True, slots=True)
class AvailablePairs:
    """What one user may be handed now, read in one transaction.  A pair is (id, first, second response id)."""

    settings: AssignmentSettings
    champion: str | None  # of the study
    summaries: list[LabelSummary]  # the user's counting preferences, oldest first
    # Pairs with a free slot that the user has neither labelled nor skipped; if there are none, the one skipped first.
    pairs: list[tuple[int, int, int]]
    gold: list[tuple[int, int, int]]  # gold pairs that the user has neither answered nor skipped
    skipped: frozenset[int]  # pairs that the user has skipped and not answered
    n_practice: int  # practice answers so far
    newcomer: bool  # the user has no counting label yet, except practice
    pinned: list[tuple[int, int, int]] = field(default_factory=list)  # pinned, last one first


@dataclass(frozen=True, slots=True)
class PinnedPair:
    """A pair that a researcher pinned: it is the next task of every user who has not answered it."""

    pair_id: int
    by: int | None
    at: datetime
    answered: int  # users who have answered it since


@dataclass(frozen=True, slots=True)
class WithdrawnPair:
    """A pair that an owner withdrew: nobody is handed it, and its labels stay."""

    pair_id: int
    at: datetime


@dataclass(frozen=True, slots=True)
class Draft:
    """The reason and tags a user is writing, kept until the answer is given."""

    text: str = ""
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Guidelines:
    version: int  # 0: nothing is written yet
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
    """A problem with a response, as a user reported it."""

    id: int
    user_id: int
    response_id: int
    text: str
    at: datetime
    resolved_at: datetime | None = None
    resolved_by: int | None = None


@dataclass(frozen=True, slots=True)
class Invite:
    """An invite link; its secret is shown once, and only a hash is kept."""

    id: int
    role: Role
    uses: int | None  # how many users may join with it; None: any number
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
class SharedDay:
    """Counts of one day as everybody sees them: with noise, so they may be below zero."""

    day: date
    epsilon: float
    answers: int
    by_source: Mapping[str, tuple[int, int]]  # source → answers that prefer its response, and that prefer the other


@dataclass(frozen=True, slots=True)
class DayOfAnswers:
    """What is counted of a day; no page shows it."""

    day: date
    answers: list[tuple[int, int, int]]  # (user, preferred response, other one), 0 for a tie; of each user in order
    spent: Mapping[int, float]  # user → ε of the days before that are released and on which they answered


SMALLEST_GROUP = 5  # people, below which a group's rewards tell about each of them


class ServiceRole(StrEnum):
    """What a program may ask of the reward server."""

    GROUPS = "groups"  # rewards of texts for groups of ``SMALLEST_GROUP`` people or more
    REWARDS = "rewards"  # rewards of texts for users and groups
    PEOPLE = "people"  # and the embeddings of users


MOST_PER_MINUTE = 1_000_000


@dataclass(frozen=True, slots=True)
class ServiceToken:
    """A token of a program; its secret is shown once, and only a hash is kept."""

    id: int
    study_id: int
    name: str
    role: ServiceRole
    per_minute: int  # requests
    by: int | None  # the user who made it; None: the terminal
    at: datetime
    revoked_at: datetime | None


@dataclass(frozen=True, slots=True)
class EmailRule:
    """The role of an e-mail address at sign-in; without a role the address is refused."""

    email: str
    role: Role | None
    user_id: int | None  # None before the first sign-in


@dataclass(frozen=True, slots=True)
class AnswerTable:
    """Every counting answer as columns, oldest first, one row per label: quality is computed from it."""

    user: np.ndarray  # (N,) int64, id
    pair: np.ndarray  # (N,) int64, id
    left: np.ndarray  # (N,) int64, response id
    right: np.ndarray  # (N,) int64, response id
    choice: np.ndarray  # (N,) int64, index in ``tuple(Choice)``
    milliseconds: np.ndarray  # (N,) int64, -1 where not measured
    selection_reason: np.ndarray  # (N,) int64, index in ``tuple(SelectionReason)``, -1 for an imported label
    gold: np.ndarray  # (N,) int64, response id of the pair's known answer, -1 without one
    characters: np.ndarray  # (N,) int64, total length of both responses
    position_known: np.ndarray  # (N,) bool, whether the left response is known to have been shown on the left
    strength: np.ndarray  # (N,) int64, 1 to 3; 1 where the user gave none

    def __len__(self) -> int:
        return len(self.user)

    def take(self, rows: np.ndarray) -> AnswerTable:
        """The answers of the given rows (row numbers or a mask)."""
        return AnswerTable(*(getattr(self, name)[rows] for name in self.__slots__))
