"""An audit: what a study's model tells about its people, as figures with intervals beside chance.

Fits whose training data is known (``shadows``) are attacked (``attacks``) by what somebody sees of them (``observers``,
``small_groups``).  Graphs alone are fitted: experts take minutes a fit.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from copl_core.evaluation import observers, shared_counts, small_groups
from copl_core.evaluation.attacks import Figure, auc, figure, likelihood_ratio, summed
from copl_core.evaluation.attributes import inferred
from copl_core.evaluation.observers import CUTOFFS, KNOBS
from copl_core.evaluation.shadows import SHADOWS, TARGETS, Fit, World, fits
from copl_core.preference.state import GraphState
from copl_core.records import CoplError
from copl_core.training.graph_fit import fit_graph
from copl_core.training.metrics import correct, interval

Report = Callable[[str, int, int], object]  # (what is done, steps done, steps in all)
FEWEST_SHADOWS = 4
LEAST = 5  # people of the groups whose rewards stand for a model that answers for groups only
READS = "reads it, no attack is needed"


@dataclass(frozen=True, slots=True)
class Row:
    """One figure.  ``accuracy`` is what the same answers are good for: of labels that the fit has not seen."""

    part: str  # "label", "person", "knob", "group", "difference", "counts", "answer", "attribute", "reward"
    observer: str
    attack: str
    figure: Figure
    accuracy: tuple[float, float, float] | None = None  # with its 95 % interval over people
    baseline: float | None = None  # the accuracy of doing nothing, or of the most frequent value

    def facts(self) -> dict:
        """As JSON values, rounded."""
        found = {name: round(value, 4) for name, value in asdict(self.figure).items()}
        row = {"part": self.part, "observer": self.observer, "attack": self.attack, **found}
        if self.accuracy is not None:
            row |= {"accuracy": [round(value, 4) for value in self.accuracy]}
        if self.baseline is not None:
            row |= {"baseline": round(self.baseline, 4)}
        return {name: value for name, value in row.items() if value == value}  # JSON has no NaN


@dataclass(frozen=True, slots=True)
class Audit:
    """All figures of one audit."""

    rows: tuple[Row, ...]
    n_labels: int
    n_people: int
    n_responses: int
    shadows: int
    targets: int
    seed: int

    def of(self, part: str) -> list[Row]:
        return [row for row in self.rows if row.part == part]

    def facts(self) -> dict:
        """As JSON values."""
        about = {name: getattr(self, name) for name in self.__slots__ if name != "rows"}
        return about | {"rows": [row.facts() for row in self.rows]}


def audit(
    world: World,
    *,
    shadows: int = SHADOWS,
    targets: int = TARGETS,
    serving: GraphState | None = None,
    attributes: Mapping[str, Sequence[str | None]] | None = None,
    more: Callable[[], Sequence[Row]] | None = None,
    report: Report | None = None,
) -> Audit:
    """Attack fits to a study's labels.

    Args:
        serving: a graph of all of these labels, whose people are the rows of the world; None: it is fitted.
        attributes: of each person of the world, by name; None where it is unknown.
        more: further figures, such as those of a reward model.
        report: called as the audit goes on.

    Raises:
        CoplError: fewer shadows than ``FEWEST_SHADOWS``, or no target.
    """
    if shadows < FEWEST_SHADOWS or targets < 1:
        raise CoplError(
            f"An audit of {targets} fits with {shadows} shadows is too small to tell anything; at least 1 and "
            f"{FEWEST_SHADOWS} are needed."
        )
    report = report or (lambda what, done, total: None)
    by_label = _Seen(world)
    for fit in fits(world, "label", shadows, targets, lambda *at: report("fits to half of the labels", *at)):
        by_label.add(fit)
    by_person = _People(world)
    for fit in fits(world, "person", shadows, targets, lambda *at: report("fits to half of the people", *at)):
        by_person.add(fit)
    report("the graph that serves", 0, 1)
    state = serving or fit_graph(world.data, world.phi, world.config, seed=world.seed)
    rows = [*by_label.rows(), *by_person.rows(), *by_label.knobs(), *by_label.groups(), *_differences(world, state)]
    outcome, user = world.labels.outcome > 0.5, world.labels.user
    for observer, attack, guess in shared_counts.guesses(outcome, world.seed):
        rows.append(Row("counts", observer, attack, figure(guess, outcome, user, world.seed)))
    for name, values in (attributes or {}).items():
        rows += _attribute(world, state, name, values)
    if more is not None:
        report("the reward model", 0, 1)
        rows += more()
    report("done", 1, 1)
    return Audit(
        tuple(rows),
        len(world.labels),
        len(np.unique(world.labels.user)),
        world.data.n_responses,
        shadows,
        targets,
        world.seed,
    )


class _Runs:
    """Statistics (N,) of each label by name, of all fits, and which fit knew which unit."""

    def __init__(self, world: World) -> None:
        self.world, self.labels = world, world.labels
        self.values: dict[tuple, list[np.ndarray]] = defaultdict(list)
        self.known: list[np.ndarray] = []
        self.is_target: list[bool] = []

    @property
    def masks(self) -> tuple[np.ndarray, np.ndarray]:
        """Fits that are shadows and fits that are targets."""
        target = np.array(self.is_target)
        return ~target, target

    def scored(self, name: tuple, ratio: bool, known: np.ndarray | None = None) -> np.ndarray:
        """Scores (T, N) of the targets: a statistic as it is, or the likelihood ratio that shadows teach."""
        values, (shadow, target) = np.array(self.values[name]), self.masks
        known = np.array(self.known) if known is None else known
        return likelihood_ratio(values[target], values[shadow], known[shadow]) if ratio else values[target]

    def figure(self, scores: np.ndarray, known: np.ndarray | None = None, person: np.ndarray | None = None) -> Figure:
        person = self.labels.user if person is None else person
        known = np.array(self.known)[self.masks[1]] if known is None else known
        return figure(scores.ravel(), known.ravel(), np.tile(person, len(scores)), self.world.seed)

    def best_cutoff(self, knob: str) -> float:
        """The cutoff with which decoding tells most about the shadows, on which the attacker may try."""
        shadow, _ = self.masks
        known = np.array(self.known)[shadow]

        def reached(cutoff: float) -> float:
            values = np.array(self.values[knob, cutoff])[shadow]
            return float(np.mean([auc(one, mask) for one, mask in zip(values, known, strict=True)]))

        return max(CUTOFFS, key=reached)


class _Seen(_Runs):
    """What fits to half of the labels show."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.sizes = small_groups.sizes_for(world.data.n_users)
        self.inside: list[np.ndarray] = []  # (U,) of each fit: whose group has them in it

    def add(self, fit: Fit) -> None:
        state, labels = fit.state, self.labels
        rng = np.random.default_rng([self.world.seed, 7, fit.number])
        self.known.append(fit.known)
        self.is_target.append(fit.is_target)
        for knob in KNOBS:
            self._look(knob.name, observers.seen(state, knob, state.labels, rng))
        self.values["everybody",].append(observers.by_everybody(state, labels))
        near = small_groups.nearest(state)
        inside = rng.random(len(near)) < 0.5
        self.inside.append(inside)
        for size in self.sizes:
            vectors = small_groups.in_groups_of(state, near, size)
            self._look(_groups_of(size), observers.rewards(state, vectors))
            self.values["group", size].append(small_groups.group_margins(state, near, size, inside, labels))

    def _look(self, name: str, table: np.ndarray) -> None:
        """Statistics of every label by rewards (U, R)."""
        self.values[name, "margin"].append(observers.difference(table, self.labels))
        for cutoff in CUTOFFS:
            flat = observers.decoded(table, self.world.data.response_prompt, cutoff)
            self.values[name, cutoff].append(observers.difference(flat, self.labels))

    # ---- rows

    def rows(self) -> list[Row]:
        """Was this label in training; and which answer was given."""
        plain, cutoff = KNOBS[0].name, self.best_cutoff(KNOBS[0].name)
        known = np.array(self.known)[self.masks[1]]
        one, all_ = "rewards of a person, one question", "rewards or embeddings of all people"
        rows = [Row("label", "folder of a snapshot", READS, self.figure(known.astype(float)))]
        for observer, name in (
            (one, (plain, "margin")),
            (all_, (plain, cutoff)),
            ("everybody's reward", ("everybody",)),
        ):
            for ratio, attack in ((False, "loss"), (True, "likelihood ratio")):
                rows.append(Row("label", observer, attack, self.figure(self.scored(name, ratio))))
        return rows + self._answers((plain, "margin"), (plain, cutoff), ("everybody",))

    def _answers(self, own: tuple, decoded: tuple, everybody: tuple) -> list[Row]:
        """Which of two answers somebody preferred: of labels that were learned, beside those that were not."""
        outcome, known = self.labels.outcome > 0.5, np.array(self.known)[self.masks[1]]
        rows = []
        for observer, name in (
            ("rewards of a person, one question", own),
            ("rewards or embeddings of all people", decoded),
            ("everybody's reward", everybody),
        ):
            ahead = np.where(outcome, 1, -1) * self.scored(name, ratio=False)  # of left
            for what, mask in (("labels it has learned", known), ("labels it has not seen", ~known)):
                person = np.tile(self.labels.user, len(known))[mask.ravel()]
                one = figure(ahead[mask], np.tile(outcome, (len(known), 1))[mask], person, self.world.seed)
                rows.append(Row("answer", observer, what, one))
        return rows

    def knobs(self) -> list[Row]:
        """The best attack on labels behind each knob, and the accuracy that is left."""
        baseline = self._accuracy((KNOBS[0].name, "margin"))[0]
        names = [*(knob.name for knob in KNOBS), *(_groups_of(size) for size in self.sizes if size >= LEAST)]
        rows = [self._behind(name, baseline) for name in names]
        one = self.figure(self.scored(("everybody",), ratio=True))
        without = Row("knob", "everybody's reward", "one question", one, self._accuracy(("everybody",)), baseline)
        return [*rows, without]

    def _behind(self, name: str, baseline: float) -> Row:
        found = {
            "one question": self.figure(self.scored((name, "margin"), ratio=True)),
            "decoded": self.figure(self.scored((name, self.best_cutoff(name)), ratio=True)),
        }
        attack = max(found, key=lambda one: found[one].auc)
        return Row("knob", name, attack, found[attack], self._accuracy((name, "margin")), baseline)

    def _accuracy(self, name: tuple) -> tuple[float, float, float]:
        """Accuracy on labels that the targets have not seen, with its interval."""
        _, target = self.masks
        unseen = ~np.array(self.known)[target]
        hits = correct(np.array(self.values[name])[target], np.ones(len(self.labels)))[unseen]
        person = np.tile(self.labels.user, len(unseen))[unseen.ravel()]
        return float(hits.mean()), *interval(hits, person, self.world.seed)

    def groups(self) -> list[Row]:
        """Was this person in this group: by one of their labels, by ten, by all."""
        inside, user = np.array(self.inside), self.labels.user
        people = np.arange(inside.shape[1])
        rows = []
        for size in self.sizes:
            ratio = self.scored(("group", size), ratio=True, known=inside[:, user])
            for queries, words in (
                (1, "one question"),
                (small_groups.QUERIES, "ten questions"),
                (0, "all their pairs"),
            ):
                some = _first(user, queries) if queries else np.ones(len(user), bool)
                scores = summed(ratio * some, user, inside.shape[1])
                known = inside[self.masks[1]]
                rows.append(Row("group", _groups_of(size), words, self.figure(scores, known, people)))
        return rows


