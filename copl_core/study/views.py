"""What the verbs of a study return to a page or a terminal: plain tables that say which snapshot they came from."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import numpy as np

from copl_core.insight.quality import Agreement, Figures, Share
from copl_core.insight.taste import Leaning
from copl_core.records import Choice, Label, Response, Run, Task, User
from copl_core.study_settings import PredictionRecord


@dataclass(frozen=True, slots=True)
class Feedback:
    """What was known about a practice pair."""

    right: bool  # the known answer was given
    preferred_id: int  # the response that is known to be better


@dataclass(frozen=True, slots=True)
class Receipt:
    """What came of a submit: the label that was stored, or None where the task was stale and nothing changed."""

    label: Label | None
    next_task: Task | None
    feedback: Feedback | None = None  # after a practice pair


@dataclass(frozen=True, slots=True)
class UserPosition:
    """Where a user stands now, without training.

    ``source`` is "trained" (a row of the snapshot, no labels since), "neighbours" (placed by people who answered
    alike) or "population mean" (nobody shares a labelled response yet).
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


@dataclass(frozen=True, slots=True)
class Near:
    """How the people nearest to one, by their answers, are expected to judge the same responses."""

    n: int
    win: np.ndarray  # (T,) mean win probability among them, weighted by how likely one is to be like them
    best: np.ndarray  # (T,) weight of those whose favourite it is, sums to 1


@dataclass(frozen=True, slots=True)
class ScoreRow:
    """How one person, or one group, is expected to judge the responses."""

    name: str
    kind: str  # "person" | "simulated person" | "group"
    group: int | None
    n: int  # people behind the row
    source: str  # "trained" | "neighbours" | "population mean" | "mean of the group"
    reward: np.ndarray  # (T,) log-odds scale, mean zero over the responses
    win: np.ndarray  # (T,) probability to be the preferred one of all shown, sums to 1
    low: np.ndarray  # (T,) of a person: 2.5 % of what their labels leave open; of a group: 5 % of its people
    high: np.ndarray  # (T,) 97.5 % and 95 % of the same
    graph: np.ndarray  # (T,) share of ``reward`` that the graph gave; with ``text`` it is the whole
    text: np.ndarray  # (T,) share of ``reward`` that the text reward gave
    gates: np.ndarray | None  # (M,) gate weights; None without a reward model
    near: Near | None  # None for a group, and for a person nobody shares a response with

    @property
    def best(self) -> int:
        """The response that is expected to be preferred."""
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
    def margins(self) -> tuple[float, float]:
        """Log-odds of the best response over the second, by the graph and by the text reward."""
        first, second = self.ranking[:2]
        return float(self.graph[first] - self.graph[second]), float(self.text[first] - self.text[second])


@dataclass(frozen=True, slots=True)
class RewardView:
    rows: tuple[ScoreRow, ...]
    basis: str  # which parts spoke, in a sentence
    known: bool  # all responses are labelled ones of the study
    snapshot: str

    @property
    def groups(self) -> tuple[ScoreRow, ...]:
        return tuple(row for row in self.rows if row.kind == "group")

    @property
    def people(self) -> tuple[ScoreRow, ...]:
        return tuple(row for row in self.rows if row.kind != "group")

    @property
    def worst_off(self) -> np.ndarray | None:
        """(T,) win probability of each response in the group that likes it least; None without groups.

        The response where it is largest pleases the worst-off group most.
        """
        return np.min([row.win for row in self.groups], 0) if self.groups else None


@dataclass(frozen=True, slots=True)
class TrainerStatus:
    """The worker's sign of life and the job in hand."""

    alive: bool
    state: str
    seen_at: datetime | None
    run: Run | None
    waiting: int
    labels_since: int  # changes of labels after the champion's watermark
    labels_needed: int


@dataclass(frozen=True, slots=True)
class PersonQuality:
    """One person's figures; ``figures.flags`` are sentences, and disagreeing with others is none of them."""

    user: User
    figures: Figures
    skill: float | None  # 0 to 1; None: too few labels, or not asked for


@dataclass(frozen=True, slots=True)
class QualityView:
    agreement: Agreement  # of those who are not excluded
    people: tuple[PersonQuality, ...]  # with an answer, by id
    n_answers: int
    revision: int  # of the study when it was read


@dataclass(frozen=True, slots=True)
class Prequential:
    """Forecasts made before the answers they are about, on pairs chosen without the model."""

    model: Share  # foretold right
    crowd: Share  # the same labels by the majority of the others
    apart: Share  # of the labels that one of the two foresaw and the other did not, those of the model
    snapshots: tuple[str, ...]  # that made the forecasts, oldest first
    rows: tuple[PredictionRecord, ...]  # oldest first


@dataclass(frozen=True, slots=True)
class UserProfile:
    """What a person may know of themselves."""

    n_labels: int  # preferences that count
    n_decided: int  # of these, that prefer one response
    n_prompts: int  # behind the decided ones
    place: UserPosition | None  # none before the first snapshot
    leanings: tuple[Leaning, ...]  # at most five, those of the labels first; empty while nothing is certain
    n_pairs: int  # of the study, from which typical differences and the model's beliefs are read
    consistent: Share  # of pairs answered again, answered as the time before
    snapshot: str | None
    problem: str  # why the snapshot could not be read; empty where it could


@dataclass(frozen=True, slots=True)
class Evidence:
    """A decided label beside a feature."""

    label: Label
    prompt: str
    preferred: Response
    rejected: Response
    ahead: float  # of the feature, preferred − rejected, in typical differences


@dataclass(frozen=True, slots=True)
class PastAnswer:
    """An answer that counts, with its texts and the answers that it superseded, newest first."""

    label: Label
    prompt: str
    left: Response
    right: Response
    before: tuple[Label, ...]


CHOICE_WORDS = {Choice.LEFT: "left", Choice.RIGHT: "right", Choice.TIE: "tie", Choice.BOTH_BAD: "both bad"}
