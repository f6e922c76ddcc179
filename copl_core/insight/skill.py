"""How reliably each user answers by the ranking that all share: Bradley–Terry with a skill and a side habit per user.

With s the scores of responses, γ_k the skill of user k, q_k their habit for the left side, and y = ±1 for left or
right (after factorBT: N. Bugakova et al., arXiv 1906.03711, 2019)::

    P(y) = σ(γ_k) σ(y (s_left − s_right)) + (1 − σ(γ_k)) σ(y q_k)        skill = σ(γ_k)

Where the position on screen is unknown, q_k is 0.  A virtual response with score s_0 keeps the scores near a common
middle: the log-likelihood is maximised together with λ Σ_i [log σ(s_i − s_0) + log σ(s_0 − s_i)].  The start is fixed,
so equal answers give equal skills.  Skill measures agreement with a shared ranking: it is low for unusual taste too, so
it flags nobody.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import expit, log_expit

from copl_core.records import Choice
from copl_core.study_settings import CHECK_REASONS, AnswerTable, SelectionReason

FEWEST = 10  # decided preferences of a user below which no skill is given
_TIGHTNESS = 0.05  # λ
_TOLERANCE = 1e-5  # relative decrease of the objective at which the fit stops
_LEFT, _RIGHT = (list(Choice).index(side) for side in (Choice.LEFT, Choice.RIGHT))
_CHECKS = [list(SelectionReason).index(reason) for reason in CHECK_REASONS]


@dataclass(frozen=True, slots=True)
class NoisyBradleyTerry:
    """The objective of N comparisons by K users of R responses.

    Its variable x, (1 + R + 2 K,), holds s_0, the scores, the habits, and the skills γ.
    """

    left: np.ndarray  # (N,) row of the response on the left
    right: np.ndarray  # (N,)
    y: np.ndarray  # (N,) 1 where the left response is preferred, else −1
    user: np.ndarray  # (N,) row of the user
    n_responses: int
    n_users: int
    known: np.ndarray  # (N,) 1 where the position on screen is known, else 0: no habit applies
    tightness: float = _TIGHTNESS

    @property
    def start(self) -> np.ndarray:
        """Equal scores, no habit, and users who mostly answer by the ranking."""
        return np.concatenate([np.zeros(1 + self.n_responses + self.n_users), np.ones(self.n_users)])

    def loss(self, x: np.ndarray) -> tuple[float, np.ndarray]:
        """(negative log-likelihood with the prior, its gradient (1 + R + 2 K,))."""
        scores, habits, skills = self.split(x)
        y, able = self.y, expit(skills[self.user])  # (N,)
        by_score = expit(y * (scores[self.left] - scores[self.right]))
        by_side = expit(y * habits[self.user] * self.known)
        chance = able * by_score + (1 - able) * by_side
        away = scores - x[0]
        loss = -np.log(chance).sum() - self.tightness * (log_expit(away) + log_expit(-away)).sum()

        to_score = able * by_score * (1 - by_score) * y / chance
        pull = self.tightness * np.tanh(away / 2)
        sums = self._sum_by_response(to_score) - pull
        to_habit = np.bincount(self.user, (1 - able) * by_side * (1 - by_side) * y * self.known / chance, self.n_users)
        to_skill = np.bincount(self.user, able * (1 - able) * (by_score - by_side) / chance, self.n_users)
        return float(loss), -np.concatenate([[pull.sum()], sums, to_habit, to_skill])

    def split(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Scores (R,), habits (K,) and skills γ (K,)."""
        scores, habits, skills = np.split(x[1:], [self.n_responses, self.n_responses + self.n_users])
        return scores, habits, skills

    def _sum_by_response(self, values: np.ndarray) -> np.ndarray:
        """Σ of values (N,) over comparisons with a response on the left, less those with it on the right, (R,)."""
        return np.bincount(self.left, values, self.n_responses) - np.bincount(self.right, values, self.n_responses)


def skills(answers: AnswerTable, *, iterations: int = 200) -> dict[int, float]:
    """Skill, 0 to 1, of every user with ten decided preferences or more, by user id."""
    from scipy.optimize import minimize

    answers = answers.take(~np.isin(answers.selection_reason, _CHECKS) & np.isin(answers.choice, (_LEFT, _RIGHT)))
    users, user, counts = np.unique(answers.user, return_inverse=True, return_counts=True)
    if not (counts >= FEWEST).any():
        return {}
    responses, sides = np.unique(np.stack([answers.left, answers.right]), return_inverse=True)
    left, right = sides.reshape(2, -1)
    y = np.where(answers.choice == _LEFT, 1.0, -1.0)
    model = NoisyBradleyTerry(left, right, y, user, len(responses), len(users), answers.position_known.astype(float))
    found = minimize(
        model.loss,
        model.start,
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": iterations, "ftol": _TOLERANCE},
    )
    skill = expit(model.split(found.x)[2])
    return {int(users[row]): float(skill[row]) for row in np.flatnonzero(counts >= FEWEST)}
