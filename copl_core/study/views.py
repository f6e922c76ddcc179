"""What the verbs of a study return to a page or a terminal: plain tables that name the snapshot they come from."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import numpy as np

from copl_core.insight.collusion import Alike
from copl_core.insight.groups import FEWEST_PEOPLE
from copl_core.insight.quality import Agreement, Figures, Share
from copl_core.insight.taste import Leaning
from copl_core.records import Choice, Label, Response, Run, Task, TrainerRecord, User
from copl_core.study_settings import QUARANTINE_EVIDENCE, QUARANTINE_NEW, QUARANTINE_OFF, PredictionRecord


@dataclass(frozen=True, slots=True)
class Feedback:
    """The known answer of a practice pair."""

    right: bool  # the user gave the known answer
    preferred_id: int  # the response that is known to be better


@dataclass(frozen=True, slots=True)
class Receipt:
    """The result of a submit: the stored label, or None where the task was stale and nothing changed."""

    label: Label | None
    next_task: Task | None
    feedback: Feedback | None = None  # after a practice pair


PEOPLE_FOR_GROUPS = FEWEST_PEOPLE
LIKELY_FROM = 0.5  # probability of a group, below which no page names it as the nearest
CLEAR_FROM = 0.6  # a user who answers at random seldom reaches it (``insight.membership``)


@dataclass(frozen=True, slots=True)
class UserPosition:
    """A user's embedding and position on the map by their present labels, without training.

    ``source`` is "trained" (a row of the snapshot, and no change of labels since), "neighbours" (an average of users
    who answered alike) or "population mean" (no other user has labelled one of the same responses).
    """

    user_id: int
    vector: np.ndarray  # (d,)
    source: str
    n_labels: int
    n_neighbours: int
    neighbours: tuple[tuple[int, float], ...]  # (user id, weight), heaviest first
    spread: float
    xy: tuple[float, float] | None
    group: int | None
    group_share: float  # weight of that group among the neighbours
    snapshot: str
    group_probability: float = 0.0  # that the user is of that group, by their labels, and not of another or of none
    n_groups: int = 0  # of the snapshot; with a single one, a probability says nothing

    @property
    def clear(self) -> bool:
        """Whether the labels say clearly that the user is of the group."""
        return self.group_probability >= CLEAR_FROM

    @property
    def likely(self) -> bool:
        """Whether the group is more likely than all others together, so that it may be named as the nearest."""
        return self.group_probability >= LIKELY_FROM


@dataclass(frozen=True, slots=True)
class NeighbourScores:
    """How the users most similar to one are predicted to answer about the same responses."""

    n: int
    win: np.ndarray  # (T,) mean win probability among them, weighted by similarity
    best: np.ndarray  # (T,) weight of those who prefer this response to all others, sums to 1


@dataclass(frozen=True, slots=True)
class ScoreRow:
    """The predicted answers of one user, or one group, about the responses."""

    name: str
    kind: str  # "person" | "simulated person" | "language model" | "group"
    group: int | None
    source: str  # "trained" | "neighbours" | "population mean" | "mean of the group"
    reward: np.ndarray  # (T,) log-odds scale, mean zero over the responses
    win: np.ndarray  # (T,) probability to be preferred among all responses shown, sums to 1
    low: np.ndarray  # (T,) for a user the 2.5 % quantile of the posterior; for a group the 5 % quantile of its users
    high: np.ndarray  # (T,) the 97.5 % and 95 % quantiles of the same
    graph: np.ndarray  # (T,) part of ``reward`` from the graph; ``graph`` and ``text`` add up to it
    text: np.ndarray  # (T,) part of ``reward`` from the text reward
    gates: np.ndarray | None  # (M,) gate weights; None where no expert has a say
    neighbours: NeighbourScores | None  # None for a group, and for a user without neighbours
    size: int = 1  # users that the row stands for; of a large group, a sample of them is scored
    experts: np.ndarray | None = None  # (T,) part of ``text`` from the experts; the rest is from own text weights
    # The best response, first, and those that may be preferred as much; empty: not computed
    favourites: tuple[int, ...] = ()

    @property
    def even(self) -> bool:
        """Whether no response is preferred with certainty."""
        return len(self.favourites) > 1

    @property
    def best(self) -> int:
        """The response most likely to be preferred."""
        return int(self.win.argmax())

    @property
    def ranking(self) -> tuple[int, ...]:
        return tuple(np.argsort(-self.win, kind="stable").tolist())

    @property
    def expert(self) -> int | None:
        return None if self.gates is None or not len(self.gates) else int(self.gates.argmax())

    @property
    def gate(self) -> float | None:
        return None if self.gates is None or not len(self.gates) else float(self.gates.max())

    @property
    def margins(self) -> tuple[float, float, float]:
        """Log-odds of the best response over the second, by the graph, by own text weights and by the experts."""
        first, second = self.ranking[:2]
        experts = np.zeros_like(self.text) if self.experts is None else self.experts
        parts = (self.graph, self.text - experts, experts)
        return tuple(float(part[first] - part[second]) for part in parts)  # type: ignore[return-value]


@dataclass(frozen=True, slots=True)
class GroupsOwn:
    """What it is worth to give each group its own response: shares of users who get the one they prefer."""

    best: int  # the response that pleases most users where everybody gets the same one
    for_all: float  # the share that it pleases
    for_groups: float  # the share where each group gets its favourite


@dataclass(frozen=True, slots=True)
class RewardView:
    rows: tuple[ScoreRow, ...]
    basis: str  # which parts of the model gave the rewards, in a sentence
    known: bool  # every response has labels in the snapshot
    snapshot: str
    silent: str = ""  # why no expert has a say, in a sentence; empty where experts have one
    serving: str = ""  # which experts serve a person, in words; empty where none has a say
    sees_prompt: bool = False  # whether the gate weights are those about this prompt

    @property
    def groups(self) -> tuple[ScoreRow, ...]:
        return tuple(row for row in self.rows if row.kind == "group")

    @property
    def people(self) -> tuple[ScoreRow, ...]:
        return tuple(row for row in self.rows if row.kind != "group")

    @property
    def worst_off(self) -> np.ndarray | None:
        """(T,) win probability of each response in the group that likes it least; None without groups.

        The response with the largest value is the fairest choice (maximin).
        """
        return np.min([row.win for row in self.groups], 0) if self.groups else None

    @property
    def pleased(self) -> np.ndarray | None:
        """(T,) expected share of the groups' users who prefer each response; None without groups."""
        if not self.groups:
            return None
        return np.average([row.win for row in self.groups], 0, weights=[row.size for row in self.groups])

    @property
    def groups_own(self) -> GroupsOwn | None:
        """One response for all against one for each group; None with fewer than two groups."""
        pleased = self.pleased
        if pleased is None or len(self.groups) < 2:
            return None
        own = np.average([row.win.max() for row in self.groups], weights=[row.size for row in self.groups])
        return GroupsOwn(int(pleased.argmax()), float(pleased.max()), float(own))