class _People(_Runs):
    """What fits to half of the people show."""

    def add(self, fit: Fit) -> None:
        self.known.append(fit.known)
        self.is_target.append(fit.is_target)
        self.values["everybody",].append(observers.by_everybody(fit.state, self.labels))
        self.values["placed",].append(observers.placed(fit.state, self.labels))

    def rows(self) -> list[Row]:
        """Was this person in training, by somebody who knows all of their answers."""
        n, (_, target) = self.world.data.n_users, self.masks
        first = np.unique(self.labels.user, return_index=True)[1]  # a person is known with any of their labels
        known, people = np.array(self.known)[target][:, first], np.arange(n)
        rows = [Row("person", "folder of a snapshot", READS, self.figure(known.astype(float), known, people))]
        for name, observer in (("everybody", "everybody's reward"), ("placed", "vectors of responses, no people")):
            for ratio, attack in ((False, "loss"), (True, "likelihood ratio")):
                scores = summed(self.scored((name,), ratio), self.labels.user, n)
                if not ratio:
                    scores = scores / np.bincount(self.labels.user, minlength=n)
                rows.append(Row("person", observer, attack, self.figure(scores, known, people)))
        return rows


def _attribute(world: World, state: GraphState, name: str, values: Sequence[str | None]) -> list[Row]:
    """What embeddings tell of an attribute: as they are, and placed again by DP-SGD."""
    rows = []
    for knob in (KNOBS[0], *(knob for knob in KNOBS if knob.descent)):
        rng = np.random.default_rng([world.seed, 13])
        vectors = observers.vectors_of(state, knob, world.labels, rng)
        found = inferred(replace(state, user_vectors=vectors), values, world.seed)
        if found is not None:
            seen = "embeddings of people" if knob is KNOBS[0] else f"embeddings, {knob.name}"
            rows.append(Row("attribute", seen, name, *found))
    return rows


