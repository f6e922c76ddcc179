"""Two camps with opposite preferences on the same prompts, as plain training data; every prompt has two responses."""

from __future__ import annotations

import numpy as np

from copl_core.preference.config import GraphConfig
from copl_core.records import Comparisons, TrainingData

QUICK = GraphConfig.build(dim=8, n_layers=2, members=2, max_steps=60, patience=60, text_dim=8, holdout=0.1, l2=1.0)


def camps(
    n_users: int = 20, n_prompts: int = 24, per_user: int = 14, noise: float = 0.1, seed: int = 0
) -> TrainingData:
    """Even users prefer response 2i of prompt i, odd ones 2i + 1, except for label noise; positions are random."""
    rng = np.random.default_rng(seed)
    user, left, right, outcome = [], [], [], []
    for row in range(n_users):
        for prompt in rng.choice(n_prompts, per_user, replace=False):
            pair = 2 * prompt + rng.permutation(2)
            user.append(row)
            left.append(pair[0])
            right.append(pair[1])
            outcome.append(float((pair[0] % 2 == row % 2) != (rng.random() < noise)))
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
    """φ (R, P): the camp that a response is written for in the first coordinate, noise in the others."""
    rng = np.random.default_rng(seed)
    phi = rng.normal(0, 0.3, (2 * n_prompts, width)).astype(np.float32)
    phi[:, 0] = np.tile([1.0, -1.0], n_prompts)
    return phi


def all_pairs(n_prompts: int, user: int) -> Comparisons:
    """Every prompt's pair for one user row; outcome 1 is the preference of an even user."""
    even = 2 * np.arange(n_prompts)
    return Comparisons.build(np.full(n_prompts, user), even, even + 1, np.ones(n_prompts))