@dataclass(frozen=True, slots=True)
class TrainerStatus:
    """The trainers of the installation and the current runs of the study."""

    alive: bool
    state: str
    seen_at: datetime | None
    runs: tuple[Run, ...]  # that are executed at the moment, oldest first: at most one of each kind
    waiting: int  # queued runs
    labels_since: int  # changes of labels after the newest snapshot's watermark
    labels_needed: int
    trainers: tuple[TrainerRecord, ...] = ()  # that are alive, the latest sign of life first
    unserved: tuple[Run, ...] = ()  # queued, and no trainer that is alive executes their kind
    given_up: str = ""  # why the launcher of this home does not start the trainer again, where none is alive

    @property
    def run(self) -> Run | None:
        """The oldest of the current runs."""
        return self.runs[0] if self.runs else None


def day_and_time(moment: datetime) -> str:
    """A moment as screens write it, in the time zone of this machine: 3 Nov 2026, 12:05."""
    at = moment.astimezone()
    return f"{at.day} {at:%b %Y, %H:%M}"


@dataclass(frozen=True, slots=True)
class PersonQuality:
    """One user's figures; ``figures.flags`` are sentences, and disagreement with others never raises one."""

    user: User
    figures: Figures
    skill: float | None  # 0 to 1; None: too few labels, or not requested


@dataclass(frozen=True, slots=True)
class AlikePerson:
    """Somebody whose answers follow those of others more exactly than people follow their own."""

    user: User
    figures: Alike
    others: tuple[User, ...]  # such people too, whose answers are most like theirs, the most alike first

    @property
    def accounts(self) -> frozenset[int]:
        return frozenset((self.user.id, *(other.id for other in self.others)))


@dataclass(frozen=True, slots=True)
class AcceptedAlike:
    """Accounts that an owner has accepted as alike."""

    users: tuple[User, ...]  # by name; without those who have left
    accounts: frozenset[int]  # ids of all


@dataclass(frozen=True, slots=True)
class QualityView:
    agreement: Agreement  # of users who are not excluded
    people: tuple[PersonQuality, ...]  # those with an answer, by id; of a large study, some of them
    n_users: int  # with an answer
    n_answers: int  # of all of these
    drawn: int | None  # people drawn at random from a study too large to be read whole; None: all are there
    revision: int  # of the study at the time of reading


@dataclass(frozen=True, slots=True)
class Prequential:
    """Predictions stored before the answers they are about, on pairs chosen without the model."""

    model: Share  # predicted correctly
    crowd: Share  # the same labels, predicted by the majority of the others
    apart: Share  # of the labels that exactly one of the two predicted, those of the model
    snapshots: tuple[str, ...]  # that made the predictions, oldest first
    rows: tuple[PredictionRecord, ...]  # oldest first


@dataclass(frozen=True, slots=True)
class UserProfile:
    """What users see about themselves."""

    n_labels: int  # preferences that count
    n_decided: int  # of these, those that prefer one response
    n_prompts: int  # behind the decided ones
    position: UserPosition | None  # None before the first snapshot
    leanings: tuple[Leaning, ...]  # at most five, those from the labels first; empty while nothing is certain
    n_pairs: int  # of the study, from which typical differences and the model's predictions are computed
    consistent: Share  # of repeated pairs, those answered the same
    snapshot: str | None
    problem: str  # why the snapshot is unreadable; empty where it is readable


@dataclass(frozen=True, slots=True)
class Evidence:
    """A decided label and one feature of its texts."""

    label: Label
    prompt: str
    preferred: Response
    rejected: Response
    ahead: float  # value of the feature, preferred − rejected, in typical differences


@dataclass(frozen=True, slots=True)
class PastAnswer:
    """An answer that counts, with its texts, the answers it superseded, newest first, and the ones that the person gave
    when the same pair was shown at other times, oldest first."""

    label: Label
    prompt: str
    left: Response
    right: Response
    superseded: tuple[Label, ...]
    other_times: tuple[Label, ...] = ()

    @property
    def again(self) -> bool:
        """Whether the person had answered this pair before."""
        return any(one.order < self.label.order for one in self.other_times)


CHOICE_WORDS = {Choice.LEFT: "A", Choice.RIGHT: "B", Choice.TIE: "tie", Choice.BOTH_BAD: "both bad"}
QUARANTINE_WORDS = {
    QUARANTINE_EVIDENCE: "people with failed checks",
    QUARANTINE_NEW: "people with failed checks and newcomers",
    QUARANTINE_OFF: "nobody",
}