def _differences(world: World, state: GraphState) -> list[Row]:
    """Who preferred what, from shares of a group of people drawn at random, with and without a person."""
    labels, order = world.labels, small_groups.at_random(world.data.n_users, world.seed)
    outcome, rows = labels.outcome > 0.5, []
    for size in small_groups.sizes_for(world.data.n_users):
        with_them, without = small_groups.shares(state, order, size, labels)
        guesses = {"share of the others": without, "share with them": with_them}
        for words, step in small_groups.SHARE_STEPS:
            guesses[f"difference of shares {words}"] = small_groups.by_difference(with_them, without, size, step)
        for attack, guess in guesses.items():
            rows.append(Row("difference", _groups_of(size), attack, figure(guess, outcome, labels.user, world.seed)))
    return rows


def _groups_of(size: int) -> str:
    return f"groups of {size}"


def _first(user: np.ndarray, count: int) -> np.ndarray:
    """Mask (N,) of the first labels of each person."""
    order = np.argsort(user, kind="stable")
    starts = np.concatenate([[0], np.flatnonzero(np.diff(user[order])) + 1])
    position = np.arange(len(user)) - np.repeat(starts, np.diff(np.append(starts, len(user))))
    kept = np.zeros(len(user), bool)
    kept[order] = position < count
    return kept
