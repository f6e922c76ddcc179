"""Two camps with opposite tastes over the same prompts, as plain training data; every prompt has two answers."""

from __future__ import annotations

import numpy as np

from copl_core.preference.state import GraphConfig
from copl_core.records import Comparisons, TrainingData

QUICK = GraphConfig(dim=8, layers=2, members=2, max_steps=60, patience=60, text_dim=8, holdout=0.1, l2=1.0)


def camps(
    n_users: int = 20, n_prompts: int = 24, per_user: int = 14, slips: float = 0.1, seed: int = 0
) -> TrainingData:
    """Even users prefer answer 2i of prompt i, odd ones answer 2i + 1, but for slips; sides are random."""
    rng = np.random.default_rng(seed)
    user, left, right, outcome = [], [], [], []
    for row in range(n_users):
        for prompt in rng.choice(n_prompts, per_user, replace=False):
            pair = 2 * prompt + rng.permutation(2)
            user.append(row)
            left.append(pair[0])
            right.append(pair[1])
            outcome.append(float((pair[0] % 2 == row % 2) != (rng.random() < slips)))
    labels = Comparisons.build(user, left, right, outcome)
    return world(n_users, n_prompts, labels)


def world(n_users: int, n_prompts: int, labels: Comparisons) -> TrainingData:
    return TrainingData(
        user_ids=np.arange(n_users) + 100,
        response_ids=np.arange(2 * n_prompts) + 500,
        response_prompt=np.repeat(np.arange(n_prompts), 2),
        prompts=tuple(f"Question {i}?" for i in range(n_prompts)),
        responses=tuple(f"Answer {i}." for i in range(2 * n_prompts)),
        labels=labels,
    )


def camp_phi(n_prompts: int = 24, width: int = 6, seed: int = 0) -> np.ndarray:
    """φ (R, P): which camp an answer is written for in the first coordinate, noise in the others."""
    rng = np.random.default_rng(seed)
    phi = rng.normal(0, 0.3, (2 * n_prompts, width)).astype(np.float32)
    phi[:, 0] = np.tile([1.0, -1.0], n_prompts)
    return phi


def all_pairs(n_prompts: int, user: int) -> Comparisons:
    """Every prompt's pair asked of one user row; outcome 1 is what an even user says."""
    even = 2 * np.arange(n_prompts)
    return Comparisons.build(np.full(n_prompts, user), even, even + 1, np.ones(n_prompts))
