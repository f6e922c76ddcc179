"""How reliably each person answers by the ranking that all share: crowd-kit's noisy Bradley–Terry model.

With s the scores of responses, γ_k the skill of person k and q_k their habit for the left side, and y = ±1 for left or
right::

    P(y) = σ(γ_k) σ(y (s_left − s_right)) + (1 − σ(γ_k)) σ(y q_k)        skill = σ(γ_k)

crowd-kit 1.4's gradient overwrites a person's own entries at every label instead of adding to them, and writes them one
place off, so that skills stay near their random start.  The model and its optimiser are crowd-kit's; objective and
gradient are written out here, where a test holds them against finite differences.  Skill is agreement with a shared
ranking, so it is low for unusual taste too, and nobody is flagged on it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from crowdkit.aggregation.pairwise.noisy_bt import NoisyBradleyTerry
from scipy.special import expit, log_expit

from copl_core.records import Choice
from copl_core.study_settings import CHECK_REASONS, AnswerTable, SelectionReason

FEWEST = 10  # comparisons of a person below which nothing is said
_TIGHTNESS = 0.05  # of the prior that keeps scores near their common middle


class _Noisy(NoisyBradleyTerry):
    """The same model with a gradient that is the objective's."""

    @staticmethod
    def _compute_log_likelihood(
        x: np.ndarray, rows: np.ndarray, workers: np.ndarray, labels: int, n_workers: int, ratio: float
    ) -> float:
        y, apart, habit, skill = _terms(x, rows, workers, labels, n_workers)
        total = np.log(expit(skill) * expit(y * apart) + expit(-skill) * expit(y * habit)).sum()
        away = x[1 : labels + 1] - x[0]
        return float(-total - ratio * (log_expit(away) + log_expit(-away)).sum())

    @staticmethod
    def _compute_gradient(
        x: np.ndarray, rows: np.ndarray, workers: np.ndarray, labels: int, n_workers: int, ratio: float
    ) -> np.ndarray:
        y, apart, habit, skill = _terms(x, rows, workers, labels, n_workers)
        able, by_score, by_side = expit(skill), expit(y * apart), expit(y * habit)
        chance = able * by_score + (1 - able) * by_side
        to_score = able * by_score * (1 - by_score) * y / chance
        gradient = np.zeros_like(x)
        np.add.at(gradient, rows[:, 0], to_score)
        np.add.at(gradient, rows[:, 1], -to_score)
        np.add.at(gradient, 1 + labels + workers, (1 - able) * by_side * (1 - by_side) * y / chance)
        np.add.at(gradient, 1 + labels + n_workers + workers, able * (1 - able) * (by_score - by_side) / chance)
        pull = ratio * np.tanh((x[1 : labels + 1] - x[0]) / 2)
        gradient[1 : labels + 1] -= pull
        gradient[0] += pull.sum()
        return -gradient


def skills(answers: AnswerTable, *, iterations: int = 200) -> dict[int, float]:
    """Skill, 0 to 1, of every person with ten decided preferences or more."""
    kept = ~np.isin(answers.asked, [list(SelectionReason).index(reason) for reason in CHECK_REASONS])
    answers = answers.take(kept & (answers.choice < 2))
    users, counts = np.unique(answers.user, return_counts=True)
    if not (counts >= FEWEST).any():
        return {}
    left = answers.choice == list(Choice).index(Choice.LEFT)
    table = pd.DataFrame(
        {
            "worker": answers.user,
            "left": answers.left,
            "right": answers.right,
            "label": np.where(left, answers.left, answers.right),
        }
    )
    fitted: Any = _Noisy(n_iter=iterations, regularization_ratio=_TIGHTNESS).fit(table)
    return {int(user): float(fitted.skills_[user]) for user in users[counts >= FEWEST]}


def _terms(
    x: np.ndarray, rows: np.ndarray, workers: np.ndarray, labels: int, n_workers: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Of every label (N,): y, score difference, side habit, skill; ``rows`` name left, right and label, from 1."""
    y = np.where(rows[:, 0] == rows[:, 2], 1.0, -1.0)
    return y, x[rows[:, 0]] - x[rows[:, 1]], x[1 + labels + workers], x[1 + labels + n_workers + workers]
