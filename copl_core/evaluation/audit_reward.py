"""The audit of a reward model that a snapshot holds: labels that it has learned against those that it held out.

A fit of the reward model holds out about a tenth of the labels, drawn by ids, so its training data is known without
another fit, which takes minutes.  There are no shadows, and the attack is the plain one: how much the reward prefers
what somebody preferred.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from copl_core.evaluation.attacks import figure
from copl_core.evaluation.audit import Row
from copl_core.evaluation.observers import signed
from copl_core.ids import rows_of
from copl_core.preference.adapt import label_weights
from copl_core.preference.state import GraphState
from copl_core.records import Comparisons, TrainingData
from copl_core.reward.linear import LinearReward, of_differences
from copl_core.training.metrics import correct, interval
from copl_core.training.split import split_of_study

if TYPE_CHECKING:
    from copl_core.reward.model import RewardModel

FEWEST = 20  # held-out labels, with fewer nothing is claimed
PART = "reward"


def reward_rows(
    state: GraphState,
    model: RewardModel,
    linear: LinearReward | None,
    data: TrainingData,
    phi: np.ndarray,
    seed: int = 0,
) -> list[Row]:
    """Was this label in training, by the text rewards of a snapshot; empty where too few labels were held out.

    Args:
        state: the graph beside the reward model, with the labels that both have learned.
        linear: None, or the linear text reward beside them.
        data: the study now, whose labels the held-out ones are found among.
        phi: (R, P) of the responses of ``data``.
    """
    from copl_core.trainer.job import text_margins

    labels, known = labels_of_fit(state, data)
    if min(known.sum(), (~known).sum()) < FEWEST:
        return []
    at = rows_of(state.response_ids, data.response_ids)
    texts = list(data.texts())
    here = [texts[row] for row in at.tolist()]
    margins = {
        "experts, a person's reward": text_margins(model, labels, state.user_vectors, here),
        "experts, everybody's reward": text_margins(model, _of_one(labels), state.population[None], here),
    }
    if linear is not None and linear.features.version == state.features_version:
        margins["text weights of a person"] = _by_linear(state, linear, labels, phi[at])
    rows = []
    for observer, margin in margins.items():
        score = signed(margin, labels)
        hits = correct(score[~known], np.ones(int((~known).sum())))
        accuracy = float(hits.mean()), *interval(hits, labels.user[~known], seed)
        rows.append(Row(PART, observer, "loss", figure(score, known, labels.user, seed), accuracy))
    return rows


def labels_of_fit(state: GraphState, data: TrainingData) -> tuple[Comparisons, np.ndarray]:
    """(decided labels in the rows of a state, which of them it has learned): those in it, and the study's held-out ones
    of people and responses that it knows."""
    labels = data.labels
    ids = data.user_ids[labels.user], data.response_ids[labels.left], data.response_ids[labels.right]
    _, held_out, _ = split_of_study(*ids, labels.decided, data.n_responses)
    columns = {name: getattr(labels, name) for name in labels.__slots__}
    columns["user"] = rows_of(ids[0], state.user_ids)
    columns["left"], columns["right"] = (rows_of(one, state.response_ids) for one in ids[1:])
    found = Comparisons(**columns)
    unknown = (found.user < 0) | (found.left < 0) | (found.right < 0)
    out = found.take(np.flatnonzero(held_out & ~unknown & ~_are_in(found, state.labels)))
    learned = state.labels.take(np.flatnonzero(state.labels.decided))
    return learned.joined(out), np.arange(len(learned) + len(out)) < len(learned)


def _are_in(labels: Comparisons, others: Comparisons) -> np.ndarray:
    """Mask (N,) of labels whose user and pair occur among others."""

    def keys(one: Comparisons) -> np.ndarray:
        return np.stack([one.user, np.minimum(one.left, one.right), np.maximum(one.left, one.right)], 1)

    both = np.concatenate([keys(labels), keys(others)])
    _, number = np.unique(both, axis=0, return_inverse=True)
    number = number.reshape(-1)
    return np.isin(number[: len(labels)], number[len(labels) :])


def _of_one(labels: Comparisons) -> Comparisons:
    """The labels as if one person had given them all."""
    columns = {name: getattr(labels, name) for name in labels.__slots__}
    return Comparisons(**(columns | {"user": np.zeros(len(labels), np.int64)}))


def _by_linear(state: GraphState, linear: LinearReward, labels: Comparisons, phi: np.ndarray) -> np.ndarray:
    users, row = np.unique(labels.user, return_inverse=True)
    weights = linear.of_fit(users, state.user_vectors[users], state.labels, label_weights(state, state.labels))
    return of_differences(linear.features(phi), labels, weights[row])
