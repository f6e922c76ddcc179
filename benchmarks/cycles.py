"""A synthetic study whose preferences go in circles, after rock–paper–scissors.

Every prompt has a response of each of three kinds.  A user of the first group prefers kind k to kind k + 1 (modulo 3),
so that no scores of responses explain more than two of a prompt's three pairs, and over all labels each kind wins as
often as it loses: a Bradley–Terry model is at chance on labels that it has not seen.  A user of the second group turns
the other way round.  A kind is visible in the text embedding.  numpy only; one seed determines everything.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from copl_core.records import Comparisons, TrainingData

KINDS = 3


@dataclass(frozen=True, slots=True)
class CyclicWorld:
    """Labels to learn from, and noise-free labels about prompts that their user did not label."""

    data: TrainingData
    phi: np.ndarray  # (R, P) text embeddings
    group: np.ndarray  # (U,) 0, or 1 where a user turns the other way round
    test: Comparisons


def make_cycles(
    users: int = 60,
    prompts: int = 60,
    labels: int = 30,
    noise: float = 0.02,
    reversed_share: float = 1 / 3,
    text_dim: int = 12,
    seed: int = 0,
) -> CyclicWorld:
    """A world with ``labels`` labels per user on as many prompts; the user's other prompts have one test label each.

    Args:
        labels: fewer than ``prompts``.
        noise: share of training labels that are flipped.
        reversed_share: share of the users who turn the other way round.
    """
    rng = np.random.default_rng(seed)
    group = (np.arange(users) < round(users * reversed_share)).astype(np.int64)
    user, prompt = np.repeat(np.arange(users), prompts), np.tile(np.arange(prompts), users)
    first = rng.integers(KINDS, size=len(user))
    left, right = KINDS * prompt + first, KINDS * prompt + (first + rng.integers(1, KINDS, size=len(user))) % KINDS
    wins = ((right - left) % KINDS == 1) != (group[user] == 1)
    order = np.argsort(rng.random((users, prompts)), 1)
    learned = (order < labels).ravel()
    flipped = learned & (rng.random(len(user)) < noise)
    everything = Comparisons.build(user, left, right, (wins != flipped).astype(float))
    data = TrainingData(
        user_ids=np.arange(users),
        response_ids=np.arange(KINDS * prompts),
        response_prompt=np.repeat(np.arange(prompts), KINDS),
        prompts=tuple(f"Question {i}?" for i in range(prompts)),
        responses=tuple(f"Answer {i}." for i in range(KINDS * prompts)),
        labels=everything.take(np.flatnonzero(learned)),
    )
    kind, topic = rng.normal(size=(KINDS, text_dim)), rng.normal(size=(prompts, text_dim))
    phi = np.tile(kind, (prompts, 1)) + np.repeat(topic, KINDS, 0) + 0.3 * rng.normal(size=(KINDS * prompts, text_dim))
    return CyclicWorld(data, phi.astype(np.float32), group, everything.take(np.flatnonzero(~learned)))
