"""Fits whose training data is known: half of the labels, or half of the people, drawn by ids.

*Targets* are fitted as the trainer fits and attacked.  *Shadows* teach the attacker what a fit that knows a label or a
person looks like; one member of the ensemble each is enough for that, and four times as cheap.

Labels are drawn by person and pair, so that a repeated answer is in with the first one or out with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from copl_core.preference.config import GraphConfig
from copl_core.preference.state import GraphState
from copl_core.records import Comparisons, CoplError, TrainingData, counted_people
from copl_core.training.graph_fit import fit_graph
from copl_core.training.split import draws, uniform

SHADOWS, TARGETS = 12, 2
FEWEST_LABELS, FEWEST_PEOPLE = 60, 8  # of a study, below which half of it is no study
MOST_PEOPLE = 400  # of a larger study some are drawn, and all fits are of them alone
_SALT = 4001  # of the draws; targets and shadows of labels and of people take separate numbers after it
Report = Callable[[int, int], object]


@dataclass(frozen=True, slots=True)
class World:
    """What is audited: decided labels of people who have some, with φ of the responses."""

    data: TrainingData
    phi: np.ndarray  # (R, P)
    config: GraphConfig
    seed: int = 0

    @property
    def labels(self) -> Comparisons:
        return self.data.labels


@dataclass(frozen=True, slots=True)
class Fit:
    """One fit, and what it was given."""

    state: GraphState
    known: np.ndarray  # (N,) bool, of the world's labels
    is_target: bool
    number: int


def world_of(data: TrainingData, phi: np.ndarray, config: GraphConfig | None = None, seed: int = 0) -> World:
    """The world of a study's labels; ties, which show no preference, are left out, as are most people of a large study.

    Raises:
        CoplError: too few labels or people for halves of them to say anything.
    """
    labels = data.labels.take(np.flatnonzero(data.labels.decided))
    people = np.unique(labels.user)
    if len(people) > MOST_PEOPLE:
        people = np.sort(np.random.default_rng(seed).choice(people, MOST_PEOPLE, replace=False))
        labels = labels.take(np.flatnonzero(np.isin(labels.user, people)))
    if len(labels) < FEWEST_LABELS or len(people) < FEWEST_PEOPLE:
        raise CoplError(
            f"The study has {len(labels)} labels with a preference, by {counted_people(len(people))}; an audit needs "
            f"{FEWEST_LABELS} by {FEWEST_PEOPLE}: label some more pairs first."
        )
    return World(_only(data, labels, people), phi, config or GraphConfig(), seed)


def _only(data: TrainingData, labels: Comparisons, people: np.ndarray) -> TrainingData:
    """The data with the rows of these people alone."""
    columns = {name: getattr(labels, name) for name in labels.__slots__}
    columns["user"] = np.searchsorted(people, labels.user)
    return TrainingData(
        data.user_ids[people],
        data.response_ids,
        data.response_prompt,
        data.prompts,
        data.responses,
        Comparisons(**columns),
        data.watermark,
    )


def fits(world: World, unit: str, n_shadows: int, n_targets: int, report: Report | None = None) -> Iterator[Fit]:
    """Shadows, then targets, one at a time.

    Args:
        unit: "label" or "person", of which each fit knows half.
        report: called with (fits done, fits in all).
    """
    total = n_shadows + n_targets
    one = world.config.with_settings(members=1)
    for number in range(total):
        if report is not None:
            report(number, total)
        known, is_target = half(world, unit, number), number >= n_shadows
        data = world.data.with_labels(world.labels.take(np.flatnonzero(known)))
        config, seed = (world.config, world.seed + number) if is_target else (one, world.seed + number)
        yield Fit(fit_graph(data, world.phi, config, seed=seed), known, is_target, number)


def half(world: World, unit: str, number: int) -> np.ndarray:
    """Mask (N,) of the labels that fit ``number`` learns: of each pair of a person, or of each person, a coin decides.

    A draw that leaves nothing or everything is drawn again.
    """
    ids, labels = world.data, world.labels
    users = ids.user_ids[labels.user]
    for again in range(100):
        salt = _SALT + 2 * number + (unit == "person") + 100_000 * again + 1_000_000 * world.seed
        if unit == "person":
            known = uniform(np.full(len(users), salt), users) < 0.5
        else:
            known = (
                draws("pair", users, ids.response_ids[labels.left], ids.response_ids[labels.right], salt)[:, 0] < 0.5
            )
        if known.any() and not known.all():
            return known
    raise CoplError("The labels cannot be divided into halves; more people or more pairs are needed.")
